//! One unit of work: read, hash, compress. Runs on any thread.

use std::cell::RefCell;

use cpack_artifact::Digest;
use cpack_artifact::digest::{PartHash, part_hash};
use cpack_artifact::zip::{FRAME_SIZE, Method};

use super::LayerError;
use super::entry::{Body, Entry, Unit, read_part, read_whole};

/// What compressing a unit gave.
#[derive(Debug)]
pub(super) struct Packed {
    /// Which entry.
    pub(super) entry: usize,
    /// Whether this is the last unit of its entry.
    pub(super) last: bool,
    /// The parts: one for a whole entry or a frame, several where an entry turned out larger than one frame.
    pub(super) parts: Vec<Part>,
}

/// A run of content and its compressed form.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) bytes: Vec<u8>,
    pub(super) method: Method,
    /// Length of the content.
    pub(super) size: u64,
    pub(super) crc32: crc32fast::Hasher,
    pub(super) hash: Hash,
}

/// The BLAKE3 of a part: of a whole content, or its place in the tree of a larger one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hash {
    Whole(Digest),
    Part(PartHash),
}

/// Contents shorter than this are stored: zstd's frame would eat what it saves.
const LEAST_COMPRESSED: usize = 64;

pub(super) fn compress(entries: &[Entry], unit: Unit, level: i32) -> Result<Packed, LayerError> {
    let entry = entries
        .get(unit.entry)
        .ok_or_else(|| LayerError::Make { path: String::new(), reason: "a unit of work without its entry".into() })?;
    let failed = |source| LayerError::Compress { path: entry.path.to_string(), source };
    let content;
    let (bytes, offset): (&[u8], _) = match (&entry.body, unit.frame) {
        (Body::File { path, .. }, Some(frame)) => {
            content = read_part(path, frame.offset, unit.size)?;
            (&content, Some(frame.offset))
        }
        (Body::File { path, size }, None) => {
            content = read_whole(path, *size)?;
            (&content, None)
        }
        (Body::Bytes(bytes), _) => (bytes, None),
        (Body::Made { make, .. }, _) => {
            content = make().map_err(|reason| LayerError::Make { path: entry.path.to_string(), reason })?;
            (&content, None)
        }
    };
    let last = unit.frame.is_none_or(|frame| frame.last);
    let frame_size = usize::try_from(FRAME_SIZE).unwrap_or(usize::MAX);
    let parts = if let Some(offset) = offset {
        vec![frame(bytes, offset, level).map_err(failed)?]
    } else if bytes.len() > frame_size {
        let frames = bytes.chunks(frame_size).enumerate();
        frames.map(|(i, part)| frame(part, (i * frame_size) as u64, level)).collect::<Result<_, _>>().map_err(failed)?
    } else {
        vec![whole(bytes, level).map_err(failed)?]
    };
    Ok(Packed { entry: unit.entry, last, parts })
}

fn whole(bytes: &[u8], level: i32) -> std::io::Result<Part> {
    let hash = Hash::Whole(Digest::of(bytes));
    let compressed = if bytes.len() < LEAST_COMPRESSED { None } else { Some(zstd_frame(bytes, level)?) };
    // One part in 32: what decoding costs must be saved by what is not read.
    let pays = |packed: &Vec<u8>| packed.len() + bytes.len() / 32 < bytes.len();
    let (bytes_out, method) =
        compressed.filter(pays).map_or_else(|| (bytes.to_vec(), Method::Store), |packed| (packed, Method::Zstd));
    Ok(Part { bytes: bytes_out, method, size: bytes.len() as u64, crc32: crc(bytes), hash })
}

/// Frames are always zstd: what does not compress becomes zstd's raw blocks, which cost a copy.
fn frame(bytes: &[u8], offset: u64, level: i32) -> std::io::Result<Part> {
    let packed = zstd_frame(bytes, level)?;
    let hash = Hash::Part(part_hash(offset, bytes));
    Ok(Part { bytes: packed, method: Method::Zstd, size: bytes.len() as u64, crc32: crc(bytes), hash })
}

fn crc(bytes: &[u8]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher
}

/// One zstd frame with its content size, without a checksum: the zip has a CRC-32 and layers their digests.
fn zstd_frame(bytes: &[u8], level: i32) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(found, _)| *found != level) {
            *slot = Some((level, zstd::bulk::Compressor::new(level)?));
        }
        match slot {
            Some((_, compressor)) => compressor.compress(bytes),
            None => Err(std::io::Error::other("no zstd context")),
        }
    })
}
