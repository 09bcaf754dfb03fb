//! What runs in the environment: Python itself, a module, a console script or a payload.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpack_format::job::{PAYLOAD_NAME, Program};
use cpack_format::script::is_for_python;

/// Runs a payload. Its digest was verified when it was extracted. cloudpickle reads what plain pickle reads, so it is used
/// if the environment has it.
const PAYLOAD_LOADER: &str = "\
import sys
path = sys.argv.pop(1)
try:
    import cloudpickle as pickle
except ImportError:
    import pickle
with open(path, 'rb') as file:
    payload = pickle.load(file)
payload['func'](*payload.get('args', ()), **payload.get('kwargs', {}))
";

/// Bytes in which what a script says of its interpreter ends: a line of the kernel and, after a comment, one for `sh`.
const HEAD: u64 = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) program: PathBuf,
    /// `argv`, the program's own name first.
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("the environment has no script {0:?}: see cpack-boot --cpack info for what it has")]
    Script(String),
    #[error("the job's payload is not among its layers: make the job again")]
    Payload,
}

/// The command line that runs `entry` in the environment at `prefix` with the arguments `given`.
///
/// `argv[0]` is the environment's `bin/python`, from which CPython derives `sys.prefix`. `payload` is the directory of
/// the job's payload.
pub(crate) fn command_line(
    entry: &Program,
    prefix: &Path,
    payload: Option<&Path>,
    given: &[OsString],
) -> Result<CommandLine, EntryError> {
    let python = prefix.join("bin/python");
    let run = |before: &[&OsStr]| {
        let own = std::iter::once(python.as_os_str()).chain(before.iter().copied()).map(OsStr::to_owned);
        CommandLine { program: python.clone(), arguments: own.chain(given.iter().cloned()).collect() }
    };
    match entry {
        Program::Interpreter => Ok(run(&[])),
        Program::Module(module) => Ok(run(&[OsStr::new("-m"), OsStr::new(module)])),
        Program::Script(name) => {
            let script = prefix.join("bin").join(name);
            if name.is_empty() || name.contains('/') || name.contains('\0') || !script.is_file() {
                return Err(EntryError::Script(name.clone()));
            }
            if !is_program(&script) {
                return Ok(run(&[script.as_os_str()]));
            }
            let arguments = std::iter::once(script.clone().into_os_string()).chain(given.iter().cloned()).collect();
            Ok(CommandLine { program: script, arguments })
        }
        Program::Payload(_) => {
            let file = payload.ok_or(EntryError::Payload)?.join(PAYLOAD_NAME);
            Ok(run(&[OsStr::new("-c"), OsStr::new(PAYLOAD_LOADER), file.as_os_str()]))
        }
    }
}

/// Whether a script runs by itself, not by Python: an ELF executable, or one whose first line names another interpreter.
fn is_program(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && (head.starts_with(b"\x7fELF") || head.starts_with(b"#!") && !is_for_python(&head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpack_format::Digest;
    use std::fs;

    fn line(entry: &Program, prefix: &Path, payload: Option<&Path>) -> Result<Vec<String>, EntryError> {
        let given = ["-x".into(), "y".into()];
        let line = command_line(entry, prefix, payload, &given)?;
        assert_eq!(line.program.as_os_str(), line.arguments[0]);
        Ok(line.arguments.iter().map(|a| a.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn each_entry_gets_the_arguments() {
        let directory = tempfile::tempdir().expect("a directory");
        let prefix = directory.path();
        fs::create_dir(prefix.join("bin")).expect("creates");
        fs::write(prefix.join("bin/tool"), "#!python").expect("writes");
        fs::write(prefix.join("bin/native"), b"\x7fELF....").expect("writes");
        fs::write(prefix.join("bin/shell"), "#!/bin/sh\necho x\n").expect("writes");
        let relocatable = cpack_format::script::relocatable(b"-E", &[], b"import sys\n");
        fs::write(prefix.join("bin/moved"), relocatable).expect("writes");
        let python = prefix.join("bin/python").display().to_string();
        let bin = |name: &str| prefix.join("bin").join(name).display().to_string();
        let payload = Program::Payload(Digest::of(b""));
        for (entry, expected) in [
            (Program::Interpreter, vec![python.as_str(), "-x", "y"]),
            (Program::Module("m".into()), vec![&python, "-m", "m", "-x", "y"]),
            (Program::Script("tool".into()), vec![&python, &bin("tool"), "-x", "y"]),
            (Program::Script("native".into()), vec![&bin("native"), "-x", "y"]),
            (Program::Script("shell".into()), vec![&bin("shell"), "-x", "y"]),
            (Program::Script("moved".into()), vec![&python, &bin("moved"), "-x", "y"]),
            (payload.clone(), vec![&python, "-c", PAYLOAD_LOADER, "/p/payload.pkl", "-x", "y"]),
        ] {
            assert_eq!(line(&entry, prefix, Some(Path::new("/p"))).expect("runs"), expected);
        }
        for (entry, error) in [
            (Program::Script("../tool".into()), EntryError::Script("../tool".into())),
            (Program::Script("none".into()), EntryError::Script("none".into())),
            (payload, EntryError::Payload),
        ] {
            assert_eq!(line(&entry, prefix, None), Err(error));
        }
    }
}
