//! Layers as written: one deterministic zip from a list of entries, compressed on all cores.
//!
//! ```text
//! entries in the byte order of their paths, cut into pieces of at most 1 MiB (of one frame, if that is longer) | central directory (own pieces) | end
//! ```
//!
//! The same entries give the same bytes from the same release on any machine: timestamps are fixed, order is that of the
//! paths, and nothing depends on how many threads there are. An entry larger than one frame is cut into zstd frames that
//! decode independently; cuts between pieces fall between entries or frames, so a piece can be decoded by itself.
//!
//! The writer works in batches: all threads compress one batch while the one before is hashed and written in order. A
//! layer in work takes two batches of memory, whatever the size of its files.

mod codec;
mod compress;
mod entry;
mod error;
mod segment;
#[cfg(test)]
mod tests;
mod write;
mod write_tar;

pub use codec::{Codec, DEFAULT_LEVEL};
pub use entry::{Body, Entry, Make};
pub use error::ArchiveError;
pub use write::{Form, WrittenArchive, ZipWriter, write_layer, write_zip};
pub use write_tar::{TarCodec, write_tar};
