//! A plan in the making, and what layers and other zips have in common.

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::path::MAX_PATH;
use cpack_format::zip::{Entry, Frames, LOCAL_HEADER_SIZE, Method};

use super::directories::directories;
use super::error::PlanError;
use super::model::{Parts, Plan, PlannedFile, index};
use crate::limits::Limits;

/// Largest entry that each worker decodes to a buffer of its own.
pub(crate) const WHOLE: u64 = 1 << 20;

/// Largest part that is decoded by itself: that of an entry of 62 GiB. Every worker needs a buffer for one.
const MAX_FRAME: u64 = 4 << 20;

/// Deflate cannot do better than 1032:1.
const DEFLATE_RATIO: u64 = 1032;

/// Archives below this size when unpacked may have any ratio.
const HARMLESS: u64 = 1 << 30;

/// A plan in the making: [`Draft::add`] each entry, then [`Draft::finish`].
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) plan: Plan,
    limits: &'a Limits,
    packed: u64,
}

impl<'a> Draft<'a> {
    pub(super) fn new(limits: &'a Limits, entries: usize, packed: u64) -> Result<Self, PlanError> {
        PlanError::within("entries", entries as u64, limits.max_entries)?;
        Ok(Self { plan: Plan::default(), limits, packed })
    }

    /// Checks `entry` and adds it at `path`, or under its own name. Returns the index of the file.
    pub(super) fn add(&mut self, entry: &Entry, path: Option<&[u8]>) -> Result<u32, PlanError> {
        let plain = path.unwrap_or(&entry.name);
        let plain = plain.strip_suffix(b"/").unwrap_or(plain);
        let path = SafePath::new(plain)?;
        let kind = kind(entry)?;
        check_size(entry, kind)?;
        self.plan.unpacked = self.plan.unpacked.saturating_add(entry.size);
        PlanError::within("unpacked bytes", self.plan.unpacked, self.limits.max_unpacked)?;
        let ratio_limit = self.packed.saturating_mul(self.limits.max_ratio).max(HARMLESS);
        PlanError::within("unpacked bytes for the archive's size", self.plan.unpacked, ratio_limit)?;
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
    pub(super) fn cut(&mut self, file: u32, count: usize, size: u64) {
        if let Some(file) = self.plan.files.get_mut(file as usize) {
            file.parts = Some(Parts { index: self.plan.cut, count: index(count), size });
            self.plan.cut += 1;
        }
    }

    /// Checks that the paths do not contradict each other.
    pub(super) fn finish(mut self) -> Result<Plan, PlanError> {
        self.plan.directories = directories(&mut self.plan.files, self.limits.max_entries)?;
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
pub(super) fn frames(entry: &Entry) -> Option<&Frames> {
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

/// Sorts `entries` by offset and checks that none reaches into the next, or into the directory at `end`. Returns for each
/// the offset where the next one starts.
pub(super) fn lay_out(entries: &mut [Entry], end: u64) -> Result<Vec<u64>, PlanError> {
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
