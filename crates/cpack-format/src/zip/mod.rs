//! Zip records as bytes: what the packer writes and the boot reads.
//!
//! Format: PKWARE's APPNOTE 6.3.10, with zip64 where needed. Two things are particular to this project, and other
//! readers need know neither:
//!
//! - **Frames.** An entry larger than [`FRAME_SIZE`] is cut into parts that decode independently: zstd frames, one after
//!   another, or deflate segments that end in a full flush. The compressed lengths stand in a private extra field of
//!   the central directory ([`frames`]), so that a gigabyte is packed and extracted on all cores.
//! - **Streaming.** Framed entries carry their sizes in a data descriptor, since the header is written first.
//!
//! Everything here is pure: bytes in, values out. Opening files and decoding is the business of the programs.

mod end;
pub mod frames;
mod record;
mod write;

pub use end::{End, MAX_TAIL, read_end};
pub use frames::{FRAME_SIZE, Frames};
pub use record::{Entry, Expected, LOCAL_HEADER_SIZE, Method, local_header_len, read_directory};
pub use write::{central_record, descriptor, end_records, local_header};

/// Why bytes are no zip archive that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZipError {
    /// No end-of-central-directory record.
    #[error("no zip archive: no end record in the last {0} bytes (truncated or not a zip file?)")]
    NoEnd(usize),
    /// A record ends before it should.
    #[error("damaged zip: {what} at offset {offset} is cut short")]
    Short {
        /// Which record.
        what: &'static str,
        /// Where it starts, relative to what was parsed.
        offset: u64,
    },
    /// A record does not start with its signature.
    #[error("damaged zip: expected {what} at offset {offset}")]
    Signature {
        /// Which record was expected.
        what: &'static str,
        /// Where.
        offset: u64,
    },
    /// Two records, or a record and the archive, disagree.
    #[error("damaged zip: {what} of {name:?} {detail}")]
    Disagreement {
        /// What is wrong.
        what: &'static str,
        /// The entry.
        name: String,
        /// How.
        detail: String,
    },
    /// A feature that is not read here.
    #[error("zip entry {name:?} uses {what}, which is not supported")]
    Unsupported {
        /// The feature.
        what: String,
        /// The entry.
        name: String,
    },
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
