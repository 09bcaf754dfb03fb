//! Replaces this process with Python. `Exec` holds everything the new program receives: path, arguments, environment, and
//! how standard descriptors and `SIGPIPE` were.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::sys::{self, AtStart};

/// Has no `Debug`: values of variables may be secret.
pub(crate) struct Exec {
    pub(crate) program: PathBuf,
    /// `argv`. The program takes the first for its own path.
    pub(crate) arguments: Vec<OsString>,
    /// All environment variables.
    pub(crate) environ: BTreeMap<OsString, OsString>,
    /// How this process was started: the program gets standard descriptors and `SIGPIPE` as they were then.
    pub(crate) at_start: AtStart,
}

impl Exec {
    /// Replaces this process. Returns only if that fails.
    pub(crate) fn run(self) -> io::Error {
        match self.try_run() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_run(self) -> io::Result<std::convert::Infallible> {
        let program = CString::new(self.program.as_os_str().as_bytes())?;
        let arguments =
            self.arguments.into_iter().map(|a| CString::new(a.into_vec())).collect::<Result<Vec<_>, _>>()?;
        let pairs = self.environ.into_iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        let environ = pairs.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        sys::restore(self.at_start);
        Ok(nix::unistd::execve(&program, &arguments, &environ)?)
    }
}
