//! What a node keeps: the node cache, and the layers and environments that are made in it.
//!
//! | module | does |
//! | --- | --- |
//! | [`cache`] | one cache: its directories, leases, claims, commit and clean-up |
//! | [`node`] | all caches of a node: looking in all of them, choosing one to build in, making room |
//! | [`building`] | builds what is missing in a cache: layers, then the tree that links them |
//! | [`tree`] | the tree that Python sees |
//! | [`listing`] | reads a directory whole |
//! | [`stop`] | the request to end a start |
//! | [`timing`] | where the time of a start went |
//! | [`sys`] | the few unsafe calls |

pub mod building;
pub mod cache;
pub mod listing;
pub mod node;
pub mod stop;
pub mod sys;
pub mod timing;
pub mod tree;
