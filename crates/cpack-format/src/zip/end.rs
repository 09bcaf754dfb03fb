//! The end of an archive, which says where its central directory is.

use super::{ZipError, u16_at, u32_at, u64_at};

pub(super) const END_SIGNATURE: u32 = 0x0605_4b50;
pub(super) const END64_SIGNATURE: u32 = 0x0606_4b50;
pub(super) const LOCATOR64_SIGNATURE: u32 = 0x0706_4b50;
const END_SIZE: usize = 22;
const LOCATOR64_SIZE: usize = 20;
const END64_SIZE: usize = 56;

/// The longest end of a file that has its end records: the longest comment and the three records.
pub const MAX_TAIL: usize = 65_535 + END_SIZE + LOCATOR64_SIZE + END64_SIZE;

/// The position of the central directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Offset of the directory in the file.
    pub directory_offset: u64,
    /// Its length in bytes.
    pub directory_size: u64,
    /// Its number of entries.
    pub entries: u64,
    /// Bytes before the archive that its offsets do not count (a `#!` line, an executable). Readers add them to each offset.
    pub base: u64,
    /// Offset of the end-of-central-directory record (not the zip64 one) in the file.
    pub end_offset: u64,
}

/// Finds the central directory of a file of `file_size` bytes whose last bytes are `tail` ([`MAX_TAIL`] or the file).
pub fn read_end(tail: &[u8], file_size: u64) -> Result<End, ZipError> {
    let tail_offset = file_size.saturating_sub(tail.len() as u64);
    let last = tail.len().checked_sub(END_SIZE).ok_or(ZipError::NoEnd(tail.len()))?;
    let at = memchr::memmem::rfind_iter(tail, &END_SIGNATURE.to_le_bytes())
        .filter(|at| *at <= last)
        .find(|at| u16_at(tail, at + 20).is_some_and(|comment| at + END_SIZE + usize::from(comment) == tail.len()))
        .ok_or(ZipError::NoEnd(tail.len()))?;
    let short = ZipError::Short { what: "end record", offset: tail_offset + at as u64 };
    let field16 = |offset| u16_at(tail, at + offset).ok_or_else(|| short.clone());
    let field32 = |offset| u32_at(tail, at + offset).ok_or_else(|| short.clone());
    let several = || ZipError::Unsupported { what: "several disks".into(), name: String::new() };
    if field16(4)? != 0 && field16(4)? != u16::MAX {
        return Err(several());
    }
    let (entries, size, offset) = (u64::from(field16(10)?), u64::from(field32(12)?), u64::from(field32(16)?));
    let end_offset = tail_offset + at as u64;
    let locator = at.checked_sub(LOCATOR64_SIZE).filter(|at| u32_at(tail, *at) == Some(LOCATOR64_SIGNATURE));
    let Some(locator) = locator else { return place(entries, size, offset, end_offset, end_offset) };
    let at64 = locator
        .checked_sub(END64_SIZE)
        .filter(|at| u32_at(tail, *at) == Some(END64_SIGNATURE))
        .ok_or(ZipError::Signature { what: "zip64 end record", offset: end_offset })?;
    let field64 = |offset| u64_at(tail, at64 + offset).ok_or_else(|| short.clone());
    // Two disk numbers: this disk's and the directory's. The locator has the count of disks, from one or from none.
    if field64(16)? != 0 || u32_at(tail, locator + 16).ok_or_else(|| short.clone())? > 1 {
        return Err(several());
    }
    let end64_offset = tail_offset + at64 as u64;
    let end = place(field64(32)?, field64(40)?, field64(48)?, end64_offset, end_offset)?;
    let located = u64_at(tail, locator + 8).ok_or_else(|| short.clone())?;
    if located.checked_add(end.base) != Some(end64_offset) {
        let detail = format!("claims to be at {located}, but is at {}", end64_offset - end.base);
        return Err(ZipError::Disagreement { what: "zip64 end record", name: String::new(), detail });
    }
    Ok(end)
}

/// Computes the base: the directory ends where the first end record starts, and `offset` says where it should start.
fn place(entries: u64, size: u64, offset: u64, directory_end: u64, end_offset: u64) -> Result<End, ZipError> {
    let wrong = |detail: String| ZipError::Disagreement { what: "end record", name: String::new(), detail };
    let directory_offset = directory_end
        .checked_sub(size)
        .ok_or_else(|| wrong(format!("claims a directory of {size} bytes in a file of {directory_end}")))?;
    let base = directory_offset
        .checked_sub(offset)
        .ok_or_else(|| wrong(format!("claims its directory at {offset}, but it ends at {directory_end}")))?;
    if entries > size / 46 {
        return Err(wrong(format!("claims {entries} entries in a directory of {size} bytes")));
    }
    Ok(End { directory_offset, directory_size: size, entries, base, end_offset })
}
