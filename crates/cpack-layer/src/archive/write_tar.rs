//! A tar of the same entries, compressed on all cores: what tools that know nothing of layers unpack.
//!
//! The tar is cut where a header or a frame of a large file begins, into chunks of about 1 MiB; each becomes a gzip member
//! or a zstd frame of its own. `gzip`, `zstd`, Python and Java read members and frames that follow each other as one stream
//! (RFC 1952, 2.2; RFC 8878, 3). Names that are too long for a header have GNU's extension. Times are fixed, owners are 0:
//! the same entries give the same bytes from the same release on any machine.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cpack_format::content::Kind;
use rayon::prelude::*;

use super::codec::Codec;
use super::compress::zstd_frame;
use super::entry::{Body, Entry, Unit, batches, read_part, read_whole, units};
use super::error::ArchiveError;

/// Bytes of a header, and what content is filled up to.
const BLOCK: usize = 512;

/// Two empty blocks end a tar.
const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// 1980-01-01, the first time that a zip can hold: `tar` warns about earlier ones.
const TIME: u64 = 315_532_800;

/// Content of a chunk.
const CHUNK: u64 = 1 << 20;

/// Chunks that each thread compresses before any of them is written.
const CHUNKS: usize = 4;

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TarCodec {
    /// gzip, level 1 to 12 (libdeflate's).
    Gzip(u32),
    /// Zstandard.
    Zstd(i32),
}

/// Writes a tar of `entries`, in the byte order of their paths, to the new file `path`. Calls `progress` with the bytes of
/// content that each step wrote. Returns the length of the file.
///
/// Uses all threads of the rayon pool that it is called in. On an error the caller removes the file.
pub fn write_tar(
    mut entries: Vec<Entry>,
    path: &Path,
    codec: TarCodec,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, ArchiveError> {
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    if let Some([_, twice]) = entries.array_windows().find(|[a, b]: &&[Entry; 2]| a.path == b.path) {
        return Err(ArchiveError::Twice { layer: path.display().to_string(), path: twice.path.to_string() });
    }
    let failed = |source| ArchiveError::Write { path: path.to_owned(), source };
    let mut file = File::options().write(true).create_new(true).open(path).map_err(failed)?;
    let chunks = batches(units(&entries, Codec::Store), CHUNK);
    let compress = |chunk: &Vec<Unit>| -> Result<(Vec<u8>, u64), ArchiveError> {
        let plain = plain(&entries, chunk)?;
        let packed = packed(&plain, codec).map_err(failed)?;
        Ok((packed, chunk.iter().map(|unit| unit.size).sum()))
    };
    let mut size = 0;
    let mut write = |ready: Vec<(Vec<u8>, u64)>| -> Result<(), ArchiveError> {
        for (bytes, content) in ready {
            file.write_all(&bytes).map_err(failed)?;
            size += bytes.len() as u64;
            progress(content);
        }
        Ok(())
    };
    let mut ready: Vec<(Vec<u8>, u64)> = Vec::new();
    for group in chunks.chunks(CHUNKS * rayon::current_num_threads()) {
        let before = std::mem::take(&mut ready);
        let (written, next) =
            rayon::join(|| write(before), || group.par_iter().map(compress).collect::<Result<Vec<_>, _>>());
        written?;
        ready = next?;
    }
    ready.push((packed(&END, codec).map_err(failed)?, 0));
    write(ready)?;
    Ok(size)
}

/// The tar of `chunk`.
fn plain(entries: &[Entry], chunk: &[Unit]) -> Result<Vec<u8>, ArchiveError> {
    let mut plain = Vec::with_capacity(chunk.iter().map(|unit| unit.size as usize + 2 * BLOCK).sum());
    for unit in chunk {
        let Some(entry) = entries.get(unit.entry) else { continue };
        let failed = |source| ArchiveError::Compress { path: entry.path.to_string(), source };
        let mut put = |content: &[u8], frame: Option<(u64, bool)>| -> io::Result<()> {
            let (offset, last) = frame.unwrap_or((0, true));
            if offset == 0 {
                let size = if frame.is_some() { entry.body.size_hint() } else { content.len() as u64 };
                plain.extend_from_slice(&header(entry, content, size)?);
            }
            if entry.kind != Kind::Link {
                plain.extend_from_slice(content);
                // Frames are whole blocks but for the last.
                if last {
                    plain.resize(plain.len().next_multiple_of(BLOCK), 0);
                }
            }
            Ok(())
        };
        match (&entry.body, unit.frame) {
            (Body::File { path, .. }, Some(frame)) => {
                put(&read_part(path, frame.offset, unit.size)?, Some((frame.offset, frame.last)))
            }
            (Body::File { path, size }, None) => put(&read_whole(path, *size)?, None),
            (Body::Bytes(bytes), _) => put(bytes, None),
            (Body::Made { make, .. }, _) => {
                let made = make().map_err(|reason| ArchiveError::Make { path: entry.path.to_string(), reason })?;
                made.map_or(Ok(()), |made| put(&made, None))
            }
        }
        .map_err(failed)?;
    }
    Ok(plain)
}

/// The header of `entry`, whose content has `size` bytes and starts with `content`; that of a link is its target.
fn header(entry: &Entry, content: &[u8], size: u64) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.kind.mode() & 0o777);
    header.set_mtime(TIME);
    let path = Path::new(OsStr::from_bytes(entry.path.as_bytes()));
    let mut tar = tar::Builder::new(Vec::new());
    if entry.kind == Kind::Link {
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, path, OsStr::from_bytes(content))?;
    } else {
        let kind = if entry.kind == Kind::Directory { tar::EntryType::Directory } else { tar::EntryType::Regular };
        header.set_entry_type(kind);
        header.set_size(size);
        tar.append_data(&mut header, path, io::empty())?;
    }
    let mut bytes = tar.into_inner()?;
    bytes.truncate(bytes.len().saturating_sub(END.len()));
    Ok(bytes)
}

/// `plain` as a gzip member or a zstd frame.
fn packed(plain: &[u8], codec: TarCodec) -> io::Result<Vec<u8>> {
    match codec {
        TarCodec::Gzip(level) => gzip(plain, level),
        TarCodec::Zstd(level) => zstd_frame(plain, level),
    }
}

fn gzip(plain: &[u8], level: u32) -> io::Result<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<(u32, libdeflater::Compressor)>> = const { RefCell::new(None) };
    }
    super::compress::with_compressor(
        &COMPRESSOR,
        level,
        || super::compress::deflate_compressor(level),
        |compressor| {
            let mut out = vec![0; compressor.gzip_compress_bound(plain.len())];
            let len = compressor.gzip_compress(plain, &mut out).map_err(io::Error::other)?;
            out.truncate(len);
            Ok(out)
        },
    )
}
