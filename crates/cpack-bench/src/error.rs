//! Why nothing was measured.

use std::io;
use std::path::PathBuf;

use cluster_pack::cli::error::CommandError;
use cpack_format::exit::Exit;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file or directory of the measurement.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io {
        /// `read`, `write`, `run`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that is measured did not do its work.
    #[error("{what} ended with {status}: {said}")]
    Failed {
        /// What it was.
        what: String,
        /// Its exit code or signal.
        status: String,
        /// The last lines of its standard error.
        said: String,
    },
    /// What a program tells about itself cannot be understood.
    #[error("{what} is not what was expected: {reason}")]
    Unexpected {
        /// Metrics, a trace.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk is too small for a single start.
    #[error("{path} has {free} free, and one cold start needs {needed}: name another place with --scratch", path = path.display())]
    Room {
        /// Where it was to be done.
        path: PathBuf,
        /// What is free, for people.
        free: String,
        /// What is needed, for people.
        needed: String,
    },
    /// A report that cannot be simulated with.
    #[error("{what}: {reason}")]
    Simulation {
        /// Which.
        what: String,
        /// What is missing.
        reason: String,
    },
}

/// An error with the path and what was to be done with it.
pub(crate) fn io_error(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BenchError {
    let path = path.into();
    move |source| BenchError::Io { verb, path, source }
}

impl BenchError {
    /// The exit code that fits.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Io { .. } | Self::Room { .. } => Exit::Disk,
            // What is measured said itself what is wrong with it.
            Self::Failed { .. } => Exit::Environment,
            Self::Unexpected { .. } => Exit::Internal,
            Self::Simulation { .. } => Exit::Usage,
        }
    }
}

/// Why the program failed: by what it shares with `cluster-pack`, or by its own work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    Bench(#[from] BenchError),
}

impl Error {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Command(error) => error.exit(),
            Self::Bench(error) => error.exit(),
        }
    }
}
