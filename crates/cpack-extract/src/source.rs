//! Where an archive's bytes come from.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_store::{Key, Store, StoreError, StoreErrorKind};

use crate::error::ExtractError;

/// The bytes of one archive.
///
/// Several threads call it at once. An implementation has its own deadlines and retries transient errors; the error that
/// it returns is final.
pub trait PieceSource: fmt::Debug + Send + Sync {
    /// Fills `buffer` from `offset`. Fails with [`StoreErrorKind::Damaged`] if the archive ends before.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError>;

    /// Where the archive is, for messages.
    fn location(&self) -> String;

    /// The local file that the archive lies in, and where it starts there.
    fn file(&self) -> Option<(&File, u64)> {
        None
    }
}

/// A local file.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    path: PathBuf,
    start: u64,
}

impl FileSource {
    /// The file at `path`, and its length.
    pub fn open(path: &Path) -> Result<(Self, u64), StoreError> {
        let failed = |e: io::Error| error(path, &e);
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok((Self { file, path: path.to_owned(), start: 0 }, size))
    }

    /// An archive that starts at `start` of the open `file`. `path` is for messages.
    pub const fn new(file: File, path: PathBuf, start: u64) -> Self {
        Self { file, path, start }
    }
}

impl PieceSource for FileSource {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.file.read_exact_at(buffer, self.start.saturating_add(offset)).map_err(|e| error(&self.path, &e))
    }

    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn file(&self) -> Option<(&File, u64)> {
        Some((&self.file, self.start))
    }
}

/// The error of a file that is shorter than it should be.
pub(crate) fn cut_short(location: String) -> StoreError {
    let reason = "it is shorter than it should be: truncated?".to_owned();
    StoreError { kind: StoreErrorKind::Damaged, operation: "cannot read", location, reason }
}

fn error(path: &Path, error: &io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => StoreErrorKind::Denied,
        io::ErrorKind::UnexpectedEof => return cut_short(path.display().to_string()),
        _ => StoreErrorKind::Other,
    };
    StoreError { kind, operation: "cannot read", location: path.display().to_string(), reason: error.to_string() }
}

/// An object in a store.
#[derive(Debug)]
pub struct StoreSource<'a> {
    store: &'a dyn Store,
    key: Key,
}

impl<'a> StoreSource<'a> {
    /// The object under `key`.
    pub const fn new(store: &'a dyn Store, key: Key) -> Self {
        Self { store, key }
    }
}

impl PieceSource for StoreSource<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.store.read_range(&self.key, offset, buffer)
    }

    fn location(&self) -> String {
        self.store.uri().join(self.key.as_str())
    }
}

/// An archive in memory.
pub struct BytesSource<B>(pub B);

impl<B: AsRef<[u8]>> fmt::Debug for BytesSource<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BytesSource({} bytes)", self.0.as_ref().len())
    }
}

impl<B: AsRef<[u8]> + Send + Sync> PieceSource for BytesSource<B> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(buffer.len()).and_then(|end| self.0.as_ref().get(start..end));
        let short = || error(Path::new("memory"), &io::ErrorKind::UnexpectedEof.into());
        buffer.copy_from_slice(found.ok_or_else(short)?);
        Ok(())
    }

    fn location(&self) -> String {
        "memory".to_owned()
    }
}

/// How often a piece with wrong bytes is read: networks damage some now and then.
const READS: u32 = 3;

/// Compares the bytes that were read from `offset` with their digest. Reads them again, up to [`READS`] times in all, while
/// they differ: bytes that are wrong each time are wrong in the store.
pub(crate) fn verify(
    source: &dyn PieceSource,
    archive: &str,
    offset: u64,
    expected: &Digest,
    buffer: &mut [u8],
) -> Result<(), ExtractError> {
    let mut found = Digest::of(buffer);
    for _ in 1..READS {
        if found == *expected {
            return Ok(());
        }
        let _event = cpack_events::span("retry", || format!("{archive} at {offset}")).of(buffer.len() as u64);
        source.read(offset, buffer).map_err(|source| ExtractError::Read { archive: archive.to_owned(), source })?;
        found = Digest::of(buffer);
    }
    if found == *expected {
        return Ok(());
    }
    let (archive, location) = (archive.to_owned(), source.location());
    Err(ExtractError::Piece { archive, location, offset, found, expected: *expected })
}
