//! One unit of work: read, hash, compress. Runs on any thread.
//!
//! A part of an entry decodes by itself: a zstd frame, or a run of deflate blocks that refers to nothing before it and ends
//! at a byte boundary (a full flush), so that readers that know nothing of parts see one deflate stream.

use std::cell::RefCell;
use std::io;
use std::thread::LocalKey;

use cpack_format::Digest;
use cpack_format::digest::{PartHash, part_hash};
use cpack_format::zip::{FRAME_SIZE, Method};

use super::codec::Codec;
use super::entry::{Body, Entry, Unit, read_part, read_whole};
use super::error::ArchiveError;
use super::segment::into_segment;

/// A compressed unit.
#[derive(Debug)]
pub(super) struct Compressed {
    /// Index of the entry.
    pub(super) entry: usize,
    /// Whether this is the last unit of its entry.
    pub(super) last: bool,
    /// One part for a whole entry or a frame, several for a [`Body::Made`] that is larger than a frame, none for one that
    /// made nothing.
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

pub(super) fn compress(entries: &[Entry], unit: Unit, codec: Codec) -> Result<Compressed, ArchiveError> {
    let _event =
        cpack_events::span("compress", || entries.get(unit.entry).map(|e| e.path.to_string()).unwrap_or_default());
    let entry = entries
        .get(unit.entry)
        .ok_or_else(|| ArchiveError::Make { path: String::new(), reason: "a unit of work without its entry".into() })?;
    let failed = |source| ArchiveError::Compress { path: entry.path.to_string(), source };
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
            let made = make().map_err(|reason| ArchiveError::Make { path: entry.path.to_string(), reason })?;
            let Some(made) = made else { return Ok(Compressed { entry: unit.entry, last: true, parts: Vec::new() }) };
            content = made;
            (&content, None)
        }
    };
    let last = unit.frame.is_none_or(|frame| frame.last);
    let frame_size = usize::try_from(FRAME_SIZE).unwrap_or(usize::MAX);
    let parts = if let Some(offset) = offset {
        vec![frame(bytes, offset, last, codec).map_err(failed)?]
    } else if bytes.len() as u64 > codec.frame_size(bytes.len() as u64) && codec != Codec::Store {
        let count = bytes.len().div_ceil(frame_size);
        let frames = bytes.chunks(frame_size).enumerate();
        let frames = frames.map(|(i, part)| frame(part, (i * frame_size) as u64, i + 1 == count, codec));
        frames.collect::<Result<_, _>>().map_err(failed)?
    } else {
        vec![whole(bytes, codec).map_err(failed)?]
    };
    Ok(Compressed { entry: unit.entry, last, parts })
}

fn whole(bytes: &[u8], codec: Codec) -> io::Result<Part> {
    let hash = Hash::Whole(Digest::of(bytes));
    let compressed = match codec {
        _ if bytes.len() < LEAST_COMPRESSED => None,
        Codec::Zstd(level) => Some(zstd_frame(bytes, level)?),
        Codec::Deflate(level) => Some(deflate_stream(bytes, level)?),
        Codec::Store => None,
    };
    // Compression must save one byte in 32: less to read must pay for the decoding.
    let pays = |packed: &Vec<u8>| packed.len() + bytes.len() / 32 < bytes.len();
    let (bytes_out, method) =
        compressed.filter(pays).map_or_else(|| (bytes.to_vec(), Method::Store), |packed| (packed, codec.method()));
    Ok(Part { bytes: bytes_out, method, size: bytes.len() as u64, crc32: crc(bytes), hash })
}

/// Frames are always compressed: what does not shrink becomes raw blocks, which cost a copy.
fn frame(bytes: &[u8], offset: u64, last: bool, codec: Codec) -> io::Result<Part> {
    let packed = match codec {
        Codec::Zstd(level) => zstd_frame(bytes, level)?,
        Codec::Deflate(level) => deflate_segment(bytes, level, last)?,
        Codec::Store => bytes.to_vec(),
    };
    let hash = Hash::Part(part_hash(offset, bytes));
    Ok(Part { bytes: packed, method: codec.method(), size: bytes.len() as u64, crc32: crc(bytes), hash })
}

fn crc(bytes: &[u8]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher
}

/// Runs `work` with this thread's compressor, which `make` makes again whenever the level changes.
pub(super) fn with_compressor<L: Copy + PartialEq, C, T>(
    key: &'static LocalKey<RefCell<Option<(L, C)>>>,
    level: L,
    make: impl FnOnce() -> io::Result<C>,
    work: impl FnOnce(&mut C) -> io::Result<T>,
) -> io::Result<T> {
    key.with_borrow_mut(|slot| {
        let compressor = match slot.take() {
            Some((found, compressor)) if found == level => compressor,
            _ => make()?,
        };
        work(&mut slot.insert((level, compressor)).1)
    })
}

/// One zstd frame with its content size, without a checksum: the zip has a CRC-32 and layers their digests.
pub(super) fn zstd_frame(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> = const { RefCell::new(None) };
    }
    with_compressor(&COMPRESSOR, level, || zstd::bulk::Compressor::new(level), |compressor| compressor.compress(bytes))
}

pub(super) fn deflate_compressor(level: u32) -> io::Result<libdeflater::Compressor> {
    let known = i32::try_from(level).ok().and_then(|level| libdeflater::CompressionLvl::new(level).ok());
    let known = known.ok_or_else(|| io::Error::other(format!("no deflate level {level}")))?;
    Ok(libdeflater::Compressor::new(known))
}

/// A whole deflate stream. Uses `level`, or a lower one where `level` would save little.
fn deflate_stream(bytes: &[u8], level: u32) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(u32, libdeflater::Compressor)>> = const { RefCell::new(None) };
        static OF_DENSE: RefCell<Option<(u32, libdeflater::Compressor)>> = const { RefCell::new(None) };
    }
    let make = || deflate_compressor(LEVEL_OF_DENSE);
    let of_dense = |bytes| with_compressor(&OF_DENSE, LEVEL_OF_DENSE, make, |compressor| deflate(compressor, bytes));
    let mut least = None;
    if level > LEVEL_OF_DENSE && bytes.len() >= LEAST_SAMPLED {
        for quarter in 1..4 {
            let sample = bytes.get(bytes.len() / 4 * quarter..).and_then(|rest| rest.get(..SAMPLE)).unwrap_or_default();
            least = least.into_iter().chain([of_dense(sample)?.len() * 100 / SAMPLE]).min();
        }
    }
    match least {
        Some(97..) => deflate(&mut deflate_compressor(0)?, bytes),
        Some(75..) => of_dense(bytes),
        _ => with_compressor(&COMPRESSOR, level, || deflate_compressor(level), |compressor| deflate(compressor, bytes)),
    }
}

/// Contents of so many bytes are judged by three samples: if each takes 75 % of its size, the content is dense ([`LEVEL_OF_DENSE`]); if
/// 97 %, which does not pay, it becomes raw blocks.
const LEAST_SAMPLED: usize = 512 << 10;
const SAMPLE: usize = 16 << 10;

/// Of torch's libraries, a third of whose frames are dense, level 6 for all takes 1.2 times as long and saves 0.4 %.
const LEVEL_OF_DENSE: u32 = 1;

fn deflate(compressor: &mut libdeflater::Compressor, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.deflate_compress_bound(bytes.len())];
    let len = compressor.deflate_compress(bytes, &mut out).map_err(io::Error::other)?;
    out.truncate(len);
    Ok(out)
}

/// Deflate blocks that refer to nothing before them, ended by a full flush, or as the end of the stream if `last`.
fn deflate_segment(bytes: &[u8], level: u32, last: bool) -> io::Result<Vec<u8>> {
    let mut out = deflate_stream(bytes, level)?;
    if last || into_segment(&mut out) { Ok(out) } else { Err(io::Error::other("libdeflate made no deflate stream")) }
}
