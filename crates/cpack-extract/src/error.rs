//! Errors of an extraction, with their exit codes.

use std::error::Error;
use std::fmt;
use std::io;

use cpack_format::Digest;
use cpack_format::exit::Exit;
use cpack_format::zip::ZipError;
use cpack_store::StoreError;

use crate::plan::PlanError;

/// An error of the caller's own.
pub type CallerError = Box<dyn Error + Send + Sync>;

/// Why an archive was not extracted. Nothing was written of an archive that is `Refused`.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum ExtractError {
    #[error("stopped before everything was extracted")]
    Stopped,
    #[error("cannot extract {archive}")]
    Read { archive: String, source: StoreError },
    #[error("cannot extract {archive}")]
    Zip { archive: String, source: ZipError },
    #[error("refused to extract {archive}")]
    Refused { archive: String, source: PlanError },
    #[error(
        "{archive} is damaged: the piece at offset {offset} of {location} has digest {found}, expected {expected}: repair the store \
         with `cluster-pack upload --repair`"
    )]
    Piece { archive: String, location: String, offset: u64, found: Digest, expected: Digest },
    #[error("{archive} is damaged: {entry:?} {reason}")]
    Entry { archive: String, entry: String, reason: String },
    #[error("refused to extract {archive}: {member:?} {reason}")]
    Member { archive: String, member: String, reason: String },
    #[error("{archive} is damaged, cut short or no such archive: {reason}: copy or pack it again")]
    Stream { archive: String, reason: String },
    #[error("cannot write {path:?} of {archive}")]
    Write { archive: String, path: String, source: io::Error },
    #[error("cannot keep {archive}")]
    Caller { archive: String, source: CallerError },
    #[error("an extracting thread failed: this is a fault of cpack-boot")]
    Panicked,
}

impl ExtractError {
    /// The exit code of a start that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Stopped => Exit::Stopped,
            Self::Read { source, .. } => source.exit(),
            Self::Zip { .. }
            | Self::Refused { .. }
            | Self::Piece { .. }
            | Self::Entry { .. }
            | Self::Member { .. }
            | Self::Stream { .. } => Exit::Artifact,
            Self::Write { .. } | Self::Caller { .. } => Exit::Disk,
            Self::Panicked => Exit::Internal,
        }
    }
}

/// All errors of an extraction. The first one stops the other workers, which may have failed as well by then.
#[derive(Debug)]
pub struct Failure(Box<Errors>);

#[derive(Debug)]
struct Errors {
    first: ExtractError,
    others: Vec<ExtractError>,
}

impl Failure {
    /// The failure with these errors; `None` without any. [`ExtractError::Stopped`] comes last, and once.
    pub(crate) fn of(mut errors: Vec<ExtractError>) -> Option<Self> {
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

    /// The exit code of the first error.
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

pub(crate) fn zip_error(archive: &str, source: ZipError) -> ExtractError {
    ExtractError::Zip { archive: archive.to_owned(), source }
}

pub(crate) fn refused(archive: &str, source: PlanError) -> ExtractError {
    ExtractError::Refused { archive: archive.to_owned(), source }
}
