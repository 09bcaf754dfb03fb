//! The central directory and local headers, as read.

use super::frames::{self, Frames, find_extra};
use super::{ZipError, u16_at, u32_at, u64_at};

pub(super) const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
pub(super) const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIZE: usize = 46;

/// Length of a local header without name and extra fields.
pub const LOCAL_HEADER_SIZE: usize = 30;

/// How an entry is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// As it is (method 0).
    Store,
    /// Raw deflate (method 8).
    Deflate,
    /// Zstandard, one or more frames (method 93).
    Zstd,
}

impl Method {
    /// The number in zip records.
    pub const fn number(self) -> u16 {
        match self {
            Self::Store => 0,
            Self::Deflate => 8,
            Self::Zstd => 93,
        }
    }

    const fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Store),
            8 => Some(Self::Deflate),
            93 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// One entry of the central directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name as found: not yet known to be safe. Directories end in a slash.
    pub name: Box<[u8]>,
    /// Compression.
    pub method: Method,
    /// CRC-32 of the content.
    pub crc32: u32,
    /// Length in the archive.
    pub compressed_size: u64,
    /// Length of the content.
    pub size: u64,
    /// Offset of the local header in the file.
    pub header_offset: u64,
    /// `st_mode`, 0 if the archive was not made on Unix.
    pub mode: u32,
    /// How it is cut, if it is.
    pub frames: Option<Frames>,
}

impl Entry {
    /// Whether the entry stands for a directory.
    pub fn is_directory(&self) -> bool {
        self.name.last() == Some(&b'/') || self.mode & 0o170_000 == 0o040_000
    }

    /// Whether the entry is a symbolic link, whose content is its target.
    pub const fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }

    /// Whether the mode names a device, fifo or socket.
    pub const fn is_special(&self) -> bool {
        !matches!(self.mode & 0o170_000, 0 | 0o100_000 | 0o040_000 | 0o120_000)
    }

    /// The name, lossily decoded.
    pub fn display_name(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// Reads a central directory of `count` entries, adding `base` to each offset.
pub fn read_directory(bytes: &[u8], count: u64, base: u64) -> Result<Vec<Entry>, ZipError> {
    let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / CENTRAL_SIZE));
    let mut at = 0;
    while at < bytes.len() {
        let (entry, len) = read_central(bytes.get(at..).unwrap_or_default(), at as u64, base)?;
        entries.push(entry);
        at += len;
    }
    if entries.len() as u64 != count {
        let detail = format!("counts {count} entries, the directory has {}", entries.len());
        return Err(ZipError::Disagreement { what: "end record", name: String::new(), detail });
    }
    Ok(entries)
}

fn read_central(bytes: &[u8], offset: u64, base: u64) -> Result<(Entry, usize), ZipError> {
    if u32_at(bytes, 0) != Some(CENTRAL_SIGNATURE) {
        return Err(ZipError::Signature { what: "directory entry", offset });
    }
    let short = || ZipError::Short { what: "directory entry", offset };
    let half = |at| u16_at(bytes, at).ok_or_else(short);
    let word = |at| u32_at(bytes, at).ok_or_else(short);
    let [name_len, extra_len, comment_len] = [half(28)?, half(30)?, half(32)?].map(usize::from);
    let extra_at = CENTRAL_SIZE + name_len;
    let len = extra_at + extra_len + comment_len;
    let name: Box<[u8]> = bytes.get(CENTRAL_SIZE..extra_at).ok_or_else(short)?.into();
    let extra: &[u8] = bytes.get(extra_at..extra_at + extra_len).ok_or_else(short)?;
    if bytes.len() < len {
        return Err(short());
    }
    let display = || String::from_utf8_lossy(&name).into_owned();
    if half(8)? & 1 != 0 {
        return Err(ZipError::Unsupported { what: "encryption".into(), name: display() });
    }
    let number = half(10)?;
    let method = Method::from_number(number)
        .ok_or_else(|| ZipError::Unsupported { what: format!("compression method {number}"), name: display() })?;
    let mut sizes = Zip64 { extra: find_extra(extra, 1).unwrap_or_default(), at: 0 };
    let size = sizes.widen(word(24)?).ok_or_else(short)?;
    let compressed_size = sizes.widen(word(20)?).ok_or_else(short)?;
    let header_offset = sizes.widen(word(42)?).ok_or_else(short)?.checked_add(base).ok_or_else(short)?;
    let made_on_unix = half(4)? >> 8 == 3;
    let mode = if made_on_unix { word(38)? >> 16 } else { 0 };
    let frames = find_extra(extra, frames::EXTRA_ID).and_then(|data| Frames::from_extra(data, compressed_size, size));
    let entry = Entry { method, crc32: word(16)?, compressed_size, size, header_offset, mode, frames, name };
    Ok((entry, len))
}

/// The zip64 extra field: 64-bit values for just those fields that are saturated, in a fixed order.
struct Zip64<'a> {
    extra: &'a [u8],
    at: usize,
}

impl Zip64<'_> {
    fn widen(&mut self, value: u32) -> Option<u64> {
        if value != u32::MAX {
            return Some(value.into());
        }
        let wide = u64_at(self.extra, self.at)?;
        self.at += 8;
        Some(wide)
    }
}

/// The length of the local header that `bytes` starts with: where the data of `entry` begins.
///
/// The header must name the same entry: readers that trust the one or the other would see different archives.
pub fn local_header_len(bytes: &[u8], entry: &Entry) -> Result<usize, ZipError> {
    let offset = entry.header_offset;
    if u32_at(bytes, 0) != Some(LOCAL_SIGNATURE) {
        return Err(ZipError::Signature { what: "local header", offset });
    }
    let short = || ZipError::Short { what: "local header", offset };
    let name_len = usize::from(u16_at(bytes, 26).ok_or_else(short)?);
    let extra_len = usize::from(u16_at(bytes, 28).ok_or_else(short)?);
    let name = bytes.get(LOCAL_HEADER_SIZE..LOCAL_HEADER_SIZE + name_len).ok_or_else(short)?;
    let method = u16_at(bytes, 8).ok_or_else(short)?;
    let disagree = |detail: String| ZipError::Disagreement { what: "local header", name: entry.display_name(), detail };
    if *name != *entry.name {
        return Err(disagree(format!("names {:?} instead", String::from_utf8_lossy(name))));
    }
    if method != entry.method.number() {
        return Err(disagree(format!("has method {method}, the directory {}", entry.method.number())));
    }
    Ok(LOCAL_HEADER_SIZE + name_len + extra_len)
}
