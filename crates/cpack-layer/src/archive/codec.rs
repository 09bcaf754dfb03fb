//! How entries are compressed.

use cpack_format::zip::{Method, frames};

/// zstd level by default. Level 1 packs at 330 MB/s a core to 2.98×, level 3 at 220 MB/s to 3.27× (325 MB of scientific
/// packages): most environments are packed more often than they are fetched over a slow network.
pub const DEFAULT_LEVEL: i32 = 1;

/// Entries up to this size are one deflate stream, which packs better than segments; one thread finishes such an entry in half a second.
const WHOLE_DEFLATE: u64 = 32 << 20;

/// How the entries of an archive are compressed, where it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard: layers.
    Zstd(i32),
    /// Deflate, level 1 to 12 (libdeflate's): what plain Python must read.
    Deflate(u32),
    /// Not at all.
    Store,
}

impl Codec {
    pub(super) const fn method(self) -> Method {
        match self {
            Self::Zstd(_) => Method::Zstd,
            Self::Deflate(_) => Method::Deflate,
            Self::Store => Method::Store,
        }
    }

    /// The size of the frames into which an entry of `size` bytes is cut; a smaller entry is one frame.
    pub(super) fn frame_size(self, size: u64) -> u64 {
        match self {
            Self::Deflate(_) if size <= WHOLE_DEFLATE => WHOLE_DEFLATE,
            _ => frames::frame_size(size),
        }
    }

    /// Uncompressed bytes that all threads compress before any of them is written.
    pub(super) const fn batch(self) -> u64 {
        match self {
            Self::Deflate(_) => 4 * WHOLE_DEFLATE,
            Self::Zstd(_) | Self::Store => 16 << 20,
        }
    }
}
