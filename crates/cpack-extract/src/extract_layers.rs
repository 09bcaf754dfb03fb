//! Extracts layers: archives that a manifest describes, verified piece by piece and as a whole.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;

use cpack_format::manifest::{Archive, MAX_PIECE};

use crate::error::{CallerError, ExtractError, Failure, refused};
use crate::limits::{Limits, Stats};
use crate::plan::{Layout, WHOLE};
use crate::pool::{Crew, Jobs, work};
use crate::read_plan::{read_pieces, read_plan};
use crate::run::Run;
use crate::source::{BytesSource, PieceSource};

/// Layers up to this size are fetched by one request, directory and all: most of an environment's layers are small, and
/// each request has its latency.
const SMALL: u64 = 512 << 10;

/// Most bytes that may be fetched and not yet decoded: more than eight reads have in flight. More of them makes nothing
/// faster, and memory that was not used before is slow to touch.
const AHEAD: u64 = 64 << 20;

/// Neighbouring pieces are fetched as one up to this many bytes: large enough that a request to a store pays (from SeaweedFS
/// 2 GB took 0.75 of the time and of the CPU time that requests for 4 MiB took), small enough that eight of
/// them, as are in flight, fit a boot's memory several times.
const JOINED: u64 = MAX_PIECE;

/// A layer that [`extract_layers`] extracts.
#[derive(Debug)]
pub struct LayerTask<'a> {
    /// The caller's number for it.
    pub id: usize,
    /// What it is called in messages, e.g. `layer numpy 2.2.1`.
    pub name: String,
    /// Its archive, as the manifest describes it.
    pub archive: &'a Archive,
    /// Where the archive's bytes come from.
    pub source: Box<dyn PieceSource + 'a>,
    /// An empty directory that no other process uses.
    pub into: OwnedFd,
}

/// Hands out layers one after the other, and takes them back when they are complete.
///
/// Several threads call all methods at once.
pub trait Layers<'a>: Sync {
    /// The next layer, in the order of need; `None` if there is none left. A worker calls this when it has nothing else to
    /// do, so that the implementation may claim, lock and make directories at the last moment. Other workers call it again
    /// after `None`.
    fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>>;

    /// The layer `id` is complete: `unpacked` bytes, decoded from verified pieces, are written.
    fn done(&self, id: usize, unpacked: u64) -> Result<(), CallerError>;

    /// `bytes` more of the layer `id` were written: a sign of life for processes that wait for it.
    fn progress(&self, _id: usize, _bytes: u64) {}
}

/// Extracts the layers that `layers` hands out. Returns when all are complete, or after the first error.
///
/// `cancel` is read between spans, that is every few dozen milliseconds.
pub fn extract_layers<'a>(layers: &dyn Layers<'a>, limits: &Limits, cancel: &AtomicBool) -> Result<Stats, Failure> {
    let crew = if limits.fetches == 0 {
        Crew { threads: limits.workers(MAX_PIECE + 2 * WHOLE), fetchers: 0, fetched: 0, large: 0 }
    } else {
        let threads = limits.workers(3 * WHOLE);
        let fetched = limits.memory.saturating_sub(3 * WHOLE * threads as u64).min(AHEAD);
        Crew { threads, fetchers: limits.fetches, fetched, large: 0 }
    };
    work(&LayerJobs { layers, limits }, crew, cancel)
}

struct LayerJobs<'l, 'a> {
    layers: &'l dyn Layers<'a>,
    limits: &'l Limits,
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
        let failed = |source| ExtractError::Caller { archive: run.name.clone(), source };
        self.layers.done(run.id, run.plan.unpacked).map_err(failed)
    }
}

/// Reads and verifies the directory of a layer, and plans its extraction.
fn start_layer<'a>(task: LayerTask<'a>, limits: &Limits) -> Result<Run<'a>, ExtractError> {
    let LayerTask { id, name, archive, mut source, into } = task;
    let layout = Layout::new(archive).map_err(|error| refused(&name, error))?;
    if limits.fetches > 0 && archive.size <= SMALL {
        source = Box::new(BytesSource(read_pieces(&*source, &name, &layout, 0)?));
    }
    let plan = read_plan(&*source, &name, &layout, limits, JOINED)?;
    Ok(Run::new(id, name, plan, source, into, Some(layout), limits.mapped_by))
}
