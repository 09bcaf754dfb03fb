//! What can go wrong, and what it means for whoever started the boot.

use std::error::Error;
use std::fmt;
use std::io;

use cpack_format::Digest;
use cpack_format::exit::Exit;
use cpack_format::zip::ZipError;
use cpack_store::StoreError;

use super::plan::PlanError;

/// Why an archive was not extracted.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The caller wanted to stop.
    #[error("stopped before everything was extracted")]
    Stopped,
    /// The archive's bytes cannot be had.
    #[error("cannot extract {archive}")]
    Read {
        /// Which archive.
        archive: String,
        /// Why.
        source: StoreError,
    },
    /// The archive is no zip that can be read.
    #[error("cannot extract {archive}")]
    Zip {
        /// Which archive.
        archive: String,
        /// Why.
        source: ZipError,
    },
    /// The archive is hostile, or does not fit its manifest. Nothing of it was written.
    #[error("refused to extract {archive}")]
    Refused {
        /// Which archive.
        archive: String,
        /// Why.
        source: PlanError,
    },
    /// A piece's bytes are not those that were packed.
    #[error(
        "{archive} is damaged: the piece at offset {offset} of {location} has digest {found}, expected {expected}: repair the store \
         with `cluster-pack upload --repair`"
    )]
    Piece {
        /// Which archive.
        archive: String,
        /// Where its bytes are from.
        location: String,
        /// Where the piece starts.
        offset: u64,
        /// Digest of the bytes as read.
        found: Digest,
        /// Digest in the manifest.
        expected: Digest,
    },
    /// An entry is not what the archive says it is.
    #[error("{archive} is damaged: {entry:?} {reason}")]
    Entry {
        /// Which archive.
        archive: String,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The content is not what the manifest names.
    #[error(
        "{archive} is damaged: its content has digest {found}, expected {expected}: pack the environment again with \
         `cluster-pack upload --repair`"
    )]
    Digest {
        /// Which archive.
        archive: String,
        /// Digest of what was decoded.
        found: Digest,
        /// Digest in the manifest.
        expected: Digest,
    },
    /// A file cannot be written.
    #[error("cannot write {path:?} of {archive}")]
    Write {
        /// Which archive.
        archive: String,
        /// The file, relative to the directory extracted to.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The caller could not take over what was extracted, or not say where to.
    #[error("cannot keep {archive}")]
    Caller {
        /// Which archive.
        archive: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A fault in this program: a worker thread panicked.
    #[error("an extracting thread failed: this is a fault of cpack-boot")]
    Panicked,
}

impl ExtractError {
    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Stopped => Exit::Stopped,
            Self::Read { source, .. } => source.exit(),
            Self::Zip { .. } | Self::Refused { .. } | Self::Piece { .. } | Self::Entry { .. } | Self::Digest { .. } => {
                Exit::Artifact
            }
            Self::Write { .. } | Self::Caller { .. } => Exit::Disk,
            Self::Panicked => Exit::Internal,
        }
    }

    /// Whether the same extraction may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.is_transient())
    }
}

/// Everything that went wrong: the first error stops the others, which may have failed as well by then.
#[derive(Debug)]
pub struct Failure(Box<Errors>);

#[derive(Debug)]
struct Errors {
    first: ExtractError,
    others: Vec<ExtractError>,
}

impl Failure {
    /// What went wrong, if anything did. That it was stopped counts only where nothing else is wrong.
    pub(super) fn of(mut errors: Vec<ExtractError>) -> Option<Self> {
        errors.sort_by_key(|error| matches!(error, ExtractError::Stopped));
        errors.dedup_by(|a, b| matches!((a, b), (ExtractError::Stopped, ExtractError::Stopped)));
        let mut errors = errors.into_iter();
        errors.next().map(|first| Self(Box::new(Errors { first, others: errors.collect() })))
    }

    /// The error that stopped the others.
    pub fn first(&self) -> &ExtractError {
        &self.0.first
    }

    /// All errors, the first one first.
    pub fn errors(&self) -> impl Iterator<Item = &ExtractError> {
        std::iter::once(&self.0.first).chain(&self.0.others)
    }

    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        self.0.first.exit()
    }
}

impl From<ExtractError> for Failure {
    fn from(first: ExtractError) -> Self {
        Self(Box::new(Errors { first, others: Vec::new() }))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.first.fmt(f)?;
        match self.0.others.len() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.first.source()
    }
}

pub(super) fn zip_error(archive: &str, source: ZipError) -> ExtractError {
    ExtractError::Zip { archive: archive.to_owned(), source }
}

pub(super) fn refused(archive: &str, source: PlanError) -> ExtractError {
    ExtractError::Refused { archive: archive.to_owned(), source }
}
