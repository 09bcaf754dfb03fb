//! Where layers, manifests and names are kept.
//!
//! ```text
//! <store>/layers/<2 hex>/<archive digest>.zip    immutable
//! <store>/contents/<content digest>.json         content -> the archive that carries it
//! <store>/environments/<environment id>.json     immutable, written after every layer it names
//! <store>/overlays/<2 hex>/<archive digest>.zip  immutable
//! <store>/launchers/<digest>                     jobs, immutable: launchers without their executable
//! <store>/boot/<digest>                          cpack-boot, immutable
//! <store>/{launchers,boot}/<digest>.used         its age is when the object was last published again
//! <store>/names/<name>.json                      the latest environment under a name
//! ```
//!
//! [`Store`] is the contract that every kind of store keeps; `store::conformance` is the suite that checks it.
//! Executors only read. Everything but `names/` is immutable: a key that exists has its final content, and writing it
//! again changes nothing but its age.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(feature = "hdfs", feature = "s3"))]
mod content;
mod file;
#[cfg(any(feature = "hdfs", feature = "s3"))]
mod hadoop;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(any(feature = "hdfs", feature = "s3"))]
mod network;
mod object;
mod open;
mod options;
#[cfg(any(test, feature = "hdfs", feature = "s3"))]
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod uri;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use cpack_format::key::{Key, NameError};
pub use file::FileStore;
#[cfg(feature = "hdfs")]
pub use hdfs::HdfsStore;
pub use object::{FileOrObject, ObjectUri, ObjectUriError};
pub use open::{cluster_properties, open};
pub use options::{Deadlines, FAN_OUT_REPLICATION, StoreOptions, USER_VARIABLES, VARIABLES};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use uri::{Scheme, StoreUri, UriError, redact};

/// A place that keeps objects under [`Key`]s.
///
/// All methods may be called from several threads at once, and by several clients on one store. Each call has a
/// deadline of its own and retries what is transient within it; what it returns is final.
pub trait Store: fmt::Debug + Send + Sync {
    /// The store's URI, without credentials.
    fn uri(&self) -> &StoreUri;

    /// The whole object, at most `limit` bytes: a larger one is [`StoreErrorKind::Damaged`].
    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// Fills `buffer` from `offset`. An object that ends before is [`StoreErrorKind::Damaged`].
    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError>;

    /// Length and age, or None if there is no such object.
    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError>;

    /// Writes an object, atomically: whoever reads sees the old object, none, or the whole new one, also when the
    /// writer is killed. With [`Put::IfAbsent`] an existing object of the same length is kept and its age refreshed, with
    /// [`Put::Once`] it is not touched.
    fn put(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError>;

    /// Makes the object's age zero, so that no prune takes it. An object that is gone is [`StoreErrorKind::NotFound`].
    fn refresh(&self, key: &Key) -> Result<(), StoreError>;

    /// All objects under a directory of the layout (`layers`, `environments`, …). Temporary objects are not listed.
    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object. One that is gone already is no error.
    fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes an object if nothing happened to it since `before`, by the store's clock. True: it was removed by this call.
    ///
    /// On file systems this is safe beside a writer who refreshes it at the same time: it is renamed away, looked at, and
    /// put back where it turns out young. S3 has no such step: there it is looked at and removed by two requests, and a
    /// writer finds out afterwards, since it looks again when its manifest is written.
    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError>;

    /// Removes what writers left behind that were killed, if nothing happened to it since `before`, by the store's clock.
    /// Returns how many there were.
    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError>;

    /// Removes the store itself with all that is in it: for a place that was made to be used once. One that is gone
    /// already is no error.
    fn erase(&self) -> Result<(), StoreError> {
        for directory in cpack_format::key::DIRECTORIES {
            for listed in self.list(directory)? {
                self.delete(&listed.key)?;
            }
        }
        Ok(())
    }

    /// The path of an object on this machine's file system, where the store is a directory.
    fn local_path(&self, _key: &Key) -> Option<PathBuf> {
        None
    }
}

/// Length and age of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Length in bytes.
    pub size: u64,
    /// When it was last written or refreshed, by the store's clock.
    pub modified: SystemTime,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: Key,
    /// Its length and age.
    pub stat: Stat,
}

/// What is written.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The content of this file. A directory store may take it by renaming where [`Source::is_consumed`] says so.
    File(&'a Path),
    /// The content of this temporary file, which the store may rename into its place.
    Consume(&'a Path),
    /// The same, and somebody wants to know how far it is.
    Watched(&'a Path, Watcher<'a>),
}

/// Is told the bytes of a source that were handed to the network, more than once for those that are sent again.
#[derive(Clone, Copy)]
pub struct Watcher<'a>(pub &'a (dyn Fn(u64) + Sync));

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

impl Source<'_> {
    /// Length in bytes.
    pub fn size(&self) -> std::io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) | Self::Consume(path) | Self::Watched(path, _) => {
                std::fs::metadata(path).map(|metadata| metadata.len())
            }
        }
    }

    /// Whether the store may move the source instead of copying it.
    pub const fn is_consumed(&self) -> bool {
        matches!(self, Self::Consume(_) | Self::Watched(..))
    }
}

/// What happens when the key exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is kept: for what is named by its digest.
    IfAbsent,
    /// It is kept with its age, also where it came while this was written: for what YARN compares the time of.
    Once,
    /// It is replaced: for `names/`, and to repair.
    Replace,
}

impl Put {
    /// Whether what `store` has under `key` is kept instead of `size` bytes that are to be written, and refreshed if that is
    /// part of it. Somebody else's object cannot always be refreshed, but replaced.
    fn keeps(self, store: &dyn Store, key: &Key, size: u64) -> Result<bool, StoreError> {
        let is_there = || Ok(store.stat(key)?.is_some_and(|stat| stat.size == size));
        match self {
            Self::Replace => Ok(false),
            Self::Once => is_there(),
            Self::IfAbsent => Ok(is_there()? && store.refresh(key).is_ok()),
        }
    }

    /// Whether the object came while it was written, and is kept.
    fn has_come(self, store: &dyn Store, key: &Key, size: u64) -> bool {
        self == Self::Once && self.keeps(store, key, size).unwrap_or(false)
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The object was sent.
    Sent(u64),
    /// It was there already.
    Kept,
}

impl Written {
    /// Bytes that were sent.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Sent(bytes) => bytes,
            Self::Kept => 0,
        }
    }

    /// What this write and `other` did together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Kept, Self::Kept) => Self::Kept,
            _ => Self::Sent(self.bytes() + other.bytes()),
        }
    }
}

/// What went wrong, for deciding what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// No such object.
    NotFound,
    /// No permission, wrong or expired credentials.
    Denied,
    /// The store, or a local disk, is full.
    Full,
    /// The object is not what it should be: too short, too long.
    Damaged,
    /// The store cannot be asked this way: wrong endpoint, region, or configuration.
    Misconfigured,
    /// It may work later: time-out, connection lost, server busy.
    Transient,
    /// Anything else.
    Other,
}

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {location}: {reason}")]
pub struct StoreError {
    /// What kind of failure.
    pub kind: StoreErrorKind,
    /// The verb: `cannot read`, `cannot write`, …
    pub operation: &'static str,
    /// The object's URI, redacted.
    pub location: String,
    /// What was found and what to do, redacted.
    pub reason: String,
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Transient
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// The exit code that fits.
    pub const fn exit(&self) -> cpack_format::exit::Exit {
        use cpack_format::exit::Exit;
        match self.kind {
            StoreErrorKind::NotFound => Exit::NotFound,
            StoreErrorKind::Denied => Exit::Denied,
            StoreErrorKind::Full => Exit::Disk,
            StoreErrorKind::Damaged => Exit::Artifact,
            StoreErrorKind::Misconfigured => Exit::Usage,
            StoreErrorKind::Transient | StoreErrorKind::Other => Exit::Unavailable,
        }
    }
}
