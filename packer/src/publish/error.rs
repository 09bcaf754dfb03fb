//! Why publishing failed.

use std::io;
use std::path::PathBuf;

use cpack_format::Digest;
use cpack_store::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write {path}: {source}", path = path.display())]
    Local { path: PathBuf, source: io::Error },
    #[error(
        "layer {layer} ({digest}) was removed from {store} while it was published: is a prune with a very short grace period running?"
    )]
    Vanished { layer: String, digest: Digest, store: String },
    #[error("{location} is damaged ({reason}): upload again under this name")]
    Damaged { location: String, reason: String },
    #[error(transparent)]
    Name(#[from] cpack_store::NameError),
}

/// A step of publishing at which tests may end the process.
pub(super) fn step(name: &'static str) -> Result<(), PublishError> {
    cpack_fault::point(name).map_err(|source| PublishError::Local { path: name.into(), source })
}
