//! What a layer is made from, and its division into units of work.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cpack_format::SafePath;
use cpack_format::content::Kind;

use super::codec::Codec;
use super::error::ArchiveError;

/// Makes the content of an entry when the writer gets to it, on any thread. `None` leaves the entry out.
pub type Make = Arc<dyn Fn() -> Result<Option<Vec<u8>>, String> + Send + Sync>;

/// One file, link or empty directory to be packed.
#[derive(Debug)]
pub struct Entry {
    /// Where the node will have it, relative to the environment.
    pub path: SafePath,
    /// File, executable, link or directory.
    pub kind: Kind,
    /// Its content.
    pub body: Body,
}

/// Where an entry's content comes from.
#[derive(Clone)]
pub enum Body {
    /// A file of the environment.
    File {
        /// Where the client reads it.
        path: PathBuf,
        /// Its length at discovery; packing fails if it has changed.
        size: u64,
    },
    /// These bytes; a link's target.
    Bytes(Vec<u8>),
    /// Content that is made when the writer gets to it: a PEX's byte-code.
    Made {
        /// A guess at the length, for balancing the work.
        size_hint: u64,
        /// Returns the content.
        make: Make,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, size } => write!(f, "File({}, {size})", path.display()),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Self::Made { size_hint, .. } => write!(f, "Made(about {size_hint})"),
        }
    }
}

impl Body {
    pub(super) fn size_hint(&self) -> u64 {
        match self {
            Self::File { size, .. } => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Made { size_hint, .. } => *size_hint,
        }
    }
}

/// A part of the work: a whole entry, or one frame of a large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// Index of the entry.
    pub(super) entry: usize,
    /// `None` for a whole entry.
    pub(super) frame: Option<Frame>,
    /// Bytes to read; a guess for [`Body::Made`].
    pub(super) size: u64,
}

/// One frame of a large file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) offset: u64,
    pub(super) last: bool,
}

/// The units of `entries`, in their order.
pub(super) fn units(entries: &[Entry], codec: Codec) -> impl Iterator<Item = Unit> + '_ {
    entries.iter().enumerate().flat_map(move |(index, entry)| {
        let size = entry.body.size_hint();
        let frame_size = codec.frame_size(size);
        let framed = matches!(entry.body, Body::File { .. }) && size > frame_size;
        let count = if framed { size.div_ceil(frame_size) } else { 1 };
        (0..count).map(move |i| {
            let offset = i * frame_size;
            let frame = framed.then_some(Frame { offset, last: i + 1 == count });
            let size = if framed { frame_size.min(size - offset) } else { size };
            Unit { entry: index, frame, size }
        })
    })
}

/// Groups `units` into batches of about `limit` bytes.
pub(super) fn batches(units: impl Iterator<Item = Unit>, limit: u64) -> Vec<Vec<Unit>> {
    let mut batches = Vec::new();
    let (mut batch, mut size) = (Vec::new(), 0);
    for unit in units {
        // Opening, hashing and compressing a tiny file costs about as much as 4 KiB of a larger one.
        size += unit.size.max(4096);
        batch.push(unit);
        if size >= limit {
            batches.push(std::mem::take(&mut batch));
            size = 0;
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Reads a file that must have exactly `size` bytes.
pub(super) fn read_whole(path: &Path, size: u64) -> Result<Vec<u8>, ArchiveError> {
    let failed = |source| ArchiveError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != size {
        return Err(ArchiveError::Changed(path.to_owned()));
    }
    Ok(bytes)
}

/// Reads `size` bytes at `offset`.
pub(super) fn read_part(path: &Path, offset: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
    let failed = |source| ArchiveError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, offset) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(ArchiveError::Changed(path.to_owned())),
        result => result.map(|()| bytes).map_err(failed),
    }
}
