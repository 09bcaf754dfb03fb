//! Plans any zip: a span is a group of neighbouring entries, or a large one, which is cut where that is possible.

use std::collections::HashMap;

use cpack_format::zip::{Entry, LOCAL_HEADER_SIZE, Method};

use super::draft::{Draft, WHOLE, frames, lay_out};
use super::error::PlanError;
use super::model::{Plan, Span, Unit, index};
use crate::limits::Limits;

/// Archive bytes read as one: long enough that reading costs nothing beside decoding, short enough that a group and
/// what it decodes to stay in a core's level 2 cache.
const GROUP: u64 = 512 << 10;

/// Most unused bytes between two entries that are read with both.
const GAP: u64 = 16 << 10;

/// Longest extra fields of a local header.
const MAX_EXTRA: u64 = u16::MAX as u64;

/// Bytes that creating a file costs as much as decoding: about 15 µs.
const FILE_WEIGHT: u64 = 10 << 10;

/// The entries that are decoded in parts, so that the offset of their data must be known before [`plan_zip`]: stored ones
/// of more than [`WHOLE`], and those with frames.
pub(crate) fn cut_entries(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| part_size(entry).is_some())
}

/// Content of each part of `entry`, if it can be decoded in parts.
fn part_size(entry: &Entry) -> Option<u64> {
    let stored = || (entry.method == Method::Store && entry.size > WHOLE).then_some(WHOLE);
    frames(entry).map(|frames| frames.size).or_else(stored)
}

/// Plans the extraction of the `entries` for which `select` returns a path. The central directory starts at `end`;
/// `data` maps the header's offset of each of [`cut_entries`] to the offset of its data. Spans are sorted longest first.
pub(crate) fn plan_zip(
    mut entries: Vec<Entry>,
    end: u64,
    data: &HashMap<u64, u64>,
    select: &dyn Fn(&Entry) -> Option<Vec<u8>>,
    limits: &Limits,
) -> Result<Plan, PlanError> {
    let nexts = lay_out(&mut entries, end)?;
    let mut builder = Builder { draft: Draft::new(limits, entries.len(), end)?, group: None, weights: Vec::new() };
    for (entry, next) in entries.iter().zip(nexts) {
        if let Some(path) = select(entry) {
            builder.add(entry, &path, next, data.get(&entry.header_offset).copied())?;
        }
    }
    builder.close_group();
    let mut spans: Vec<_> = builder.draft.plan.spans.drain(..).zip(builder.weights).collect();
    spans.sort_by_key(|(_, weight)| std::cmp::Reverse(*weight));
    builder.draft.plan.spans = spans.into_iter().map(|(span, _)| span).collect();
    builder.draft.finish()
}

struct Builder<'a> {
    draft: Draft<'a>,
    /// The group that entries are being added to.
    group: Option<Group>,
    /// How long each span will take.
    weights: Vec<u64>,
}

struct Group {
    start: u64,
    end: u64,
    first: u32,
    weight: u64,
}

impl Builder<'_> {
    fn add(&mut self, entry: &Entry, path: &[u8], next: u64, data: Option<u64>) -> Result<(), PlanError> {
        let file = self.draft.add(entry, Some(path))?;
        let header = (LOCAL_HEADER_SIZE + entry.name.len()) as u64;
        let extent = (next - entry.header_offset).min(header + MAX_EXTRA + entry.compressed_size);
        if let (Some(size), Some(data)) = (part_size(entry), data) {
            return self.add_parts(entry, file, size, data, next);
        }
        if entry.size > WHOLE || extent > GROUP {
            self.close_group();
            let unit = Unit::Stream { file, len: extent };
            self.push_span(entry.header_offset, 0, &[unit], entry.size);
            return Ok(());
        }
        let start = entry.header_offset;
        if self.group.as_ref().is_some_and(|group| start + extent > group.start + GROUP || start > group.end + GAP) {
            self.close_group();
        }
        let first = index(self.draft.plan.units.len());
        let group = self.group.get_or_insert(Group { start, end: start, first, weight: 0 });
        group.end = start + extent;
        group.weight += entry.size + FILE_WEIGHT;
        let unit = Unit::Entry { file, at: small(start - group.start), len: small(extent) };
        self.draft.plan.units.push(unit);
        Ok(())
    }

    fn add_parts(&mut self, entry: &Entry, file: u32, size: u64, data: u64, next: u64) -> Result<(), PlanError> {
        let end = data.saturating_add(entry.compressed_size);
        if end > next {
            return Err(PlanError::Overlap { name: entry.display_name(), end, limit: next });
        }
        self.close_group();
        let stored: Vec<u32>;
        let lengths = match frames(entry) {
            Some(frames) => &frames.lengths,
            None => {
                let count = entry.size.div_ceil(size);
                stored = (0..count).map(|i| small(size.min(entry.size - i * size))).collect();
                &stored
            }
        };
        self.draft.cut(file, lengths.len(), size);
        let mut offset = data;
        for (part, len) in lengths.iter().enumerate() {
            self.push_span(offset, *len, &[Unit::Part { file, part: index(part), at: 0, len: *len }], size);
            offset += u64::from(*len);
        }
        Ok(())
    }

    fn close_group(&mut self) {
        let Some(group) = self.group.take() else { return };
        let units = group.first..index(self.draft.plan.units.len());
        self.draft.plan.spans.push(Span { offset: group.start, len: small(group.end - group.start), units });
        self.weights.push(group.weight);
    }

    fn push_span(&mut self, offset: u64, len: u32, units: &[Unit], weight: u64) {
        let first = index(self.draft.plan.units.len());
        self.draft.plan.units.extend_from_slice(units);
        self.draft.plan.spans.push(Span { offset, len, units: first..first + index(units.len()) });
        self.weights.push(weight);
    }
}

/// Lengths within a span fit 32 bits by construction.
fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
