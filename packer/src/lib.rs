//! Packs a Python environment into layers and publishes what changed.

pub mod layer;
