//! Packs a Python environment into layers and publishes what changed.

mod archive;
mod assemble;
mod cache;
pub mod cli;
pub mod launcher;
pub mod manifest;
mod pack;
mod pex;
mod prune;
mod publish;
mod requirements;
mod spark;
mod submit;
