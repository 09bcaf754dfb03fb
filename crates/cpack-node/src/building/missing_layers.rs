//! Layers that are missing are extracted, those of another boot are checked, those that others build are waited for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cpack_extract::{CallerError, ExtractError, Failure, LayerTask, Layers, extract_layers};
use cpack_fault::point;
use cpack_format::manifest::Layer;

use super::{BuildError, GLANCES, Means, cache_error, source, title};
use crate::cache::{Cache, Claim, Claimed, LayerState, StagedLayer, Staging, Watched, seal_directories};
use crate::timing::{Counts, Phase, Timing};

/// How many layers of other processes are looked at each time: they are built in about the same order as here.
const LOOKED_AT: usize = 4;

/// Makes sure that all `layers`, in this order of need, are in `cache`.
///
/// Each was seen complete at some time; whoever uses one later must be ready for its having been cleaned up meanwhile.
pub fn ensure_layers(
    cache: &Cache,
    layers: &[&Layer],
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<(), BuildError> {
    let is_ready = |layer: &&&Layer| cache.layer_state(&layer.content) == LayerState::Ready;
    let (ready, missing): (Vec<&Layer>, Vec<&Layer>) = layers.iter().partition(is_ready);
    ready.iter().for_each(|layer| cache.touch_layer(&layer.content));
    timing.counts.reused += ready.len() as u64;
    timing.counts.saved += layers.iter().map(|layer| layer.archive.size).sum::<u64>();
    if missing.is_empty() {
        return Ok(());
    }
    let staging = cache.staging().map_err(|e| cache_error(cache, e))?;
    let queue = (0..missing.len()).collect();
    let building = Building {
        cache,
        layers: &missing,
        means,
        staging: &staging,
        state: Mutex::new(State { queue, ..State::default() }),
    };
    let result = building.run(timing);
    let State { counts, built, .. } = &*building.lock();
    timing.counts.saved -= built;
    timing.counts.waited += counts.waited;
    timing.counts.built += counts.built;
    timing.counts.checked += counts.checked;
    result
}

/// Layers of one start on their way from missing to complete.
struct Building<'a> {
    cache: &'a Cache,
    layers: &'a [&'a Layer],
    means: &'a Means<'a>,
    staging: &'a Staging,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// To be looked at, in the order of need.
    queue: VecDeque<usize>,
    /// In work here.
    in_work: HashMap<usize, (Claimed, StagedLayer)>,
    /// Built by others.
    theirs: VecDeque<(usize, Watched)>,
    /// To be built here although others hold the claim: they stand still.
    taken_over: HashSet<usize>,
    /// Why a layer could not be begun or published.
    error: Option<BuildError>,
    /// Archive bytes of what was built here.
    built: u64,
    counts: Counts,
}

impl<'a> Building<'a> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, timing: &mut Timing) -> Result<(), BuildError> {
        loop {
            let stats = extract_layers(self, &self.means.limits(), self.means.stop.flag());
            timing.mark(Phase::Extract);
            let stats = stats.map_err(|failure| self.in_own_words(failure))?;
            timing.counts.fetched += stats.packed;
            timing.counts.written += stats.unpacked;
            let waited = self.wait();
            timing.mark(Phase::Wait);
            if waited? == 0 {
                return Ok(());
            }
        }
    }

    fn in_own_words(&self, failure: Failure) -> BuildError {
        if let Some(error) = self.lock().error.take() {
            return error;
        }
        match failure.first() {
            ExtractError::Stopped => BuildError::Stopped(self.means.stop.reason()),
            _ => BuildError::Extract(Box::new(failure)),
        }
    }

    /// Waits until there is something to do here. How much: nothing when all layers are complete.
    fn wait(&self) -> Result<usize, BuildError> {
        let _event = cpack_events::span("wait", || "layers of other processes".into());
        let mut pause = GLANCES.0;
        loop {
            let mut state = self.lock();
            self.look_at_theirs(&mut state);
            if state.theirs.is_empty() || !state.queue.is_empty() {
                return Ok(state.queue.len());
            }
            drop(state);
            if self.means.stop.is_set() {
                return Err(BuildError::Stopped(self.means.stop.reason()));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(GLANCES.1);
        }
    }

    /// Sorts out what others completed, and queues what they gave up or stand still with.
    fn look_at_theirs(&self, state: &mut State) {
        let mut kept = VecDeque::new();
        let mut looked_at = 0;
        while let Some((index, mut watched)) = state.theirs.pop_front() {
            let Some(layer) = self.layers.get(index) else { continue };
            if self.cache.layer_state(&layer.content) == LayerState::Ready {
                state.counts.waited += 1;
                continue;
            }
            if watched.is_stalled(self.means.stall_timeout) {
                state.taken_over.insert(index);
                state.queue.push_back(index);
            } else if matches!(self.cache.claim(&layer.content.to_hex()), Claim::Ours(_)) {
                state.queue.push_back(index);
            } else {
                kept.push_back((index, watched));
                looked_at += 1;
            }
            if looked_at == LOOKED_AT {
                break;
            }
        }
        kept.append(&mut state.theirs);
        state.theirs = kept;
    }

    /// Looks at one layer, and claims it where it is missing.
    fn attempt(&self, index: usize, layer: &'a Layer) -> Result<Attempt<'a>, BuildError> {
        let failed = |e| cache_error(self.cache, e);
        let name = layer.content.to_hex();
        let claimed = match self.cache.claim(&name) {
            Claim::Ours(claimed) => claimed,
            Claim::Theirs if self.lock().taken_over.contains(&index) => Claimed::without_lock(),
            Claim::Theirs => return Ok(Attempt::Theirs(self.cache.watch(&name))),
        };
        point("layer.claimed").map_err(failed)?;
        match self.cache.layer_state(&layer.content) {
            LayerState::Ready => return Ok(Attempt::Complete(|counts| counts.waited += 1)),
            LayerState::Unchecked => {
                let progress = || claimed.progress();
                if self.cache.check_layer(&layer.content, 1, &progress, self.staging).map_err(failed)? {
                    return Ok(Attempt::Complete(|counts| counts.checked += 1));
                }
            }
            LayerState::Missing => {}
        }
        let source = source(self.means.store, layer)?;
        let staged = Cache::stage_layer(self.staging, &layer.content).map_err(failed)?;
        let into = OwnedFd::from(File::open(staged.files()).map_err(failed)?);
        self.lock().in_work.insert(index, (claimed, staged));
        let (archive, content) = (&layer.archive, layer.content);
        Ok(Attempt::Build(Box::new(LayerTask { id: index, name: title(layer), archive, content, source, into })))
    }

    /// Publishes a layer that was extracted. Its claim ends with that.
    fn publish(&self, id: usize, unpacked: u64) -> io::Result<()> {
        let Some((claimed, staged)) = self.lock().in_work.remove(&id) else { return Ok(()) };
        point("layer.extracted")?;
        seal_directories(staged.files())?;
        // Another process may have published it: this one's is then discarded with the staging directory.
        self.cache.publish_layer(&staged, unpacked)?;
        drop(claimed);
        let mut state = self.lock();
        state.counts.built += 1;
        state.built += self.layers.get(id).map_or(0, |layer| layer.archive.size);
        Ok(())
    }
}

/// What became of a look at a layer.
enum Attempt<'a> {
    Complete(fn(&mut Counts)),
    Theirs(Watched),
    Build(Box<LayerTask<'a>>),
}

impl<'a> Layers<'a> for Building<'a> {
    fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>> {
        loop {
            // Not locked while it is looked at: a check of a large layer takes seconds, and others go on.
            let index = self.lock().queue.pop_front()?;
            let layer = self.layers.get(index)?;
            match self.attempt(index, layer) {
                Ok(Attempt::Complete(count)) => count(&mut self.lock().counts),
                Ok(Attempt::Theirs(watched)) => self.lock().theirs.push_back((index, watched)),
                Ok(Attempt::Build(task)) => return Some(Ok(*task)),
                Err(error) => {
                    self.lock().error = Some(error);
                    return Some(Err("it could not be begun".into()));
                }
            }
        }
    }

    fn done(&self, id: usize, unpacked: u64) -> Result<(), CallerError> {
        Ok(self.publish(id, unpacked)?)
    }

    fn progress(&self, id: usize, _bytes: u64) {
        if let Some((claimed, _)) = self.lock().in_work.get(&id) {
            claimed.progress();
        }
    }
}
