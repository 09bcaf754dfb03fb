//! What the first run of an environment costs and where it goes: the program behind `cluster-pack bench`.
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

mod child;
mod cluster;
mod command;
pub mod creation;
mod error;
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
mod table;
pub mod trace;

pub use command::main;
pub use error::BenchError;
pub use measure::{Subject, measure};
pub use report::Report;
pub use spread::Spread;

pub(crate) use error::io_error;
