//! One archive while it is extracted: any thread decodes a span, in any order, and the thread that decodes the last one
//! completes the archive.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cpack_format::content::Kind;
use cpack_format::message::{one_line, with_causes};

use crate::codec::SPARE;
use crate::cut::CutFile;
use crate::destination::{Cursor, Destination};
use crate::error::{ExtractError, zip_error};
use crate::large::{self, CHUNK, Reader, Stop, StreamError};
use crate::lock::lock;
use crate::plan::{Layout, Plan, PlannedFile, Span, Unit, WHOLE};
use crate::read_plan::verify_pieces;
use crate::source::{PieceSource, cut_short};
use crate::sum;
use crate::window::Window;
use crate::worker::{Worker, memory, room};

/// One archive being extracted.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// The caller's number for it.
    pub(crate) id: usize,
    /// What it is called in messages.
    pub(crate) name: String,
    pub(crate) plan: Plan,
    /// Tells the archives of one process apart.
    pub(crate) serial: u64,
    source: Box<dyn PieceSource + 'a>,
    into: OwnedFd,
    /// Where the pieces of a layer are, each with its digest in the manifest.
    pieces: Option<Layout<'a>>,
    /// [`Limits::mapped_by`](crate::Limits::mapped_by).
    mapped_by: Option<&'static str>,
    cut: Vec<CutFile>,
    /// Targets of links, by the index of their file: made by [`Run::complete`].
    links: Mutex<Vec<(u32, Box<[u8]>)>>,
    /// Spans that are not decoded yet, and cut files that are not written yet: the last part of one may be written by another
    /// thread than the one that decoded it.
    unfinished: AtomicUsize,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        id: usize,
        name: String,
        plan: Plan,
        source: Box<dyn PieceSource + 'a>,
        into: OwnedFd,
        pieces: Option<Layout<'a>>,
        mapped_by: Option<&'static str>,
    ) -> Self {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let parts = plan.files.iter().filter_map(|file| file.parts);
        let cut = parts.map(|parts| CutFile::new(parts.count));
        Self {
            id,
            name,
            cut: cut.collect(),
            unfinished: AtomicUsize::new(plan.spans.len() + plan.cut as usize),
            links: Mutex::default(),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed) as u64,
            plan,
            source,
            into,
            pieces,
            mapped_by,
        }
    }

    fn destination(&self) -> Destination<'_> {
        Destination { root: self.into.as_fd(), serial: self.serial, directories: &self.plan.directories }
    }

    /// Length of the span with this index.
    pub(crate) fn span_len(&self, index: usize) -> u64 {
        self.plan.spans.get(index).map_or(0, |span| span.len.into())
    }

    /// Maps the span with this index, not verified yet, if that is possible.
    pub(crate) fn window(&self, index: usize) -> Option<Window> {
        let span = self.plan.spans.get(index)?;
        let program = self.mapped_by?;
        let (file, start) = self.source.file()?;
        let line =
            || one_line(&format!("{program}: {}", with_causes(&self.unreadable(cut_short(self.source.location())))));
        Window::new(file, start.checked_add(span.offset)?, span.len as usize + SPARE, line)
    }

    /// Reads the span with this index to the start of `buffer`, not verified yet.
    pub(crate) fn read(&self, index: usize, buffer: &mut Vec<u8>) -> Result<(), ExtractError> {
        let Some(span) = self.plan.spans.get(index) else { return Ok(()) };
        let len = span.len as usize;
        let buffer = room(buffer, len + SPARE);
        let _event = cpack_events::span("fetch", || format!("{} at {}", self.name, span.offset)).of(span.len.into());
        self.source.read(span.offset, &mut buffer[..len]).map_err(|e| self.unreadable(e))
    }

    /// Verifies, decodes and writes the span with this index, whose bytes `buffer` starts with. Returns whether it was the
    /// last span of the archive.
    pub(crate) fn decode(
        &self,
        worker: &mut Worker,
        index: usize,
        buffer: &mut [u8],
        stop: Stop<'_>,
    ) -> Result<bool, ExtractError> {
        if let Some(span) = self.plan.spans.get(index) {
            let len = span.len as usize;
            let _event =
                cpack_events::span("decode", || format!("{} at {}", self.name, span.offset)).of(span.len.into());
            self.verify(span, &mut buffer[..len])?;
            self.units(worker, span, &mut buffer[..len + SPARE], stop)?;
        }
        // The thread that completes the archive sees what this one wrote.
        Ok(self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// Bytes of a layer that were read before its spans: its directory.
    pub(crate) fn read_before(&self) -> u64 {
        self.pieces.as_ref().map(Layout::archive).map_or(0, |archive| archive.size.saturating_sub(archive.directory))
    }

    /// Archive bytes and content bytes of a span, and whether it is a large entry.
    pub(crate) fn weight(&self, index: usize) -> (u64, u64, bool) {
        let Some(span) = self.plan.spans.get(index) else { return (0, 0, false) };
        let units = self.plan.units_of(span);
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
    pub(crate) fn suits(&self, worker: &Worker, index: usize) -> bool {
        let (packed, unpacked, large) = self.weight(index);
        !large || worker.large.fits(packed.saturating_add(unpacked))
    }

    /// Compares a layer's span with the digests of its pieces.
    fn verify(&self, span: &Span, buffer: &mut [u8]) -> Result<(), ExtractError> {
        let Some(layout) = &self.pieces else { return Ok(()) };
        verify_pieces(&*self.source, &self.name, layout, span.offset, buffer)
    }

    fn units(&self, worker: &mut Worker, span: &Span, input: &mut [u8], stop: Stop<'_>) -> Result<(), ExtractError> {
        for unit in self.plan.units_of(span) {
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
        Ok(())
    }

    /// A whole entry: `bytes` are its local header and data, with room behind them.
    fn entry(&self, worker: &mut Worker, index: u32, bytes: &mut [u8], stop: Stop<'_>) -> Result<(), ExtractError> {
        let file = self.file(index)?;
        let end = bytes.len() - SPARE;
        let header = self.header(file, &bytes[..end])?;
        let len = memory(file.compressed_size);
        if header + len > end {
            return Err(self.damaged_file(file, "reaches into what follows it"));
        }
        let packed = &mut bytes[header..];
        if file.size > WHOLE {
            return self.stream(worker, file, &mut &packed[..len], stop);
        }
        let mut output = std::mem::take(&mut worker.output);
        let content = room(&mut output, memory(file.size));
        if file.size > 0 {
            worker.codec.decode(file.method, packed, len, true, content).map_err(|e| self.damaged_file(file, &e))?;
        }
        let event = cpack_events::span("verify", || file.path.to_string()).of(file.size);
        let crc = libdeflater::crc32(content);
        drop(event);
        self.check_crc(file, crc)?;
        self.put(worker, index, file, content)?;
        worker.output = output;
        Ok(())
    }

    /// A large entry of a zip, of which nothing was read yet.
    fn large(&self, worker: &mut Worker, index: u32, len: u64, stop: Stop<'_>) -> Result<(), ExtractError> {
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
            let created = self.destination().create(&mut worker.cursor, file);
            let found = created.and_then(|out| write_summed(&out, content)).map_err(|e| self.unwritable(file, e))?;
            return self.check_crc(file, found);
        }
        let mut reader = Reader::new(&*self.source, data, file.compressed_size);
        self.stream(worker, file, &mut reader, stop)
    }

    /// Decodes a large entry piece by piece.
    fn stream(
        &self,
        worker: &mut Worker,
        file: &PlannedFile,
        packed: &mut dyn io::Read,
        stop: Stop<'_>,
    ) -> Result<(), ExtractError> {
        let created = self.destination().create(&mut worker.cursor, file);
        let out = created.map_err(|e| self.unwritable(file, e))?;
        let crc = large::copy(file, packed, &out, &worker.budget, stop).map_err(|e| match e {
            StreamError::Stopped => ExtractError::Stopped,
            StreamError::Read(source) => self.unreadable(source),
            StreamError::Content(reason) => self.damaged_file(file, &reason),
            StreamError::Write(source) => self.unwritable(file, source),
        })?;
        self.check_crc(file, crc)
    }

    /// One part of a cut file.
    fn part(&self, worker: &mut Worker, index: u32, part: u32, bytes: &mut [u8]) -> Result<(), ExtractError> {
        let file = self.file(index)?;
        let no_parts = || self.damaged_file(file, "has no parts");
        let parts = file.parts.ok_or_else(no_parts)?;
        let cut = self.cut.get(parts.index as usize).ok_or_else(no_parts)?;
        let (offset, size) = file.part(part);
        let len = bytes.len() - SPARE;
        let content = room(&mut worker.output, memory(size));
        let ends = part + 1 == parts.count;
        worker.codec.decode(file.method, bytes, len, ends, content).map_err(|e| self.damaged_file(file, &e))?;
        let event = cpack_events::span("verify", || file.path.to_string()).of(size);
        cut.decoded(part, libdeflater::crc32(content));
        drop(event);
        let _event = cpack_events::span("write", || file.path.to_string()).of(size);
        let create = || self.destination().create(&mut worker.cursor, file);
        let written = cut.write(offset, &mut worker.output, memory(size), create);
        if let Some(sums) = written.map_err(|e| self.unwritable(file, e))? {
            self.check_crc(file, sum::merge(file, &sums))?;
            // Never the last: the span that this thread is at is unfinished.
            self.unfinished.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(())
    }

    fn check_crc(&self, file: &PlannedFile, found: u32) -> Result<(), ExtractError> {
        if found == file.crc32 {
            return Ok(());
        }
        Err(self.damaged_file(file, &format!("has CRC-32 {found:08x}, expected {:08x}", file.crc32)))
    }

    /// Writes a whole entry. Links are kept for [`Self::complete`].
    fn put(&self, worker: &mut Worker, index: u32, file: &PlannedFile, content: &[u8]) -> Result<(), ExtractError> {
        match file.kind {
            Kind::Directory => return Ok(()),
            Kind::Link if !file.path.link_stays_inside(content) => {
                let target = String::from_utf8_lossy(content);
                let reason = format!("is a link that leads out of its directory, to {target:?}");
                return Err(self.damaged_file(file, &reason));
            }
            Kind::Link => {
                lock(&self.links).push((index, content.into()));
                return Ok(());
            }
            Kind::File | Kind::Executable => {}
        }
        let _event = cpack_events::span("write", || file.path.to_string()).of(content.len() as u64);
        let created = self.destination().create(&mut worker.cursor, file);
        let written = created.and_then(|out| if content.is_empty() { Ok(()) } else { out.write_all_at(content, 0) });
        written.map_err(|e| self.unwritable(file, e))
    }

    /// Makes empty directories and links. Called after the last span.
    pub(crate) fn complete(&self) -> Result<(), ExtractError> {
        let mut cursor = Cursor::default();
        for directory in self.plan.files.iter().filter(|file| file.kind == Kind::Directory) {
            self.destination().make(&directory.path).map_err(|e| self.unwritable(directory, e))?;
        }
        let links = std::mem::take(&mut *lock(&self.links));
        for (index, target) in &links {
            let file = self.file(*index)?;
            self.destination().link(&mut cursor, file, target).map_err(|e| self.unwritable(file, e))?;
        }
        Ok(())
    }

    fn file(&self, index: u32) -> Result<&PlannedFile, ExtractError> {
        self.plan.files.get(index as usize).ok_or_else(|| self.damaged("an entry", "is not in the plan"))
    }

    fn header(&self, file: &PlannedFile, bytes: &[u8]) -> Result<usize, ExtractError> {
        file.expected().local_header_len(bytes).map_err(|e| zip_error(&self.name, e))
    }

    fn damaged(&self, entry: &str, reason: &str) -> ExtractError {
        ExtractError::Entry { archive: self.name.clone(), entry: entry.to_owned(), reason: reason.to_owned() }
    }

    fn damaged_file(&self, file: &PlannedFile, reason: &str) -> ExtractError {
        self.damaged(&file.path.to_string(), reason)
    }

    fn unreadable(&self, source: cpack_store::StoreError) -> ExtractError {
        ExtractError::Read { archive: self.name.clone(), source }
    }

    fn unwritable(&self, file: &PlannedFile, source: io::Error) -> ExtractError {
        ExtractError::Write { archive: self.name.clone(), path: file.path.to_string(), source }
    }
}

/// Writes `content` and returns its CRC-32. In steps, so that each is written while the core's cache still holds it.
fn write_summed(out: &File, content: &[u8]) -> io::Result<u32> {
    let mut crc = libdeflater::Crc::new();
    for (i, chunk) in content.chunks(CHUNK).enumerate() {
        crc.update(chunk);
        out.write_all_at(chunk, (i * CHUNK) as u64)?;
    }
    Ok(crc.sum())
}
