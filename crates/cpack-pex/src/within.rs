//! Reads zips within files: central directories, and entries that are small.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cpack_format::zip::{Entry, LOCAL_HEADER_SIZE, MAX_TAIL, Method, local_header_len, read_directory, read_end};

use crate::error::PexFileError;
use crate::info::MAX_PEX_INFO;

/// Largest central directory, in bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

/// The central directory of the zip file at `path`.
pub(crate) fn read_whole_zip(path: &Path) -> Result<(File, Vec<Entry>), PexFileError> {
    let unreadable = |source| PexFileError::Read { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let entries = read_zip(&file, path, 0, size)?;
    Ok((file, entries))
}

/// The entries, without directories, of the zip of `size` bytes at offset `start` of `file`.
pub(crate) fn read_zip(file: &File, path: &Path, start: u64, size: u64) -> Result<Vec<Entry>, PexFileError> {
    let within = Within { file, path, start };
    let damaged = |source| PexFileError::Zip { path: path.into(), source };
    let tail = size.min(MAX_TAIL as u64);
    let end = read_end(&within.read(size - tail, tail)?, size).map_err(damaged)?;
    if end.directory_size > MAX_DIRECTORY {
        return Err(PexFileError::Missing { path: path.into(), what: "directory of less than 32 MiB".into() });
    }
    let directory = within.read(end.directory_offset, end.directory_size)?;
    let mut entries = read_directory(&directory, &end).map_err(damaged)?;
    entries.retain(|entry| !entry.is_directory());
    Ok(entries)
}

/// A zip within a file.
pub(crate) struct Within<'a> {
    pub(crate) file: &'a File,
    pub(crate) path: &'a Path,
    /// Its offset in the file.
    pub(crate) start: u64,
}

impl Within<'_> {
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, PexFileError> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, self.start.saturating_add(offset)) {
            Ok(()) => Ok(bytes),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(PexFileError::Missing { path: self.path.into(), what: "end: it is cut off".into() })
            }
            Err(source) => Err(PexFileError::Read { path: self.path.into(), source }),
        }
    }

    /// The offset of an entry's data.
    pub(crate) fn data_offset(&self, entry: &Entry) -> Result<u64, PexFileError> {
        let header = self.read(entry.header_offset, (LOCAL_HEADER_SIZE + entry.name.len()) as u64)?;
        let damaged = |source| PexFileError::Zip { path: self.path.into(), source };
        Ok(entry.header_offset + local_header_len(&header, entry).map_err(damaged)? as u64)
    }

    /// The bytes of the small entry with this name, if there is one.
    pub(crate) fn read_entry(&self, entries: &[Entry], name: &str) -> Result<Option<Vec<u8>>, PexFileError> {
        entries.iter().find(|entry| *entry.name == *name.as_bytes()).map(|entry| self.decoded_small(entry)).transpose()
    }

    /// The bytes of an entry that should be small.
    pub(crate) fn decoded_small(&self, entry: &Entry) -> Result<Vec<u8>, PexFileError> {
        if entry.size > MAX_PEX_INFO { Err(self.missing(entry)) } else { self.decoded(entry, MAX_PEX_INFO) }
    }

    /// The bytes of an entry of at most `limit` compressed bytes, verified.
    pub(crate) fn decoded(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, PexFileError> {
        if entry.compressed_size > limit {
            return Err(self.missing(entry));
        }
        let packed = self.read(self.data_offset(entry)?, entry.compressed_size)?;
        decode(entry, &packed).ok_or_else(|| self.missing(entry))
    }

    fn missing(&self, entry: &Entry) -> PexFileError {
        let what = format!("{} that can be read", String::from_utf8_lossy(&entry.name));
        PexFileError::Missing { path: self.path.into(), what }
    }
}

/// The content of an entry, `None` if it is damaged or of an unknown method.
fn decode(entry: &Entry, packed: &[u8]) -> Option<Vec<u8>> {
    let bytes = match entry.method {
        Method::Store => packed.to_vec(),
        // Deflate makes at most 1,032 bytes of one.
        Method::Deflate if entry.size / 1032 <= packed.len() as u64 => {
            let mut bytes = vec![0; usize::try_from(entry.size).ok()?];
            let len = libdeflater::Decompressor::new().deflate_decompress(packed, &mut bytes).ok()?;
            bytes.truncate(len);
            bytes
        }
        Method::Deflate => return None,
        // A frame does not say how much it makes: memory grows with what it made.
        Method::Zstd => {
            let mut bytes = Vec::new();
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
            decoder.take(entry.size.saturating_add(1)).read_to_end(&mut bytes).ok()?;
            bytes
        }
    };
    (bytes.len() as u64 == entry.size && crc32fast::hash(&bytes) == entry.crc32).then_some(bytes)
}
