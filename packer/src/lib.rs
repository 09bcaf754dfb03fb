//! Packs a Python environment into layers and publishes what changed.

mod activation;
mod assemble;
mod cache;
pub mod cli;
mod conda_archive;
mod environment_archive;
pub mod launcher;
pub mod manifest;
mod pack;
mod pex;
mod prune;
mod publish;
mod requirements;
mod spark;
mod submit;
mod unpack_archive;
