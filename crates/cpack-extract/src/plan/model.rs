//! The plan of an archive.

use std::ops::Range;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::zip::{Expected, Method};

/// What to do: directories, then spans in any order by any number of threads, then links.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Files, links and directory entries, in the order of the archive.
    pub(crate) files: Vec<PlannedFile>,
    /// Every directory, parents first.
    pub(crate) directories: Vec<SafePath>,
    /// Runs of archive bytes, in the order in which they are best taken.
    pub(crate) spans: Vec<Span>,
    pub(crate) units: Vec<Unit>,
    /// Number of files whose parts are decoded independently.
    pub(crate) cut: u32,
    /// Total length of the content.
    pub(crate) unpacked: u64,
}

impl Plan {
    pub(crate) fn units_of(&self, span: &Span) -> &[Unit] {
        self.units.get(span.units.start as usize..span.units.end as usize).unwrap_or_default()
    }
}

/// One entry of the archive; sizes, CRC-32 and offset are those of the central directory.
#[derive(Debug)]
pub(crate) struct PlannedFile {
    pub(crate) path: SafePath,
    /// Index of its directory in [`Plan::directories`]; `None` for the root.
    pub(crate) directory: Option<u32>,
    pub(crate) kind: Kind,
    pub(crate) method: Method,
    pub(crate) crc32: u32,
    pub(crate) size: u64,
    pub(crate) compressed_size: u64,
    pub(crate) header_offset: u64,
    /// Its parts, if they are decoded independently.
    pub(crate) parts: Option<Parts>,
    /// Its name in the archive, where that is not its path.
    pub(super) name: Option<Box<[u8]>>,
}

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Which of the plan's cut files this is.
    pub(crate) index: u32,
    pub(crate) count: u32,
    /// Content of each part but the last: a power of two.
    pub(crate) size: u64,
}

impl PlannedFile {
    /// What the local header must say.
    pub(crate) fn expected(&self) -> Expected<'_> {
        Expected {
            name: self.name.as_deref().unwrap_or(self.path.as_bytes()),
            method: self.method,
            compressed_size: self.compressed_size,
            size: self.size,
            offset: self.header_offset,
        }
    }

    /// The last component of the path.
    pub(crate) fn file_name(&self) -> &[u8] {
        self.path.components().next_back().unwrap_or_default()
    }

    /// Offset and length in the content of part `index`.
    pub(crate) fn part(&self, index: u32) -> (u64, u64) {
        let size = self.parts.map_or(self.size, |parts| parts.size);
        let offset = u64::from(index).saturating_mul(size).min(self.size);
        (offset, size.min(self.size - offset))
    }
}

/// A run of archive bytes that is read, and verified, as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Offset in the archive.
    pub(crate) offset: u64,
    /// Bytes that are read before the units are decoded.
    pub(crate) len: u32,
    /// Indexes into [`Plan::units`].
    pub(crate) units: Range<u32>,
}

/// What a span contains. `file` is an index into [`Plan::files`], `at` an offset in the span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A whole entry, local header and data: `len` bytes.
    Entry { file: u32, at: u32, len: u32 },
    /// The local header of a cut file, which must be `len` bytes long.
    Header { file: u32, at: u32, len: u32 },
    /// One part of a cut file, `len` bytes compressed.
    Part { file: u32, part: u32, at: u32, len: u32 },
    /// A large entry, read piece by piece from its local header on, up to `len` bytes.
    Stream { file: u32, len: u64 },
}

/// Indexes fit 32 bits: `Limits::max_entries` and the sizes of spans see to it.
pub(super) fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
