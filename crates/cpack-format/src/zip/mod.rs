//! Zip records as bytes, which the packer writes and the boot reads.
//!
//! The format is PKWARE's APPNOTE 6.3.10, with zip64 where it is needed. Two things are particular to this project. Other
//! readers need to know neither:
//!
//! - **Frames.** An entry larger than [`FRAME_SIZE`] is cut into parts that decode independently: zstd frames, one after
//!   another, or deflate segments that end in a full flush. A private extra field of the central directory ([`frames`]) has
//!   their compressed lengths, so that all cores pack and extract a gigabyte together.
//! - **Streaming.** Framed entries have their sizes in a data descriptor, since the packer writes the header first.
//!
//! Everything here is pure: bytes in, values out. The programs open files and decode.

mod end;
pub mod frames;
mod record;
mod write;

pub use end::{End, MAX_TAIL, read_end};
pub use frames::{FRAME_SIZE, Frames};
pub use record::{Entry, Expected, LOCAL_HEADER_SIZE, Method, local_header_len, read_directory};
pub use write::{central_record, descriptor, end_records, local_header};

/// Why bytes are no zip archive that can be trusted. Offsets count from the start of the bytes that were parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum ZipError {
    #[error("no zip archive: no end record in the last {0} bytes (truncated or not a zip file?)")]
    NoEnd(usize),
    #[error("damaged zip: {what} at offset {offset} is cut short")]
    Short { what: &'static str, offset: u64 },
    #[error("damaged zip: expected {what} at offset {offset}")]
    Signature { what: &'static str, offset: u64 },
    /// Two records, or a record and the archive, disagree.
    #[error("damaged zip: {what} of {name:?} {detail}")]
    Disagreement { what: &'static str, name: String, detail: String },
    #[error("zip entry {name:?} uses {what}, which is not supported")]
    Unsupported { what: String, name: String },
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
