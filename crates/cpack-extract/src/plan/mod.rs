//! What will be done to an archive, as a value: nothing is written before it exists.
//!
//! A plan is made from the central directory alone. Every path is safe, unique, and no file stands where another needs
//! a directory; entries lie one behind the other without overlapping; no device, no absurd size. Permissions are
//! reduced to one bit, so set-uid bits have no way through. Only what is inside the data (a link's target, the bytes
//! themselves) is checked later, before it takes effect.

mod layer;
mod tree;
mod zip;

use std::ops::Range;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::path::{MAX_PATH, PathError};
use cpack_format::zip::{Entry, Expected, Frames, LOCAL_HEADER_SIZE, Method};

use super::Limits;

pub use layer::{Layout, plan_layer};
pub use zip::{cut_entries, plan_zip};

/// Largest entry that is decoded to memory as one by every worker's own buffer.
pub const WHOLE: u64 = 1 << 20;

/// Largest part that is decoded by itself, since every worker needs a buffer for one: that of an entry of 62 GiB.
const MAX_FRAME: u64 = 4 << 20;

/// Deflate cannot do better than 1032:1.
const DEFLATE_RATIO: u64 = 1032;

/// Archives below this size when unpacked may have any ratio.
const HARMLESS: u64 = 1 << 30;

/// What to do: directories, then spans in any order by any number of threads, then links.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files, links and directory entries, in the order of the archive.
    pub files: Vec<PlannedFile>,
    /// Every directory, parents first.
    pub directories: Vec<SafePath>,
    /// Runs of archive bytes, in the order in which they are best taken.
    pub spans: Vec<Span>,
    /// What the spans contain.
    pub units: Vec<Unit>,
    /// Number of files whose parts are decoded independently.
    pub cut: u32,
    /// Total length of the content.
    pub unpacked: u64,
}

/// One entry of the archive.
#[derive(Debug)]
pub struct PlannedFile {
    /// Where it will be.
    pub path: SafePath,
    /// Index of its directory in [`Plan::directories`]; none for the root.
    pub directory: Option<u32>,
    /// What it is.
    pub kind: Kind,
    /// Compression.
    pub method: Method,
    /// CRC-32 of the content.
    pub crc32: u32,
    /// Length of the content.
    pub size: u64,
    /// Length in the archive.
    pub compressed_size: u64,
    /// Offset of the local header.
    pub header_offset: u64,
    /// Its parts, if they are decoded independently.
    pub parts: Option<Parts>,
    /// Its name in the archive, where that is not its path.
    name: Option<Box<[u8]>>,
}

/// How a file is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Which of the plan's cut files this is.
    pub index: u32,
    /// How many parts.
    pub count: u32,
    /// Content of each part but the last: a power of two.
    pub size: u64,
}

impl PlannedFile {
    /// What the local header must say.
    pub fn expected(&self) -> Expected<'_> {
        Expected {
            name: self.name.as_deref().unwrap_or(self.path.as_bytes()),
            method: self.method,
            compressed_size: self.compressed_size,
            size: self.size,
            offset: self.header_offset,
        }
    }

    /// The last component of the path.
    pub fn file_name(&self) -> &[u8] {
        self.path.components().next_back().unwrap_or_default()
    }

    /// Offset and length in the content of part `index`.
    pub fn part(&self, index: u32) -> (u64, u64) {
        let size = self.parts.map_or(self.size, |parts| parts.size);
        let offset = u64::from(index).saturating_mul(size).min(self.size);
        (offset, size.min(self.size - offset))
    }
}

/// A run of archive bytes that is read, and verified, as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Offset in the archive.
    pub offset: u64,
    /// Bytes to be read before the units are decoded.
    pub len: u32,
    /// The units, as indexes into [`Plan::units`].
    pub units: Range<u32>,
}

/// What a span contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A whole entry: `len` bytes from `at` in the span, local header and data.
    Entry {
        /// Index in [`Plan::files`].
        file: u32,
        /// Offset in the span.
        at: u32,
        /// Bytes that belong to it.
        len: u32,
    },
    /// The local header of a cut file, which must be `len` bytes long.
    Header {
        /// Index in [`Plan::files`].
        file: u32,
        /// Offset in the span.
        at: u32,
        /// Length of the header.
        len: u32,
    },
    /// One part of a cut file.
    Part {
        /// Index in [`Plan::files`].
        file: u32,
        /// Which part.
        part: u32,
        /// Offset in the span.
        at: u32,
        /// Compressed length.
        len: u32,
    },
    /// A large entry, read piece by piece from its local header on, up to `len` bytes.
    Stream {
        /// Index in [`Plan::files`].
        file: u32,
        /// Bytes that belong to it.
        len: u64,
    },
}

/// Why an archive is not extracted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A path that leads out, or is malformed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Two entries with one path.
    #[error("two entries have the path {0:?}")]
    Twice(String),
    /// A file where another entry needs a directory.
    #[error("{0:?} is both a file and a directory")]
    FileAndDirectory(String),
    /// A device, fifo or socket.
    #[error("{path:?} is a device, fifo or socket (mode {mode:o})")]
    Special {
        /// The entry.
        path: String,
        /// Its `st_mode`.
        mode: u32,
    },
    /// Two entries share bytes, or an entry reaches into the directory.
    #[error("{name:?} overlaps what follows it in the archive: {end} is past {limit}")]
    Overlap {
        /// The entry.
        name: String,
        /// Where it ends at least.
        end: u64,
        /// Where the next entry or the directory starts.
        limit: u64,
    },
    /// Sizes that cannot be true, or that no environment needs.
    #[error("{name:?} claims {size} bytes from {compressed}: {reason}")]
    Size {
        /// The entry.
        name: String,
        /// Claimed length of the content.
        size: u64,
        /// Length in the archive.
        compressed: u64,
        /// Why it is refused.
        reason: &'static str,
    },
    /// More than is allowed.
    #[error("{found} {what}, more than the {limit} allowed")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much may be.
        limit: u64,
    },
    /// The archive and the manifest disagree.
    #[error("the manifest says {expected} {what}, the archive has {found}")]
    Manifest {
        /// What they disagree on.
        what: &'static str,
        /// In the manifest.
        expected: u64,
        /// In the archive.
        found: u64,
    },
    /// An entry or frame that does not lie within one piece.
    #[error("{name:?} at offset {offset} crosses the end of a piece")]
    Piece {
        /// The entry.
        name: String,
        /// Where it starts.
        offset: u64,
    },
}

/// A plan in the making: entries are added, then the tree is checked.
#[derive(Debug)]
struct Draft<'a> {
    plan: Plan,
    limits: &'a Limits,
    packed: u64,
}

impl<'a> Draft<'a> {
    fn new(limits: &'a Limits, entries: usize, packed: u64) -> Result<Self, PlanError> {
        within("entries", entries as u64, limits.max_entries)?;
        Ok(Self { plan: Plan::default(), limits, packed })
    }

    /// Checks `entry` and adds it at `path` (its own name if none). The index of the file.
    fn add(&mut self, entry: &Entry, path: Option<&[u8]>) -> Result<u32, PlanError> {
        let plain = path.unwrap_or(&entry.name);
        let plain = plain.strip_suffix(b"/").unwrap_or(plain);
        let path = SafePath::new(plain)?;
        let kind = kind(entry)?;
        check_size(entry, kind)?;
        self.plan.unpacked = self.plan.unpacked.saturating_add(entry.size);
        within("unpacked bytes", self.plan.unpacked, self.limits.max_unpacked)?;
        let ratio_limit = self.packed.saturating_mul(self.limits.max_ratio).max(HARMLESS);
        within("unpacked bytes for the archive's size", self.plan.unpacked, ratio_limit)?;
        let name = (path.as_bytes() != &*entry.name).then(|| entry.name.clone());
        self.plan.files.push(PlannedFile {
            path,
            directory: None,
            kind,
            method: entry.method,
            crc32: entry.crc32,
            size: entry.size,
            compressed_size: entry.compressed_size,
            header_offset: entry.header_offset,
            parts: None,
            name,
        });
        Ok(index(self.plan.files.len() - 1))
    }

    /// Declares `file` to be cut into `count` parts of `size`.
    fn cut(&mut self, file: u32, count: usize, size: u64) {
        if let Some(file) = self.plan.files.get_mut(file as usize) {
            file.parts = Some(Parts { index: self.plan.cut, count: index(count), size });
            self.plan.cut += 1;
        }
    }

    /// The plan, its tree checked.
    fn finish(mut self) -> Result<Plan, PlanError> {
        self.plan.directories = tree::directories(&mut self.plan.files, self.limits.max_entries)?;
        Ok(self.plan)
    }
}

/// What `entry` will be on disk.
fn kind(entry: &Entry) -> Result<Kind, PlanError> {
    if entry.is_special() {
        return Err(PlanError::Special { path: entry.display_name(), mode: entry.mode });
    }
    Ok(match () {
        () if entry.is_directory() => Kind::Directory,
        () if entry.is_link() => Kind::Link,
        () if entry.mode & 0o111 != 0 => Kind::Executable,
        () => Kind::File,
    })
}

/// The frames of `entry`, if each can be decoded to a worker's buffer.
fn frames(entry: &Entry) -> Option<&Frames> {
    let regular = !entry.is_link() && !entry.is_directory();
    let small = |frames: &&Frames| {
        frames.size <= MAX_FRAME && frames.lengths.iter().all(|len| u64::from(*len) <= 2 * MAX_FRAME)
    };
    entry.frames.as_ref().filter(small).filter(|_| regular)
}

fn check_size(entry: &Entry, kind: Kind) -> Result<(), PlanError> {
    let &Entry { size, compressed_size: compressed, .. } = entry;
    let reason = match (entry.method, kind) {
        (_, Kind::Directory) if size > 0 => "a directory has no content",
        (_, Kind::Link) if size > MAX_PATH as u64 => "no link's target is that long",
        (Method::Store, _) if size != compressed => "stored entries are as long as their content",
        (Method::Deflate, _) if size > compressed.saturating_mul(DEFLATE_RATIO) => "deflate cannot do that",
        (Method::Zstd, _) if size > 0 && compressed == 0 => "there is nothing to decode",
        _ => return Ok(()),
    };
    Err(PlanError::Size { name: entry.display_name(), size, compressed, reason })
}

/// Sorts `entries` by place and checks that none reaches into the next, or into the directory at `end`. For each, the
/// offset where the next one starts.
fn lay_out(entries: &mut [Entry], end: u64) -> Result<Vec<u64>, PlanError> {
    entries.sort_by_key(|entry| entry.header_offset);
    let nexts = entries.iter().skip(1).map(|entry| entry.header_offset).chain([end]);
    let limits: Vec<u64> = nexts.collect();
    for (entry, limit) in entries.iter().zip(&limits) {
        let header = (LOCAL_HEADER_SIZE + entry.name.len()) as u64;
        let least = entry.header_offset.saturating_add(header).saturating_add(entry.compressed_size);
        if least > *limit {
            return Err(PlanError::Overlap { name: entry.display_name(), end: least, limit: *limit });
        }
    }
    Ok(limits)
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), PlanError> {
    if found > limit { Err(PlanError::TooMuch { what, found, limit }) } else { Ok(()) }
}

/// Indexes fit 32 bits: [`Limits::max_entries`] and the sizes of spans see to it.
fn index(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
