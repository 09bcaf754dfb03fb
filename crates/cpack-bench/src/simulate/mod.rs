//! What a cluster costs: containers of many nodes that start an environment from one store, from measured costs.
//!
//! ```text
//! reports of `bench` ─ fit (costs of a byte, a file, a start) ─▶ Costs
//! an environment's sizes and its warm start ─ demand ─▶ Demand ─ cluster (nodes, store, node cache) ─▶ Outcome
//! ```
//!
//! **The model.** A boot has a fixed part, then the extraction, which fetches and works (verifies, decodes, writes) side by side,
//! then links and commits; Python's own start and the command follow, on as many threads as they had when warm. Work is
//! shared among the cores of a node, the network of a node among its containers, and the store among all nodes, each evenly
//! ([`mod@flow`]). With the node cache the containers of a node build once and together; without it each builds for itself.
//!
//! **What it leaves out**: disks that are slower than what the costs were measured on, memory that is short, executors
//! that start late. Nothing in it is random: the same numbers give the same answer.

mod cluster;
mod fit;
mod flow;
mod least_squares;
mod stores;

pub use cluster::{Cluster, Outcome, simulate};
pub use fit::{Check, Costs, Demand, check, fit};
pub use stores::{Link, Store, stores};
