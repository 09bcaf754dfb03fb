//! What the first run costs and where it goes, on somebody's own environment and store: `cluster-pack bench`.
//!
//! The two programs are started as people start them, as processes of their own, and tell themselves where their time
//! went: `CPACK_METRICS` the phases of each start, `CPACK_TRACE` every step of one. The clock here is that of whole
//! commands, from before a process is started to after its end. What comes after `exec`, Python's own start and what
//! the command does, is the rest.
//!
//! ```text
//! measure ─ scratch, memory, child, starts, creation   run the programs, in fresh directories
//!    │  └── metrics, trace, imports               read what they and Python tell
//!    ▼
//! Report (report) ── page                         one HTML page that needs nothing else
//!    └────────────── simulate                     what a cluster costs, from such reports
//! ```
//!
//! **Cold** means an empty node cache in a fresh directory, bytes of a store on this machine in page cache, and memory at
//! hand (`memory`). Directories are new ones, never emptied ones: ext4 without a journal makes the re-creation of a tree
//! within minutes of its removal up to 15 times slower. Everything is removed at the end unless it is kept, or where the disk is too small before, and the report says which.

pub mod child;
pub mod creation;
pub mod imports;
pub mod measure;
mod memory;
pub mod metrics;
pub mod page;
pub mod report;
pub mod scratch;
pub mod simulate;
pub mod spread;
pub mod starts;
pub mod trace;

use std::io;
use std::path::PathBuf;

pub use measure::{Subject, measure};
pub use report::Report;
pub use spread::Spread;

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
