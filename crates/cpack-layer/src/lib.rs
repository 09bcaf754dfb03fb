//! Layers: files as packed, and the archives that carry them.
//!
//! | module | does |
//! | --- | --- |
//! | [`content`] | turns files as installed into files as packed |
//! | [`archive`] | writes them as one deterministic zip, compressed on all cores |

pub mod archive;
pub mod content;
mod error;

pub use error::PackError;
