//! Replaces this process with Python. `Exec` holds everything the new program receives: path, arguments, environment, and
//! how standard descriptors and `SIGPIPE` were.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::sys::{self, AtStart};

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Exec {
    pub(crate) program: PathBuf,
    /// `argv`. The program takes the first for its own path.
    pub(crate) arguments: Vec<OsString>,
    /// All environment variables.
    pub(crate) environ: BTreeMap<OsString, OsString>,
    /// How this process was started: the program gets standard descriptors and `SIGPIPE` as they were then.
    pub(crate) at_start: AtStart,
}

impl fmt::Debug for Exec {
    /// Names of variables only: values may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec")
            .field("program", &self.program)
            .field("arguments", &self.arguments)
            .field("environ", &self.environ.keys())
            .field("at_start", &self.at_start)
            .finish()
    }
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
