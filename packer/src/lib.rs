//! Packs a Python environment into layers and publishes what changed.

pub mod assemble;
pub mod bench;
pub mod cache;
pub mod cli;
pub mod content;
pub mod discover;
pub mod launcher;
pub mod layer;
pub mod manifest;
pub mod pex;
pub mod prune;
pub mod publish;
pub mod requirements;
pub mod spark;
pub mod submit;
