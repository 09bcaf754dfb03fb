//! The contract that every kind of store keeps.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_format::key::{DIRECTORIES, Key};

use crate::{StoreError, StoreUri};

/// A place that keeps objects under [`Key`]s.
///
/// Several threads may call all methods at once, and several clients may use one store. Each call has a deadline of its
/// own and retries transient errors within it; what it returns is final.
pub trait Store: fmt::Debug + Send + Sync {
    /// The store's URI, without credentials.
    fn uri(&self) -> &StoreUri;

    /// Reads a whole object of at most `limit` bytes. A larger one is [`crate::StoreErrorKind::Damaged`].
    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// Fills `buffer` from `offset`. An object that ends before is [`crate::StoreErrorKind::Damaged`].
    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError>;

    /// The object's length and age, `None` if it does not exist.
    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError>;

    /// Writes an object unless `put` keeps the one that exists. With [`Put::IfAbsent`] this keeps an object of the same length
    /// and refreshes its age; with [`Put::Once`] it does not touch it.
    fn put(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let size = source.size().map_err(|error| StoreError::unread(self.uri().join(key.as_str()), &error))?;
        if put.keeps(self, key, size)? { Ok(Written::Kept) } else { self.write(key, source, put) }
    }

    /// The part of [`Store::put`] that differs between stores: writes whatever exists, atomically. A reader gets the old
    /// object, none, or the whole new one, even if the writer is killed. With [`Put::Once`] this keeps an object that came
    /// while it wrote.
    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError>;

    /// Makes the object's age zero, so that no prune removes it. A missing object is [`crate::StoreErrorKind::NotFound`].
    fn refresh(&self, key: &Key) -> Result<(), StoreError>;

    /// Lists all objects under a directory of the layout (`layers`, `environments`, …), without temporary ones.
    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object. A missing object is no error.
    fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes an object that was last written or refreshed before `before`, by the store's clock. Returns whether this call
    /// removed it.
    ///
    /// File systems make this safe beside a writer who refreshes the object at the same time: `remove_old` renames it away,
    /// looks at its age again, and renames it back if it is young. S3 has no rename: there a request looks and another
    /// removes. A writer that refreshed in between finds out when it checks the layers after its manifest.
    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError>;

    /// Removes what killed writers left, if it was last written before `before`, by the store's clock. Returns how many there
    /// were.
    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError>;

    /// Removes the store with all that is in it, for a place that was made to be used once. A missing store is no error.
    fn erase(&self) -> Result<(), StoreError> {
        for directory in DIRECTORIES {
            for listed in self.list(directory)? {
                self.delete(&listed.key)?;
            }
        }
        Ok(())
    }

    /// The path of an object on this machine's file system, if the store is a directory.
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
    /// The object's key.
    pub key: Key,
    /// The object's length and age.
    pub stat: Stat,
}

/// The bytes of an object that [`Store::put`] writes.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// The content of this file.
    File(&'a Path),
    /// The content of this temporary file, which a directory store renames into its place if it can. `Watcher` is told how far
    /// the others are.
    Watched(&'a Path, Watcher<'a>),
}

/// Gets the number of bytes of each part that was handed to the network. A part that is sent again counts again.
#[derive(Clone, Copy)]
pub struct Watcher<'a>(pub &'a (dyn Fn(u64) + Sync));

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

impl Source<'_> {
    /// Length in bytes.
    pub fn size(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) | Self::Watched(path, _) => path.metadata().map(|metadata| metadata.len()),
        }
    }
}

/// What [`Store::put`] does with an object that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Keeps it: for objects that are named by their digest.
    IfAbsent,
    /// Keeps it with its age, even if it came while this was written: for objects whose time YARN compares.
    Once,
    /// Replaces it: for `names/`, and to repair.
    Replace,
}

impl Put {
    /// Whether `store` keeps what it has under `key` instead of `size` new bytes. [`Put::IfAbsent`] refreshes it; an object of
    /// another user cannot always be refreshed, and is replaced then.
    fn keeps<S: Store + ?Sized>(self, store: &S, key: &Key, size: u64) -> Result<bool, StoreError> {
        let exists = || Ok(store.stat(key)?.is_some_and(|stat| stat.size == size));
        match self {
            Self::Replace => Ok(false),
            Self::Once => exists(),
            Self::IfAbsent => Ok(exists()? && store.refresh(key).is_ok()),
        }
    }

    /// Whether [`Put::Once`] keeps an object that came while its writer wrote.
    pub(crate) fn has_come<S: Store>(self, store: &S, key: &Key, size: u64) -> bool {
        self == Self::Once && self.keeps(store, key, size).unwrap_or(false)
    }
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It sent so many bytes.
    Sent(u64),
    /// It kept the object that existed.
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
