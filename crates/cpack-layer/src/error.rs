//! Why a layer could not be packed.

use crate::archive::ArchiveError;
use crate::content::transform::TransformError;

/// Why a layer could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The files of a distribution cannot be turned into what is packed.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}
