//! `cpack-bench`, the program behind `cluster-pack bench`: it measures what the first run of an environment costs and where
//! the time goes, and simulates a cluster from such measurements.
//!
//! `cpack-bench` starts `cluster-pack` and `cpack-boot` as users do, as processes of their own, and measures each from before
//! its start to after its end. The programs report themselves where their time went: `CPACK_METRICS` has the phases of each
//! start, `CPACK_TRACE` every step of one. The time after `exec` is Python's own start and the command.
//!
//! ```text
//! measure ─ scratch, memory, child, starts, creation   run the programs in fresh directories
//!    │  └── metrics, trace, imports                    parse what the programs and Python report
//!    ▼
//! Report (report) ── table, page                       the terminal; one HTML page without scripts or network
//!    ├────────────── simulate                          what a cluster costs, computed from reports
//!    └────────────── compare                           two reports, number by number
//! ```
//!
//! **Cold** means an empty node cache in a fresh directory, a local store's bytes in page cache, and free memory that was
//! touched just before (`memory`). A directory is never emptied and used again: ext4 without a journal creates a tree up to
//! 15 times slower if it was removed within the last minutes. `cpack-bench` removes everything at its end, unless `--keep`
//! is given; if the disk is too small for all directories it removes each after its use, and the report says so.

mod child;
mod command;
mod compare;
mod creation;
mod error;
mod imports;
mod measure;
mod memory;
mod metrics;
mod page;
mod report;
mod scratch;
mod simulate;
mod simulation;
mod spread;
mod starts;
mod table;
mod trace;
mod traced;

pub use command::main;
