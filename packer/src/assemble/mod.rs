//! From an environment to the layers it becomes: a plan, for which no file is read.
//!
//! One layer for each distribution, one for the files that no distribution owns, one for the interpreter if it is shipped; an
//! overlay for each editable project. Each has a fingerprint of the stat data of its files, by which the client recognises
//! it in later runs.

mod interpreter;
mod plan;

pub(crate) use plan::{AssembleError, LayerContent, LayerPlan, Options, plan};
