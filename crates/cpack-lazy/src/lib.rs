//! An environment served before it is there: a start shows Python a file system (FUSE) whose files are fetched, verified and
//! decoded when they are read.
//!
//! | module | does |
//! | --- | --- |
//! | `tree` | the environment's tree as metadata, merged from layers as an eager start merges them |
//! | `layer` | one layer: its files in the node cache, or its archive |
//! | `blocks` | pieces and blocks that were read lately, within a budget of bytes |
//! | `buffers` | memory for them, used again |
//! | `ahead` | which piece of a trace is fetched next |
//! | `reads` | what all layers share while they are read |
//! | `waits` | reads that wait for the store |
//! | `demand` | tells other processes of them |
//! | `served` | the two together: what a name is, what a range of a file holds |
//! | `filesystem` | answers the kernel |
//! | `namespace` | enters a user and mount namespace and mounts there |
//! | `handover` | gives `/dev/fuse` to another process |
//! | `job_processes` | ends the processes of a namespace |
//! | `exit_of` | makes another process exit with a chosen code |
//!
//! **Never a wrong byte.** A byte comes from a layer in the node cache, which was verified before it was published there, or
//! from a piece of an archive whose digest the manifest names. What cannot be fetched, or is not what the manifest says, is
//! `EIO` for the program and one line for the person. Nothing is answered in part.
//!
//! **What is in the tree** is decided by the code that decides it for an eager start ([`cpack_node::tree`]): which files are
//! left out, which are writable, which the tree has by itself. The one difference: an eager start looks into small files of
//! packages that have no suffix of native code, and takes the permission to write from those that are native all the same.
//! Here that would fetch them.
//!
//! **Memory.** Pieces and blocks within [`BUDGET`], one of each for each thread that answers, and 200 bytes for each file.
//!
//! **Concurrency.** Several threads answer. Two that need the same piece wait for one that fetches it; all others go on. Servers of
//! other containers wait for it as well, if it comes through a network ([`cpack_node::cache::Cache::shared_piece`]).

mod ahead;
mod blocks;
mod buffers;
mod demand;
mod error;
mod exit_of;
mod filesystem;
mod handover;
mod job_processes;
mod layer;
mod namespace;
mod reads;
mod served;
mod tree;
mod waits;

pub use blocks::BUDGET;
pub use demand::Demand;
pub use error::LazyError;
pub use filesystem::Session;
pub use handover::{receive, send};
pub use job_processes::JobProcesses;
pub use namespace::{Refused, enter_and_mount};
pub use reads::Record;
pub use served::{Fetched, Manner, Report, Served};
