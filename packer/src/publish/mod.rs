//! From layers in mind to layers in a store, sending only what the store lacks.
//!
//! The order makes a store trustworthy at every instant: first the archive of a layer, then the record that names it by
//! its content, then, after all layers, the manifest, then the name. A manifest that can be read implies layers that
//! are whole; since a prune may run beside, layers are checked again after the manifest was written, and what is missing
//! then is sent again. Two clients may publish at once: they write the same bytes under the same keys.

mod layers;
mod names;
mod transfer;

use std::io;
use std::path::PathBuf;

use cpack_artifact::Digest;
use cpack_artifact::manifest::Layer;
use cpack_artifact::store::StoreError;

pub(crate) use layers::archive_key;
pub use layers::{MakeEntries, Planned, Publisher};
pub use names::{NameRecord, Published, publish_launcher, publish_manifest, publish_name, read_name};

use crate::layer::LayerError;

/// What happened to a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The layer as the manifest names it, without needs and rank.
    pub layer: Layer,
    /// What was learned from its bytes.
    pub facts: crate::cache::Facts,
    /// Bytes sent to the store; none if it had them.
    pub sent: Option<u64>,
    /// Whether its files were read: false where the client recognised them by their stat data.
    pub packed: bool,
}

/// Why publishing failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// The client's own disk.
    #[error("cannot write {path}: {source}", path = path.display())]
    Local {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A layer vanished again and again while publishing.
    #[error(
        "layer {layer} ({digest}) was removed from {store} while it was published: is a prune with a very short grace period running?"
    )]
    Vanished {
        /// The layer.
        layer: String,
        /// Digest of its archive.
        digest: Digest,
        /// The store.
        store: String,
    },
    /// A stored document cannot be read.
    #[error("{location} is damaged ({reason}): upload again under this name")]
    Damaged {
        /// Its URI.
        location: String,
        /// Why.
        reason: String,
    },
    /// A name that a store cannot keep.
    #[error(transparent)]
    Name(#[from] cpack_artifact::store::NameError),
}

/// A fail point of publishing.
fn step(name: &'static str) -> Result<(), PublishError> {
    cpack_artifact::fault::point(name).map_err(|source| PublishError::Local { path: name.into(), source })
}
