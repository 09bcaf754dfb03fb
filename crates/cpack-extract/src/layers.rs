//! Layers: archives that a manifest describes, verified piece by piece and as a whole.

use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cpack_format::Digest;
use cpack_format::manifest::{Archive, MAX_PIECE};
use cpack_format::zip::{read_directory, read_end};

use super::error::{ExtractError, Failure, refused, zip_error};
use super::plan::{Layout, PlanError, WHOLE, plan_layer};
use super::pool::{Crew, Jobs, work};
use super::run::{Check, Run, lock};
use super::source::verify;
use super::source::{BytesSource, PieceSource};
use super::{CallerError, Limits, Stats, Totals, check_directory_size};

/// Layers up to this size are fetched by one request, directory and all: most of an environment's layers are small, and
/// each request has its latency.
const SMALL: u64 = 512 << 10;

/// Bytes that may be fetched and not yet decoded, however much memory there is: more than eight reads have in flight. What
/// waits beyond them makes nothing faster, and memory that nobody used before is slow to touch.
const AHEAD: u64 = 64 << 20;

/// A layer to be extracted.
#[derive(Debug)]
pub struct LayerTask<'a> {
    /// The caller's number for it.
    pub id: usize,
    /// What it is called in messages, e.g. `layer numpy 2.2.1`.
    pub name: String,
    /// Its archive, as the manifest describes it.
    pub archive: &'a Archive,
    /// What its content must be.
    pub content: Digest,
    /// Where the archive's bytes come from.
    pub source: Box<dyn PieceSource + 'a>,
    /// An empty directory that nobody else uses.
    pub into: OwnedFd,
}

/// Layers that are handed out one after the other, and taken back when they are complete.
///
/// All methods are called from several threads at once.
pub trait Layers<'a>: Sync {
    /// The next layer, in the order of need. It is asked for when a worker has nothing else to do, so that the caller
    /// may claim, lock and make directories at the last moment. None when there is none left; it is asked again.
    fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>>;

    /// The layer `id` is complete: its tree is whole and its content verified.
    fn done(&self, id: usize, stats: Stats) -> Result<(), CallerError>;

    /// This many more bytes of the layer `id` were written: a sign of life for whoever waits.
    fn progress(&self, _id: usize, _bytes: u64) {}
}

/// Extracts layers that are handed out one by one. Returns when all are complete, or after the first error.
///
/// `cancel` is looked at between spans, that is every few dozen milliseconds.
pub fn extract<'a>(layers: &dyn Layers<'a>, limits: &Limits, cancel: &AtomicBool) -> Result<Stats, Failure> {
    let jobs = LayerJobs { layers, limits, totals: Totals::default() };
    let crew = if limits.fetches == 0 {
        Crew { threads: limits.workers(MAX_PIECE + WHOLE), fetchers: 0, fetched: 0, large: 0 }
    } else {
        let threads = limits.workers(2 * WHOLE);
        let fetched = limits.memory.saturating_sub(2 * WHOLE * threads as u64).min(AHEAD);
        Crew { threads, fetchers: limits.fetches, fetched, large: 0 }
    };
    let packed = work(&jobs, crew, cancel)?;
    Ok(jobs.totals.stats(packed))
}

/// Extracts `tasks`, in their order, calling `on_done` for each that is complete.
pub fn extract_layers<'a>(
    tasks: Vec<LayerTask<'a>>,
    limits: &Limits,
    cancel: &AtomicBool,
    on_done: &(dyn Fn(usize, Stats) -> Result<(), CallerError> + Sync),
) -> Result<Stats, Failure> {
    struct Listed<'l, 'a> {
        tasks: Mutex<std::vec::IntoIter<LayerTask<'a>>>,
        on_done: &'l (dyn Fn(usize, Stats) -> Result<(), CallerError> + Sync),
    }
    impl<'a> Layers<'a> for Listed<'_, 'a> {
        fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>> {
            lock(&self.tasks).next().map(Ok)
        }
        fn done(&self, id: usize, stats: Stats) -> Result<(), CallerError> {
            (self.on_done)(id, stats)
        }
    }
    extract(&Listed { tasks: Mutex::new(tasks.into_iter()), on_done }, limits, cancel)
}

struct LayerJobs<'l, 'a> {
    layers: &'l dyn Layers<'a>,
    limits: &'l Limits,
    totals: Totals,
}

impl<'a> Jobs<'a> for LayerJobs<'_, 'a> {
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>> {
        let task = self.layers.next()?;
        let task = task.map_err(|source| ExtractError::Caller { archive: "the next layer".into(), source });
        Some(task.and_then(|task| start_layer(task, self.limits)))
    }

    fn progress(&self, run: &Run<'a>, bytes: u64) {
        self.layers.progress(run.id, bytes);
    }

    fn done(&self, run: &Run<'a>) -> Result<(), ExtractError> {
        let stats = Stats::of(run);
        self.totals.add(stats);
        let failed = |source| ExtractError::Caller { archive: run.name.clone(), source };
        self.layers.done(run.id, stats).map_err(failed)
    }
}

/// Reads the directory of a layer, verified, and plans.
fn start_layer<'a>(task: LayerTask<'a>, limits: &Limits) -> Result<Run<'a>, ExtractError> {
    let LayerTask { id, name, archive, content, mut source, into } = task;
    let refuse = |error| refused(&name, error);
    let layout = Layout::new(archive).map_err(refuse)?;
    if limits.fetches > 0 && archive.size <= SMALL {
        source = Box::new(BytesSource(read_pieces(&*source, &name, archive, &layout, 0)?));
    }
    check_directory_size(archive.size.saturating_sub(archive.directory)).map_err(refuse)?;
    let tail = read_pieces(&*source, &name, archive, &layout, archive.directory)?;
    let end = read_end(&tail, archive.size).map_err(|e| zip_error(&name, e))?;
    if end.directory_offset != archive.directory {
        let (expected, found) = (archive.directory, end.directory_offset);
        return Err(refuse(PlanError::Manifest { what: "as the offset of the directory", expected, found }));
    }
    let records = tail.get(..usize::try_from(end.directory_size).unwrap_or(usize::MAX)).unwrap_or_default();
    let entries = read_directory(records, &end).map_err(|e| zip_error(&name, e))?;
    drop(tail);
    let plan = plan_layer(entries, &layout, limits).map_err(refuse)?;
    Ok(Run::new(id, name, plan, source, into, Check::Layer { archive, layout, content }))
}

/// Reads the archive from `start` on, where a piece starts, as one and verified.
fn read_pieces(
    source: &dyn PieceSource,
    name: &str,
    archive: &Archive,
    layout: &Layout<'_>,
    start: u64,
) -> Result<Vec<u8>, ExtractError> {
    let mut bytes = vec![0; usize::try_from(archive.size.saturating_sub(start)).unwrap_or(usize::MAX)];
    let event = cpack_events::span("fetch", || format!("{name} at {start}")).of(bytes.len() as u64);
    source.read(start, &mut bytes).map_err(|source| ExtractError::Read { archive: name.to_owned(), source })?;
    drop(event);
    let _event = cpack_events::span("verify", || format!("{name} at {start}")).of(bytes.len() as u64);
    let (mut rest, mut offset) = (bytes.as_mut_slice(), start);
    for piece in archive.pieces.iter().skip(layout.piece_at(start).unwrap_or(archive.pieces.len())) {
        let (bytes, others) = rest.split_at_mut(rest.len().min(piece.size as usize));
        verify(source, name, offset, &piece.digest, bytes)?;
        rest = others;
        offset += u64::from(piece.size);
    }
    Ok(bytes)
}
