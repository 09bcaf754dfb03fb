//! The ordered half: archive bytes, pieces and digests, as compressed units arrive.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cpack_format::content::{Item, content_digest};
use cpack_format::digest::merge_parts;
use cpack_format::manifest::{Archive, MAX_PIECE, Piece};
use cpack_format::zip::{self, FRAME_SIZE, Frames, frames};
use cpack_format::{Digest, SafePath};
use rayon::prelude::*;

use super::codec::Codec;
use super::compress::{Compressed, Hash, Part, compress};
use super::entry::{Entry, Unit, batches, units};
use super::error::ArchiveError;

/// No entry or frame that would make a piece longer is added to it: a lazy start fetches whole pieces. An eager one fetches
/// neighbours by one request. Each costs the manifest 95 bytes.
const PIECE_TARGET: usize = 1 << 20;

/// An archive that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenArchive {
    /// Digest of its content: the same for the same files, however they are compressed.
    pub content: Digest,
    /// The archive as a manifest names it.
    pub archive: Archive,
}

/// Writes the layer `name` made of `entries` to the new file `path`. Calls `progress` with the bytes of content that each
/// step wrote.
///
/// Uses all threads of the rayon pool that it is called in. On an error the caller removes the file.
pub fn write_layer(
    name: &str,
    entries: Vec<Entry>,
    path: &Path,
    level: i32,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<WrittenArchive, ArchiveError> {
    write_zip(name, entries, path, Form { codec: Codec::Zstd(level), head: b"", executable: false }, progress)
}

/// How an archive is written.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// How its entries are compressed.
    pub codec: Codec,
    /// Bytes before the first entry: a `#!` line. The archive's offsets count them, as Python's `zipfile` does.
    pub head: &'a [u8],
    /// Whether the file gets execute permission.
    pub executable: bool,
}

/// Writes the archive `name` made of `entries` to the new file `path`, as [`write_layer`] does.
pub fn write_zip(
    name: &str,
    entries: Vec<Entry>,
    path: &Path,
    form: Form<'_>,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<WrittenArchive, ArchiveError> {
    let mut writer = ZipWriter::create(name, path, form)?;
    writer.add(entries, progress)?;
    writer.finish()
}

/// An archive that is written in sections: the first can be compressed before the last is known.
#[derive(Debug)]
pub struct ZipWriter<'a> {
    name: &'a str,
    path: &'a Path,
    writer: Writer,
}

impl<'a> ZipWriter<'a> {
    /// Creates the new file `path` for the archive `name`.
    pub fn create(name: &'a str, path: &'a Path, form: Form<'_>) -> Result<Self, ArchiveError> {
        let mode = if form.executable { 0o777 } else { 0o666 };
        let file = File::options().write(true).create_new(true).mode(mode).open(path);
        let file = file.map_err(|source| ArchiveError::Write { path: path.to_owned(), source })?;
        Ok(Self { name, path, writer: Writer::new(file, form) })
    }

    /// Adds a section, its entries in the byte order of their paths.
    pub fn add(&mut self, mut entries: Vec<Entry>, progress: &(dyn Fn(u64) + Sync)) -> Result<(), ArchiveError> {
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.refuse_twice(&entries)?;
        let Self { path, writer, .. } = self;
        let failed = |source| ArchiveError::Write { path: path.to_path_buf(), source };
        let codec = writer.codec;
        let batches = batches(units(&entries, codec), codec.batch());
        let mut ready: Result<Vec<Compressed>, ArchiveError> = Ok(Vec::new());
        for batch in &batches {
            let (written, next) = rayon::join(
                || {
                    let packed = std::mem::replace(&mut ready, Ok(Vec::new()))?;
                    writer.write_batch(&entries, packed, progress).map_err(failed)
                },
                || compress_batch(&entries, batch, codec),
            );
            written?;
            ready = next;
        }
        writer.write_batch(&entries, ready?, progress).map_err(failed)
    }

    fn refuse_twice(&self, entries: &[Entry]) -> Result<(), ArchiveError> {
        let before: HashSet<&SafePath> = self.writer.items.iter().map(|item| &item.path).collect();
        let within = entries.array_windows().find(|[a, b]: &&[Entry; 2]| a.path == b.path).map(|[_, twice]| twice);
        match within.or_else(|| entries.iter().find(|entry| before.contains(&entry.path))) {
            Some(twice) => Err(ArchiveError::Twice { layer: self.name.to_owned(), path: twice.path.to_string() }),
            None => Ok(()),
        }
    }

    /// Writes the central directory.
    pub fn finish(self) -> Result<WrittenArchive, ArchiveError> {
        self.writer.finish().map_err(|source| ArchiveError::Write { path: self.path.to_owned(), source })
    }
}

fn compress_batch(entries: &[Entry], batch: &[Unit], codec: Codec) -> Result<Vec<Compressed>, ArchiveError> {
    batch.par_iter().with_max_len(8).map(|unit| compress(entries, *unit, codec)).collect()
}

#[derive(Debug)]
struct Writer {
    file: File,
    codec: Codec,
    /// Bytes not yet written: always less than one piece and one part.
    buffer: Vec<u8>,
    /// Offset of the end of `buffer` in the archive.
    offset: u64,
    digest: blake3::Hasher,
    pieces: Vec<Piece>,
    directory: Vec<zip::Entry>,
    items: Vec<Item>,
    open: Option<Open>,
    unpacked: u64,
}

/// The entry whose parts are arriving.
#[derive(Debug)]
struct Open {
    record: zip::Entry,
    crc32: crc32fast::Hasher,
    hashes: Vec<Hash>,
}

impl Writer {
    fn new(file: File, form: Form<'_>) -> Self {
        let mut buffer = Vec::with_capacity(PIECE_TARGET + (2 << 20));
        buffer.extend_from_slice(form.head);
        Self {
            file,
            codec: form.codec,
            buffer,
            offset: form.head.len() as u64,
            digest: blake3::Hasher::new(),
            pieces: Vec::new(),
            directory: Vec::new(),
            items: Vec::new(),
            open: None,
            unpacked: 0,
        }
    }

    /// Writes the compressed units of a batch, in order.
    fn write_batch(
        &mut self,
        entries: &[Entry],
        batch: Vec<Compressed>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> io::Result<()> {
        let _event = cpack_events::span("write", || format!("archive at {}", self.offset));
        for packed in batch {
            let Some(entry) = entries.get(packed.entry) else { continue };
            let framed = packed.parts.len() > 1 || !packed.last || self.open.is_some();
            progress(packed.parts.iter().map(|p| p.size).sum());
            for part in packed.parts {
                self.put_part(entry, part, framed)?;
            }
            if packed.last {
                self.close_entry(entry);
            }
        }
        Ok(())
    }

    fn put_part(&mut self, entry: &Entry, part: Part, framed: bool) -> io::Result<()> {
        if !self.buffer.is_empty() && self.buffer.len() + part.bytes.len() > PIECE_TARGET {
            self.cut()?;
        }
        if self.open.is_none() {
            let record = self.start_record(entry, &part, framed);
            self.push(&zip::local_header(&record));
            self.open = Some(Open { record, crc32: crc32fast::Hasher::new(), hashes: Vec::new() });
        }
        if let Some(open) = &mut self.open {
            open.crc32.combine(&part.crc32);
            open.hashes.push(part.hash);
            if framed {
                open.record.size += part.size;
                open.record.compressed_size += part.bytes.len() as u64;
            }
            if let Some(frames) = &mut open.record.frames {
                frames.lengths.push(u32::try_from(part.bytes.len()).unwrap_or(u32::MAX));
            }
        }
        self.unpacked += part.size;
        self.push(&part.bytes);
        Ok(())
    }

    fn start_record(&self, entry: &Entry, part: &Part, framed: bool) -> zip::Entry {
        let mut name = entry.path.as_bytes().to_vec();
        if entry.kind == cpack_format::content::Kind::Directory {
            name.push(b'/');
        }
        let frame_size = if framed { frames::frame_size(entry.body.size_hint()).max(FRAME_SIZE) } else { 0 };
        zip::Entry {
            name: name.into(),
            method: if framed { self.codec.method() } else { part.method },
            crc32: part.crc32.clone().finalize(),
            compressed_size: if framed { 0 } else { part.bytes.len() as u64 },
            size: if framed { 0 } else { part.size },
            header_offset: self.offset,
            mode: entry.kind.mode(),
            frames: framed.then(|| Frames { size: frame_size, lengths: Vec::new() }),
        }
    }

    fn close_entry(&mut self, entry: &Entry) {
        let Some(Open { mut record, crc32, hashes }) = self.open.take() else { return };
        record.crc32 = crc32.finalize();
        if record.frames.is_some() {
            self.push(&zip::descriptor(&record));
        }
        let parts: Vec<_> = hashes.iter().filter_map(|h| if let Hash::Part(p) = h { Some(*p) } else { None }).collect();
        let digest = match hashes.first() {
            Some(Hash::Whole(digest)) => *digest,
            _ => merge_parts(&parts).unwrap_or_else(|| Digest::of(&[])),
        };
        self.items.push(Item { path: entry.path.clone(), kind: entry.kind, size: record.size, digest });
        self.directory.push(record);
    }

    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.offset += bytes.len() as u64;
    }

    /// Ends a piece here.
    fn cut(&mut self) -> io::Result<()> {
        let max = usize::try_from(MAX_PIECE).unwrap_or(usize::MAX);
        for piece in self.buffer.chunks(max) {
            let size = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            self.pieces.push(Piece { size, digest: Digest::of(piece) });
            self.digest.update(piece);
        }
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<WrittenArchive> {
        self.cut()?;
        let directory = self.offset;
        let records: Vec<u8> = self.directory.iter().flat_map(zip::central_record).collect();
        self.push(&records);
        let end = zip::end_records(self.directory.len() as u64, records.len() as u64, directory, b"");
        self.push(&end);
        self.cut()?;
        let archive = Archive {
            digest: self.digest.finalize().into(),
            size: self.offset,
            unpacked: self.unpacked,
            files: self.items.len() as u64,
            directory,
            pieces: self.pieces,
        };
        Ok(WrittenArchive { content: content_digest(&mut self.items), archive })
    }
}
