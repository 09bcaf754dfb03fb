//! Errors of discovery.

use std::io;
use std::path::PathBuf;

/// Why an environment cannot be discovered. Every message is one line that names the path and what to do.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum DiscoverError {
    #[error("{path} is no Python environment: {reason}", path = path.display())]
    NotAnEnvironment { path: PathBuf, reason: String },
    #[error("no Python environment is active: activate one, or name it with --venv")]
    NothingActive,
    #[error("{path} cannot be run: {reason}", path = path.display())]
    Interpreter { path: PathBuf, reason: String },
    #[error("{path} is {found}: only CPython 3.9 and later are supported", path = path.display())]
    Unsupported { path: PathBuf, found: String },
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
}
