//! Why an archive is not extracted.

use cpack_format::path::PathError;

/// Why an archive is not extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("two entries have the path {0:?}")]
    Twice(String),
    #[error("{0:?} is both a file and a directory")]
    FileAndDirectory(String),
    #[error("{path:?} is a device, fifo or socket (mode {mode:o})")]
    Special { path: String, mode: u32 },
    #[error("{name:?} overlaps what follows it in the archive: {end} is past {limit}")]
    Overlap { name: String, end: u64, limit: u64 },
    #[error("{name:?} claims {size} bytes from {compressed}: {reason}")]
    Size { name: String, size: u64, compressed: u64, reason: &'static str },
    #[error("{found} {what}, more than the {limit} allowed")]
    TooMuch { what: &'static str, found: u64, limit: u64 },
    #[error("the manifest says {expected} {what}, the archive has {found}")]
    Manifest { what: &'static str, expected: u64, found: u64 },
    #[error("{name:?} at offset {offset} crosses the end of a piece")]
    Piece { name: String, offset: u64 },
}

impl PlanError {
    pub(crate) fn within(what: &'static str, found: u64, limit: u64) -> Result<(), Self> {
        if found > limit { Err(Self::TooMuch { what, found, limit }) } else { Ok(()) }
    }
}
