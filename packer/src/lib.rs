//! Packs a Python environment into layers and publishes what changed.

pub mod cache;
pub mod content;
pub mod discover;
pub mod layer;
pub mod publish;
