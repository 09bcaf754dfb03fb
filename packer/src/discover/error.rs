//! Why an environment cannot be discovered.

use std::io;
use std::path::PathBuf;

/// Why an environment cannot be discovered. Every message is one line that names the path and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The path is no environment.
    #[error("{path} is no Python environment: {reason}", path = path.display())]
    NotAnEnvironment {
        /// The path, as the user named it.
        path: PathBuf,
        /// What is missing, and what to do.
        reason: String,
    },
    /// No environment is active, the project has none, and `python3` on `PATH` belongs to none.
    #[error(
        "no Python environment is active, and {directory} has no .venv, nor has a directory above it: activate one, name \
         one with --venv PATH (of poetry: --venv \"$(poetry env info --path)\"), or name requirements with -r FILE{}",
        system.as_ref().map(|prefix| {
            let prefix = prefix.display();
            format!("; {prefix}, of python3 on PATH, is an interpreter's own and packed only if it is named: --venv {prefix}")
        }).unwrap_or_default(),
        directory = directory.display()
    )]
    NothingActive {
        /// The working directory.
        directory: PathBuf,
        /// The prefix of the `python3` on `PATH`.
        system: Option<PathBuf>,
    },
    /// The interpreter cannot be run.
    #[error("{path} cannot be run: {reason}", path = path.display())]
    Interpreter {
        /// The interpreter.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The interpreter is not one that can be packed for.
    #[error("{path} is {found}: only CPython 3.9 and later are supported", path = path.display())]
    Unsupported {
        /// The interpreter.
        path: PathBuf,
        /// Implementation and version.
        found: String,
    },
    /// A directory or file of the environment cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
