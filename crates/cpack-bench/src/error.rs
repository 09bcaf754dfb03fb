//! Errors that end `cpack-bench`.

use std::path::PathBuf;

use cluster_pack::cli::CommandError;
use cpack_format::exit::Exit;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A measured program failed.
    #[error("{program} ended with {status}: {said}")]
    Failed { program: String, status: String, said: String },
    /// Metrics, a trace or a launcher cannot be parsed, or say something impossible.
    #[error("{what} is not what was expected: {reason}")]
    Unexpected { what: &'static str, reason: String },
    #[error("{path} has {free} MiB free, and one cold start needs {needed} MiB: name another directory with --scratch", path = path.display())]
    Room { path: PathBuf, free: u64, needed: u64 },
    /// A report is not enough for a simulation.
    #[error("{what}: {reason}")]
    Simulation { what: String, reason: String },
}

impl BenchError {
    /// The exit code of the process.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Command(error) => error.exit(),
            Self::Room { .. } => Exit::Disk,
            Self::Failed { .. } => Exit::Environment,
            Self::Unexpected { .. } => Exit::Internal,
            Self::Simulation { .. } => Exit::Usage,
        }
    }
}
