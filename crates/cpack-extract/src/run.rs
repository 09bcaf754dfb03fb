//! One archive while it is extracted: spans are decoded in any order by any thread, and whoever is last completes it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cpack_format::Digest;
use cpack_format::content::{Item, Kind, content_digest};
use cpack_format::manifest::Archive;

use super::cut::CutFile;
use super::decode::{Codec, SPARE};
use super::error::{ExtractError, zip_error};
use super::plan::{Layout, Plan, PlannedFile, Span, Unit, WHOLE};
use super::source::{PieceSource, verify};
use super::stream;
use super::tree::{Cursor, Tree};

/// How what is decoded is checked.
#[derive(Debug)]
pub(super) enum Check<'a> {
    /// Each span against its piece's digest, everything together against the content's.
    Layer {
        /// The pieces.
        archive: &'a Archive,
        /// Where they are.
        layout: Layout<'a>,
        /// What the content must be.
        content: Digest,
    },
    /// Each entry against its CRC-32.
    Crc,
}

/// One archive being extracted.
#[derive(Debug)]
pub(super) struct Run<'a> {
    /// The caller's number for it.
    pub(super) id: usize,
    /// What it is called in messages.
    pub(super) name: String,
    pub(super) plan: Plan,
    serial: u64,
    source: Box<dyn PieceSource + 'a>,
    into: OwnedFd,
    pub(super) check: Check<'a>,
    pub(super) cut: Vec<CutFile>,
    found: Mutex<Found>,
    left: AtomicUsize,
}

/// What was found in the data.
#[derive(Debug, Default)]
struct Found {
    /// Digest of each file's content, by index; for layers only.
    digests: Vec<Option<Digest>>,
    /// Targets of links.
    links: Vec<(u32, Box<[u8]>)>,
}

/// What one worker uses again and again.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) codec: Codec,
    pub(super) cursor: Cursor,
    pub(super) output: Vec<u8>,
    pub(super) digests: Vec<(u32, Digest)>,
    pub(super) large: stream::Large,
    budget: Arc<stream::Budget>,
}

impl Worker {
    pub(super) fn new(budget: Arc<stream::Budget>) -> io::Result<Self> {
        Ok(Self {
            codec: Codec::new()?,
            cursor: Cursor::default(),
            output: Vec::new(),
            digests: Vec::new(),
            large: stream::Large::new(Arc::clone(&budget)),
            budget,
        })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `len` bytes of `buffer`, which grows where it must and keeps what it has.
pub(super) fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        // Not `resize`: the old bytes need not be copied.
        *buffer = vec![0; len];
    }
    &mut buffer[..len]
}

/// Lengths within one span, which is in memory.
pub(super) fn memory(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl<'a> Run<'a> {
    pub(super) fn new(
        id: usize,
        name: String,
        plan: Plan,
        source: Box<dyn PieceSource + 'a>,
        into: OwnedFd,
        check: Check<'a>,
    ) -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let parts = plan.files.iter().filter_map(|file| file.parts);
        let cut = parts.map(|parts| CutFile::new(parts.count));
        let digests = if matches!(check, Check::Crc) { Vec::new() } else { vec![None; plan.files.len()] };
        Self {
            id,
            name,
            cut: cut.collect(),
            left: AtomicUsize::new(plan.spans.len()),
            found: Mutex::new(Found { digests, links: Vec::new() }),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed) as u64,
            plan,
            source,
            into,
            check,
        }
    }

    pub(super) fn tree(&self) -> Tree<'_> {
        Tree { root: self.into.as_fd(), serial: self.serial, directories: &self.plan.directories }
    }

    /// Length of the span with this index.
    pub(super) fn span_len(&self, index: usize) -> u64 {
        self.plan.spans.get(index).map_or(0, |span| span.len.into())
    }

    /// Reads the span with this index to the start of `buffer`, not verified yet.
    pub(super) fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<(), ExtractError> {
        let Some(span) = self.plan.spans.get(index) else { return Ok(()) };
        let len = span.len as usize;
        let buffer = room(buffer, len + SPARE);
        let _event = cpack_events::span("fetch", || format!("{} at {}", self.name, span.offset)).of(span.len.into());
        self.source.read(span.offset, &mut buffer[..len]).map_err(|e| self.unreadable(e))
    }

    /// Verifies, decodes and writes the span with this index, which `buffer` starts with. True if it was the last.
    pub(super) fn decode(
        &self,
        worker: &mut Worker,
        index: usize,
        buffer: &mut [u8],
        stop: stream::Stop<'_>,
    ) -> Result<bool, ExtractError> {
        if let Some(span) = self.plan.spans.get(index) {
            let len = span.len as usize;
            let _event =
                cpack_events::span("decode", || format!("{} at {}", self.name, span.offset)).of(span.len.into());
            self.verify(span, &mut buffer[..len])?;
            self.units(worker, span, &mut buffer[..len + SPARE], stop)?;
        }
        // What this thread did is visible to the one that completes the run.
        Ok(self.left.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// Bytes of a layer that were read before its spans: its directory.
    pub(super) fn read_before(&self) -> u64 {
        match &self.check {
            Check::Layer { archive, .. } => archive.size.saturating_sub(archive.directory),
            Check::Crc => 0,
        }
    }

    /// Archive bytes and content bytes of a span, and whether it is a large entry.
    pub(super) fn weight(&self, index: usize) -> (u64, u64, bool) {
        let Some(span) = self.plan.spans.get(index) else { return (0, 0, false) };
        let units = self.plan.units.get(span.units.start as usize..span.units.end as usize).unwrap_or_default();
        let file = |index: u32| self.plan.files.get(index as usize);
        let mut weight = (u64::from(span.len), 0, false);
        for unit in units {
            match *unit {
                Unit::Entry { file: index, .. } => weight.1 += file(index).map_or(0, |file| file.size),
                Unit::Header { .. } => {}
                Unit::Part { file: index, part, .. } => weight.1 += file(index).map_or(0, |file| file.part(part).1),
                Unit::Stream { file: index, len } => {
                    weight = (weight.0 + len, weight.1 + file(index).map_or(0, |file| file.size), true);
                }
            }
        }
        weight
    }

    /// Whether `worker` has what it needs for the fastest way to decode the span with this index.
    pub(super) fn suits(&self, worker: &Worker, index: usize) -> bool {
        let (packed, unpacked, large) = self.weight(index);
        !large || worker.large.fits(packed.saturating_add(unpacked))
    }

    /// Whether there is nothing to decode.
    pub(super) fn is_empty(&self) -> bool {
        self.plan.spans.is_empty()
    }

    /// Compares a layer's span with the digest of its piece.
    fn verify(&self, span: &Span, buffer: &mut [u8]) -> Result<(), ExtractError> {
        let Check::Layer { archive, layout, .. } = &self.check else { return Ok(()) };
        let piece = layout.piece_at(span.offset).and_then(|piece| archive.pieces.get(piece));
        let piece = piece.ok_or_else(|| self.damaged("a piece", "is not in the manifest"))?;
        let _event = cpack_events::span("verify", || format!("{} at {}", self.name, span.offset)).of(span.len.into());
        verify(&*self.source, &self.name, span.offset, &piece.digest, buffer)
    }

    fn units(
        &self,
        worker: &mut Worker,
        span: &Span,
        input: &mut [u8],
        stop: stream::Stop<'_>,
    ) -> Result<(), ExtractError> {
        let units = self.plan.units.get(span.units.start as usize..span.units.end as usize).unwrap_or_default();
        for unit in units {
            match *unit {
                Unit::Entry { file, at, len } => {
                    let bytes = &mut input[at as usize..][..len as usize + SPARE];
                    self.entry(worker, file, bytes, stop)?;
                }
                Unit::Header { file, at, len } => {
                    let file = self.file(file)?;
                    let found = self.header(file, &input[at as usize..][..len as usize])?;
                    if found != len as usize {
                        return Err(self.damaged_file(file, "has a local header of another length"));
                    }
                }
                Unit::Part { file, part, at, len } => {
                    let bytes = &mut input[at as usize..][..len as usize + SPARE];
                    self.part(worker, file, part, bytes)?;
                }
                Unit::Stream { file, len } => self.large(worker, file, len, stop)?,
            }
        }
        if !worker.digests.is_empty() {
            let mut found = lock(&self.found);
            for (file, digest) in worker.digests.drain(..) {
                if let Some(slot) = found.digests.get_mut(file as usize) {
                    *slot = Some(digest);
                }
            }
        }
        Ok(())
    }

    /// A whole entry: `bytes` are its local header and data, with room behind them.
    fn entry(
        &self,
        worker: &mut Worker,
        index: u32,
        bytes: &mut [u8],
        stop: stream::Stop<'_>,
    ) -> Result<(), ExtractError> {
        let file = self.file(index)?;
        let end = bytes.len() - SPARE;
        let header = self.header(file, &bytes[..end])?;
        let len = memory(file.compressed_size);
        if header + len > end {
            return Err(self.damaged_file(file, "reaches into what follows it"));
        }
        let packed = &mut bytes[header..];
        if file.size > WHOLE {
            return self.stream(worker, index, file, &mut &packed[..len], stop);
        }
        let mut output = std::mem::take(&mut worker.output);
        let content = room(&mut output, memory(file.size));
        if file.size > 0 {
            worker.codec.decode(file.method, packed, len, true, content).map_err(|e| self.damaged_file(file, &e))?;
        }
        self.check_whole(worker, index, file, content)?;
        self.put(worker, index, file, content)?;
        worker.output = output;
        Ok(())
    }

    /// A large entry of which nothing was read yet.
    fn large(&self, worker: &mut Worker, index: u32, len: u64, stop: stream::Stop<'_>) -> Result<(), ExtractError> {
        let file = self.file(index)?;
        let header_len = memory(len).min(cpack_format::zip::LOCAL_HEADER_SIZE + file.expected().name.len());
        let mut header = vec![0; header_len];
        self.source.read(file.header_offset, &mut header).map_err(|e| self.unreadable(e))?;
        let header = self.header(file, &header)? as u64;
        if header.saturating_add(file.compressed_size) > len {
            return Err(self.damaged_file(file, "reaches into what follows it"));
        }
        let data = file.header_offset + header;
        let (packed, size) = (memory(file.compressed_size), memory(file.size));
        if let Some((input, content)) = worker.large.buffers(packed + SPARE, size) {
            self.source.read(data, &mut input[..packed]).map_err(|e| self.unreadable(e))?;
            worker.codec.decode(file.method, input, packed, true, content).map_err(|e| self.damaged_file(file, &e))?;
            let created = self.tree().create(&mut worker.cursor, file, file.kind == Kind::Executable);
            let found = created.and_then(|out| write_summed(&out, content)).map_err(|e| self.unwritable(file, e))?;
            return if found == file.crc32 { Ok(()) } else { Err(self.wrong_crc(file, found)) };
        }
        let mut reader = stream::Reader::new(&*self.source, data, file.compressed_size);
        self.stream(worker, index, file, &mut reader, stop)
    }

    /// Decodes a large entry piece by piece.
    fn stream(
        &self,
        worker: &mut Worker,
        index: u32,
        file: &PlannedFile,
        packed: &mut dyn io::Read,
        stop: stream::Stop<'_>,
    ) -> Result<(), ExtractError> {
        let created = self.tree().create(&mut worker.cursor, file, file.kind == Kind::Executable);
        let out = created.map_err(|e| self.unwritable(file, e))?;
        let hashing = matches!(self.check, Check::Layer { .. });
        let sums = stream::copy(file, packed, &out, hashing, &worker.budget, stop).map_err(|e| match e {
            stream::StreamError::Stopped => ExtractError::Stopped,
            stream::StreamError::Read(source) => self.unreadable(source),
            stream::StreamError::Content(reason) => self.damaged_file(file, &reason),
            stream::StreamError::Write(source) => self.unwritable(file, source),
        })?;
        match (&self.check, sums.digest) {
            (Check::Layer { .. }, Some(digest)) => worker.digests.push((index, digest)),
            _ if sums.crc32 != file.crc32 => return Err(self.wrong_crc(file, sums.crc32)),
            _ => {}
        }
        Ok(())
    }

    fn check_whole(
        &self,
        worker: &mut Worker,
        index: u32,
        file: &PlannedFile,
        content: &[u8],
    ) -> Result<(), ExtractError> {
        let _event = cpack_events::span("verify", || file.path.to_string()).of(file.size);
        if matches!(self.check, Check::Layer { .. }) {
            worker.digests.push((index, Digest::of(content)));
            return Ok(());
        }
        self.check_crc(file, content)
    }

    fn check_crc(&self, file: &PlannedFile, content: &[u8]) -> Result<(), ExtractError> {
        let found = libdeflater::crc32(content);
        if found == file.crc32 { Ok(()) } else { Err(self.wrong_crc(file, found)) }
    }

    /// Writes a whole entry, or remembers what is made at the end.
    fn put(&self, worker: &mut Worker, index: u32, file: &PlannedFile, content: &[u8]) -> Result<(), ExtractError> {
        let executable = match file.kind {
            Kind::Directory => return Ok(()),
            Kind::Link if !file.path.link_stays_inside(content) => {
                let target = String::from_utf8_lossy(content);
                return Err(
                    self.damaged_file(file, &format!("is a link that leads out of its directory, to {target:?}"))
                );
            }
            Kind::Link => {
                lock(&self.found).links.push((index, content.into()));
                return Ok(());
            }
            Kind::File => false,
            Kind::Executable => true,
        };
        let _event = cpack_events::span("write", || file.path.to_string()).of(content.len() as u64);
        let written = self
            .tree()
            .create(&mut worker.cursor, file, executable)
            .and_then(|out| if content.is_empty() { Ok(()) } else { out.write_all_at(content, 0) });
        written.map_err(|e| self.unwritable(file, e))
    }

    /// Makes empty directories and links, and compares the content with what it must be. After the last span.
    pub(super) fn complete(&self) -> Result<(), ExtractError> {
        let found = std::mem::take(&mut *lock(&self.found));
        let mut cursor = Cursor::default();
        for directory in self.plan.files.iter().filter(|file| file.kind == Kind::Directory) {
            self.tree().make(&directory.path).map_err(|e| self.unwritable(directory, e))?;
        }
        for (index, target) in &found.links {
            let file = self.file(*index)?;
            self.tree().link(&mut cursor, file, target).map_err(|e| self.unwritable(file, e))?;
        }
        let Check::Layer { content, .. } = &self.check else { return Ok(()) };
        let items = self.plan.files.iter().zip(found.digests).map(|(file, digest)| {
            let digest = digest.ok_or_else(|| self.damaged_file(file, "was not decoded"))?;
            Ok(Item { path: file.path.clone(), kind: file.kind, size: file.size, digest })
        });
        let digest = content_digest(&mut items.collect::<Result<Vec<_>, ExtractError>>()?);
        if digest == *content {
            return Ok(());
        }
        Err(ExtractError::Digest { archive: self.name.clone(), found: digest, expected: *content })
    }

    pub(super) fn file(&self, index: u32) -> Result<&PlannedFile, ExtractError> {
        self.plan.files.get(index as usize).ok_or_else(|| self.damaged("an entry", "is not in the plan"))
    }

    fn header(&self, file: &PlannedFile, bytes: &[u8]) -> Result<usize, ExtractError> {
        file.expected().local_header_len(bytes).map_err(|e| zip_error(&self.name, e))
    }

    fn damaged(&self, entry: &str, reason: &str) -> ExtractError {
        ExtractError::Entry { archive: self.name.clone(), entry: entry.to_owned(), reason: reason.to_owned() }
    }

    pub(super) fn damaged_file(&self, file: &PlannedFile, reason: &str) -> ExtractError {
        self.damaged(&file.path.to_string(), reason)
    }

    pub(super) fn wrong_crc(&self, file: &PlannedFile, found: u32) -> ExtractError {
        self.damaged_file(file, &format!("has CRC-32 {found:08x}, expected {:08x}", file.crc32))
    }

    fn unreadable(&self, source: cpack_store::StoreError) -> ExtractError {
        ExtractError::Read { archive: self.name.clone(), source }
    }

    pub(super) fn unwritable(&self, file: &PlannedFile, source: io::Error) -> ExtractError {
        ExtractError::Write { archive: self.name.clone(), path: file.path.to_string(), source }
    }
}

/// Writes `content`, and returns its CRC-32: in steps, so that what is summed is still in the core's cache.
fn write_summed(out: &File, content: &[u8]) -> io::Result<u32> {
    let mut crc = libdeflater::Crc::new();
    for (i, chunk) in content.chunks(stream::CHUNK).enumerate() {
        crc.update(chunk);
        out.write_all_at(chunk, (i * stream::CHUNK) as u64)?;
    }
    Ok(crc.sum())
}
