//! Packs a Python environment into layers and publishes what changed.

pub mod assemble;
pub mod cache;
pub mod cli;
pub mod launcher;
pub mod manifest;
pub mod pack;
pub mod pex;
pub mod prune;
pub mod publish;
pub mod requirements;
pub mod spark;
pub mod submit;
