//! Simulates containers on many nodes that start an environment from one store, with measured costs.
//!
//! ```text
//! reports of `bench` ─ fit (costs of a byte, a file, a start) ─▶ Costs
//! an environment's sizes and its warm start ─ Costs::demand ─▶ Demand ─ cluster (nodes, store, node cache) ─▶ Outcome
//! ```
//!
//! **The model.** A start has a fixed part, then the extraction, which fetches while it works (verifies, decodes, writes), then
//! links and commits. Python's own start and the command follow, on as many threads as in the warm start. The containers of a
//! node share its cores and its network, and all nodes share the store, each evenly ([`mod@flow`]). With the node cache the
//! containers of a node extract once, together; without it each extracts for itself.
//!
//! **Not in the model**: disks slower than that of the measured machine, too little memory, executors that start late. Nothing
//! is random: the same numbers give the same answer.

mod cluster;
mod demand;
mod fit;
mod flow;
mod least_squares;
mod stores;

pub(crate) use cluster::{Cluster, Outcome, simulate};
pub(crate) use demand::Demand;
pub(crate) use fit::{Check, Costs, check, fit};
pub(crate) use stores::{Link, Store, stores};
