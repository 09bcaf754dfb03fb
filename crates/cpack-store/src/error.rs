//! What goes wrong with a store, as one line.

use std::io;

use cpack_format::exit::Exit;

use crate::StoreUri;

/// What went wrong, for deciding what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The store has no such object.
    NotFound,
    /// No permission, or wrong or expired credentials.
    Denied,
    /// The store, or a local disk, is full.
    Full,
    /// The object is shorter or longer than it should be.
    Damaged,
    /// The endpoint, the region or the configuration is wrong.
    Misconfigured,
    /// A local file that should be sent cannot be read.
    Source,
    /// The same call may succeed later: time-out, connection lost, server busy.
    Transient,
    /// Anything else.
    Other,
}

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {location}: {reason}")]
pub struct StoreError {
    /// For deciding what to do.
    pub kind: StoreErrorKind,
    /// The verb: `cannot read`, `cannot write`, …
    pub operation: &'static str,
    /// The object's URI, redacted.
    pub location: String,
    /// What was found and what to do, redacted.
    pub reason: String,
}

impl StoreError {
    /// The store at `uri` cannot be opened with these settings.
    pub(crate) fn misconfigured(uri: &StoreUri, reason: String) -> Self {
        Self { kind: StoreErrorKind::Misconfigured, operation: "cannot open", location: uri.to_string(), reason }
    }

    /// The object at `location` has `size` bytes, more than a caller of [`crate::Store::read`] takes.
    pub(crate) fn too_large(location: String, size: u64, limit: u64) -> Self {
        let reason = format!("it has {size} bytes, more than the {limit} that it may have");
        Self { kind: StoreErrorKind::Damaged, operation: "cannot read", location, reason }
    }

    /// The file that should be written to `location` cannot be read.
    pub(crate) fn unread(location: String, error: &io::Error) -> Self {
        let reason = format!("its source cannot be read: {error}");
        Self { kind: StoreErrorKind::Source, operation: "cannot write", location, reason }
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Transient
    }

    /// Whether the store has no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// The exit code of a program that ends with this error.
    pub const fn exit(&self) -> Exit {
        match self.kind {
            StoreErrorKind::NotFound => Exit::NotFound,
            StoreErrorKind::Denied => Exit::Denied,
            StoreErrorKind::Full | StoreErrorKind::Source => Exit::Disk,
            StoreErrorKind::Damaged => Exit::Artifact,
            StoreErrorKind::Misconfigured => Exit::Usage,
            StoreErrorKind::Transient | StoreErrorKind::Other => Exit::Unavailable,
        }
    }
}

/// The reason of [`StoreErrorKind::NotFound`].
pub(crate) const NO_OBJECT: &str = "no such object in this store";

/// `None` instead of the error [`StoreErrorKind::NotFound`].
pub(crate) fn if_found<T>(result: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
