//! Layers as written: one deterministic zip from a list of entries, compressed on all cores.
//!
//! ```text
//! entries in the byte order of their paths, cut into pieces of about 6 MiB | central directory (own pieces) | end
//! ```
//!
//! The same entries give the same bytes from the same release on any machine: timestamps are fixed, order is that of the
//! paths, and nothing depends on how many threads there are. An entry larger than one frame is cut into zstd frames that
//! decode independently; cuts between pieces fall between entries or frames, so a piece can be decoded by itself.
//!
//! Work is done in batches: one is compressed by all threads while the one before is hashed and written in
//! order. Memory is two batches per layer in work, whatever the size of the files.

mod compress;
mod entry;
mod write;

use std::io;
use std::path::PathBuf;

use cpack_format::Digest;
use cpack_format::manifest::Archive;
use cpack_format::zip::{Method, frames};

pub use entry::{Body, Entry, Make};
pub use write::{Form, ZipWriter, write_layer, write_zip};

/// zstd level by default. Level 1 packs at 330 MB/s a core to 2.98×, level 3 at 220 MB/s to 3.27× (325 MB of scientific
/// packages): most environments are packed more often than they are fetched over a slow network.
pub const DEFAULT_LEVEL: i32 = 1;

/// How the entries of an archive are compressed, where it pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// Zstandard: layers.
    Zstd(i32),
    /// Deflate, level 1 to 12 (libdeflate's; entries above [`WHOLE_DEFLATE`] use zlib's, up to 9): what plain Python must read.
    Deflate(u32),
    /// Not at all.
    Store,
}

impl Codec {
    /// The method of an entry that is compressed so.
    const fn method(self) -> Method {
        match self {
            Self::Zstd(_) => Method::Zstd,
            Self::Deflate(_) => Method::Deflate,
            Self::Store => Method::Store,
        }
    }

    /// The size of the parts that an entry of `size` bytes is compressed in; a smaller entry is one.
    fn frame_size(self, size: u64) -> u64 {
        match self {
            Self::Deflate(_) if size <= WHOLE_DEFLATE => WHOLE_DEFLATE,
            _ => frames::frame_size(size),
        }
    }

    /// Uncompressed bytes that are compressed by all threads before they are written.
    const fn batch(self) -> u64 {
        match self {
            Self::Deflate(_) => 4 * WHOLE_DEFLATE,
            Self::Zstd(_) | Self::Store => 16 << 20,
        }
    }
}

/// Entries up to this size are deflated as a whole: libdeflate, which cannot stop within a stream, is faster than zlib and
/// packs better, and one thread is done with such an entry in half a second.
const WHOLE_DEFLATE: u64 = 32 << 20;

/// Pieces are cut at the first entry or frame after this many bytes: large enough that a request to a store pays (from
/// SeaweedFS, which keeps 8 MiB together, 2 GB took 0.75 of the time and of the CPU time that pieces of 4 MiB took), small
/// enough that eight of them, as are in flight, fit a boot's memory several times.
const PIECE_TARGET: usize = 6 << 20;

/// A layer that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Digest of its content: the same for the same files, however they are compressed.
    pub content: Digest,
    /// The archive.
    pub archive: Archive,
}

/// Why a layer could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file of the environment cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the environment changed while it was packed.
    #[error("{path} changed while it was packed: wait until the environment is at rest and run again", path = .0.display())]
    Changed(PathBuf),
    /// The archive cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two entries with one path.
    #[error("two files of layer {layer} have the path {path}")]
    Twice {
        /// The layer.
        layer: String,
        /// The path.
        path: String,
    },
    /// What an entry is made from is not as it should be.
    #[error("cannot pack {path}: {reason}")]
    Make {
        /// The entry.
        path: String,
        /// Why.
        reason: String,
    },
    /// The compressor refused.
    #[error("cannot compress {path}: {source}")]
    Compress {
        /// The entry.
        path: String,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
