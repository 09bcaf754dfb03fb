//! Reads the central directory and local headers.

use super::frames::{self, Frames, find_extra};
use super::{End, ZipError, u16_at, u32_at, u64_at};

pub(super) const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
pub(super) const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIZE: usize = 46;

/// General purpose bit 3: sizes and CRC stand behind the data.
pub(super) const FLAG_DESCRIPTOR: u16 = 1 << 3;

/// Length of a local header without name and extra fields.
pub const LOCAL_HEADER_SIZE: usize = 30;

/// Compression of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// None (method 0).
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
    /// The name, which may be unsafe. Names of directories end in a slash.
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
    /// Its frames, if it is cut.
    pub frames: Option<Frames>,
}

impl Entry {
    /// Whether the entry is a directory.
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

/// Reads the central directory at `end`, and checks that each entry is before it.
pub fn read_directory(bytes: &[u8], end: &End) -> Result<Vec<Entry>, ZipError> {
    let count = end.entries;
    let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / CENTRAL_SIZE));
    let mut at = 0;
    while at < bytes.len() {
        let (entry, len) = read_central(bytes.get(at..).unwrap_or_default(), at as u64, end)?;
        entries.push(entry);
        at += len;
    }
    if entries.len() as u64 != count {
        let detail = format!("counts {count} entries, the directory has {}", entries.len());
        return Err(ZipError::Disagreement { what: "end record", name: String::new(), detail });
    }
    Ok(entries)
}

fn read_central(bytes: &[u8], offset: u64, end: &End) -> Result<(Entry, usize), ZipError> {
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
    let claimed = sizes.widen(word(42)?).ok_or_else(short)?;
    let header_offset = claimed.saturating_add(end.base);
    let least = header_offset.saturating_add((LOCAL_HEADER_SIZE + name_len) as u64).saturating_add(compressed_size);
    if least > end.directory_offset {
        let detail = format!("ends at {least} and overlaps the directory at {}", end.directory_offset);
        return Err(ZipError::Disagreement { what: "data", name: display(), detail });
    }
    let made_on_unix = half(4)? >> 8 == 3;
    let mode = if made_on_unix { word(38)? >> 16 } else { 0 };
    let frames = find_extra(extra, frames::EXTRA_ID).and_then(|data| Frames::from_extra(data, compressed_size, size));
    let entry = Entry { method, crc32: word(16)?, compressed_size, size, header_offset, mode, frames, name };
    Ok((entry, len))
}

/// The zip64 extra field: 64-bit values for the saturated fields, in a fixed order.
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

/// What the central directory says of an entry. Its local header must agree.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Compression.
    pub method: Method,
    /// Length in the archive.
    pub compressed_size: u64,
    /// Length of the content.
    pub size: u64,
    /// Offset of the local header, for messages.
    pub offset: u64,
}

impl Expected<'_> {
    /// The length of the local header that `bytes` starts with: where the data of the entry begins.
    ///
    /// The header must describe the same entry: readers that trust the one or the other would see different archives.
    /// It does not compare sizes that are behind the data or in a zip64 field.
    pub fn local_header_len(&self, bytes: &[u8]) -> Result<usize, ZipError> {
        let offset = self.offset;
        if u32_at(bytes, 0) != Some(LOCAL_SIGNATURE) {
            return Err(ZipError::Signature { what: "local header", offset });
        }
        let short = || ZipError::Short { what: "local header", offset };
        let half = |at| u16_at(bytes, at).ok_or_else(short);
        let word = |at| u32_at(bytes, at).ok_or_else(short);
        let [name_len, extra_len] = [half(26)?, half(28)?].map(usize::from);
        let name = bytes.get(LOCAL_HEADER_SIZE..LOCAL_HEADER_SIZE + name_len).ok_or_else(short)?;
        let disagree = |detail: String| {
            let name = String::from_utf8_lossy(self.name).into_owned();
            Err(ZipError::Disagreement { what: "local header", name, detail })
        };
        if *name != *self.name {
            return disagree(format!("names {:?} instead", String::from_utf8_lossy(name)));
        }
        if half(8)? != self.method.number() {
            return disagree(format!("has method {}, the directory {}", half(8)?, self.method.number()));
        }
        let sizes_follow = half(6)? & FLAG_DESCRIPTOR != 0;
        for (found, expected) in [(word(18)?, self.compressed_size), (word(22)?, self.size)] {
            if !sizes_follow && found != u32::MAX && u64::from(found) != expected {
                return disagree(format!("has size {found}, the directory {expected}"));
            }
        }
        Ok(LOCAL_HEADER_SIZE + name_len + extra_len)
    }
}

/// The length of the local header of `entry`, which `bytes` starts with ([`Expected::local_header_len`]).
pub fn local_header_len(bytes: &[u8], entry: &Entry) -> Result<usize, ZipError> {
    let Entry { method, compressed_size, size, header_offset: offset, .. } = *entry;
    Expected { name: &entry.name, method, compressed_size, size, offset }.local_header_len(bytes)
}
