//! Plans a layer: a span is one of the pieces that the manifest names, or several neighbours, which are fetched by one request.

use std::ops::Range;

use cpack_format::manifest::Archive;
use cpack_format::zip::{Entry, Frames, local_header};

use super::draft::{Draft, frames, lay_out};
use super::error::PlanError;
use super::model::{Plan, Span, Unit, index};
use crate::limits::Limits;

/// Where the pieces of an archive are.
#[derive(Debug)]
pub(crate) struct Layout<'a> {
    archive: &'a Archive,
    /// Offset of each piece, and of the end.
    starts: Vec<u64>,
}

impl<'a> Layout<'a> {
    /// The layout of `archive`, whose directory must start with a piece.
    pub(crate) fn new(archive: &'a Archive) -> Result<Self, PlanError> {
        let mut starts = Vec::with_capacity(archive.pieces.len() + 1);
        let mut at = 0u64;
        for piece in &archive.pieces {
            starts.push(at);
            at += u64::from(piece.size);
        }
        starts.push(at);
        if at != archive.size {
            return Err(PlanError::Manifest { what: "bytes of pieces", expected: archive.size, found: at });
        }
        match starts.binary_search(&archive.directory) {
            Ok(_) => Ok(Self { archive, starts }),
            Err(_) => Err(PlanError::Piece { name: "the central directory".into(), offset: archive.directory }),
        }
    }

    pub(crate) const fn archive(&self) -> &'a Archive {
        self.archive
    }

    /// The index of the piece that starts at `offset`.
    pub(crate) fn piece_at(&self, offset: u64) -> Option<usize> {
        self.starts.binary_search(&offset).ok()
    }
}

/// Plans the extraction of a layer with these entries. Spans are in the order of the archive: pieces, joined to at most `joined`
/// bytes.
pub(crate) fn plan_layer(
    mut entries: Vec<Entry>,
    layout: &Layout<'_>,
    limits: &Limits,
    joined: u64,
) -> Result<Plan, PlanError> {
    let archive = layout.archive;
    let nexts = lay_out(&mut entries, archive.directory)?;
    let found = entries.len() as u64;
    if found != archive.files {
        return Err(PlanError::Manifest { what: "files", expected: archive.files, found });
    }
    let draft = Draft::new(limits, entries.len(), archive.size)?;
    let mut builder = Builder { draft, layout, joined, pieces: (0, 0), first: 0 };
    for (entry, next) in entries.iter().zip(nexts) {
        builder.add(entry, next)?;
    }
    builder.end_span();
    let plan = builder.draft.finish()?;
    if plan.unpacked > archive.unpacked {
        let (expected, found) = (archive.unpacked, plan.unpacked);
        return Err(PlanError::Manifest { what: "unpacked bytes", expected, found });
    }
    Ok(plan)
}

struct Builder<'a> {
    draft: Draft<'a>,
    layout: &'a Layout<'a>,
    /// Most bytes of a span of several pieces.
    joined: u64,
    /// The first and the last piece of the span that units are being added to.
    pieces: (usize, usize),
    /// The first unit of that span.
    first: u32,
}

impl Builder<'_> {
    fn add(&mut self, entry: &Entry, next: u64) -> Result<(), PlanError> {
        let file = self.draft.add(entry, None)?;
        let Some(frames) = frames(entry) else {
            let (at, len) = self.place(entry, entry.header_offset, next - entry.header_offset)?;
            self.draft.plan.units.push(Unit::Entry { file, at, len });
            return Ok(());
        };
        self.draft.cut(file, frames.lengths.len(), frames.size);
        self.add_frames(entry, frames, file)
    }

    fn add_frames(&mut self, entry: &Entry, frames: &Frames, file: u32) -> Result<(), PlanError> {
        // The length that this project's writer gives the header. `Run` checks it when it decodes the span.
        let header = local_header(entry).len() as u64;
        let (at, len) = self.place(entry, entry.header_offset, header)?;
        self.draft.plan.units.push(Unit::Header { file, at, len });
        let mut offset = entry.header_offset + header;
        for (part, len) in frames.lengths.iter().enumerate() {
            let (at, len) = self.place(entry, offset, u64::from(*len))?;
            self.draft.plan.units.push(Unit::Part { file, part: index(part), at, len });
            offset += u64::from(len);
        }
        Ok(())
    }

    /// Offset in its span, and length, of bytes that must lie within one piece.
    fn place(&mut self, entry: &Entry, offset: u64, len: u64) -> Result<(u32, u32), PlanError> {
        while self.start_of(self.pieces.1 + 1).is_some_and(|next| next <= offset) {
            self.next_piece();
        }
        let crosses = || PlanError::Piece { name: entry.display_name(), offset };
        let start = self.start_of(self.pieces.0).ok_or_else(crosses)?;
        let end = self.start_of(self.pieces.1 + 1).ok_or_else(crosses)?;
        let at = offset.checked_sub(start).ok_or_else(crosses)?;
        if offset.checked_add(len).is_none_or(|last| last > end) {
            return Err(crosses());
        }
        Ok((index(usize::try_from(at).unwrap_or(usize::MAX)), index(usize::try_from(len).unwrap_or(usize::MAX))))
    }

    /// Goes on to the next piece: as a part of the same span, if there is room.
    fn next_piece(&mut self) {
        let (first, last) = self.pieces;
        let (start, end) = (self.start_of(first), self.start_of(last + 2));
        let has_room = start.zip(end).is_some_and(|(start, end)| end - start <= self.joined);
        if !has_room || self.units().is_empty() {
            self.end_span();
            self.pieces.0 = last + 1;
        }
        self.pieces.1 = last + 1;
    }

    fn end_span(&mut self) {
        let units = self.units();
        let (start, end) = (self.start_of(self.pieces.0), self.start_of(self.pieces.1 + 1));
        if let (Some(offset), Some(end), false) = (start, end, units.is_empty()) {
            let len = index(usize::try_from(end - offset).unwrap_or(usize::MAX));
            self.draft.plan.spans.push(Span { offset, len, units: units.clone() });
        }
        self.first = units.end;
    }

    /// The units of the span.
    fn units(&self) -> Range<u32> {
        self.first..index(self.draft.plan.units.len())
    }

    fn start_of(&self, piece: usize) -> Option<u64> {
        self.layout.starts.get(piece).copied()
    }
}
