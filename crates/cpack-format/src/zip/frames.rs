//! Entries cut into frames, and the private extra field with the cut points.
//!
//! Extra field `0x5043` of the central directory: one byte version (1), one byte log2 of the frame size, then one
//! little-endian `u32` per frame: its compressed length. Each frame but the last decodes to exactly the frame size.

use super::u16_at;

/// Entries larger than this are cut into frames. A frame of one MiB and its output fit a core's level 2 cache, and cutting
/// costs under 1 % of size with zstd 1, whose window is half of that.
pub const FRAME_SIZE: u64 = 1 << 20;

/// Identifier of the extra field (unassigned in APPNOTE 4.5.2).
pub(super) const EXTRA_ID: u16 = 0x5043;

const VERSION: u8 = 1;

/// Most frames of one extra field, whose data has at most 65,535 bytes, less room for a zip64 field.
const MAX_FRAMES: u64 = 16_000;

/// The frames of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Decoded length of each frame but the last: a power of two.
    pub size: u64,
    /// Compressed length of each frame.
    pub lengths: Vec<u32>,
}

/// The frame size for an entry of `len` bytes: [`FRAME_SIZE`], doubled until the frames fit the extra field.
pub fn frame_size(len: u64) -> u64 {
    let mut size = FRAME_SIZE;
    while len.div_ceil(size) > MAX_FRAMES {
        size *= 2;
    }
    size
}

impl Frames {
    /// The extra field, with its identifier and length.
    pub(super) fn to_extra(&self) -> Vec<u8> {
        let data_len = 2 + 4 * self.lengths.len();
        let mut extra = Vec::with_capacity(4 + data_len);
        extra.extend_from_slice(&EXTRA_ID.to_le_bytes());
        extra.extend_from_slice(&u16::try_from(data_len).unwrap_or(u16::MAX).to_le_bytes());
        extra.push(VERSION);
        extra.push(u8::try_from(self.size.trailing_zeros()).unwrap_or(u8::MAX));
        for length in &self.lengths {
            extra.extend_from_slice(&length.to_le_bytes());
        }
        extra
    }

    /// Reads the data of the extra field. `None` if it is of another version or does not fit the entry. Readers then decode the
    /// entry as one stream: the field only saves time.
    pub(super) fn from_extra(data: &[u8], compressed: u64, uncompressed: u64) -> Option<Self> {
        let (&version, &log2) = (data.first()?, data.get(1)?);
        let lengths: Vec<u32> =
            data.get(2..)?.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let size = 1u64.checked_shl(u32::from(log2)).filter(|size| (1 << 10..=1 << 30).contains(size))?;
        let total: u64 = lengths.iter().map(|l| u64::from(*l)).sum();
        let fits = version == VERSION
            && data.len() == 2 + 4 * lengths.len()
            && lengths.len() as u64 == uncompressed.div_ceil(size)
            && lengths.len() > 1
            && total == compressed;
        fits.then_some(Self { size, lengths })
    }
}

/// The data of the extra field `id` among the extra fields `extra`.
pub(super) fn find_extra(mut extra: &[u8], id: u16) -> Option<&[u8]> {
    while let (Some(found), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let data = extra.get(4..4 + usize::from(len))?;
        if found == id {
            return Some(data);
        }
        extra = extra.get(4 + usize::from(len)..)?;
    }
    None
}
