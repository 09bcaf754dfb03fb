//! Building what is missing in one node cache: layers, then the tree that links them.
//!
//! A worker claims each layer at the last moment, when it has nothing else to do. A layer that another process builds is
//! left to it and looked at again at the end ([`missing_layers`]). One process builds the tree, and others wait for it
//! ([`environment_tree`], [`waiting`]).

mod environment_tree;
mod error;
mod job;
mod means;
mod missing_layers;
mod waiting;

pub use environment_tree::{TreeInputs, ensure_tree, private_tree, repair_tree, stage_own_part};
pub use error::BuildError;
pub use job::{add_to_private, check_job, ensure_job};
pub use means::{FETCHES, Means};
pub use missing_layers::{ensure_layers, in_order, layer_source, layer_title};
pub use waiting::{Waited, wait_for, wait_for_environment};
