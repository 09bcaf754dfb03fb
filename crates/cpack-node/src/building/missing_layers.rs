//! The layers that an environment needs: missing ones are extracted, those of another boot are checked, and those that
//! other processes build are waited for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cpack_extract::{
    CallerError, ExtractError, Failure, FileSource, LayerTask, Layers, PieceSource, StoreSource, extract_layers,
};
use cpack_fault::point;
use cpack_format::manifest::{Layer, LayerKind};
use cpack_store::{Store, StoreError};

use super::waiting::Pauses;
use super::{BuildError, Means};
use crate::cache::{Cache, Claimed, LayerState, StagedLayer, Staging, Wanted, Watched, content_of, seal_directories};
use crate::timing::{Counts, Phase, Timing};

/// How many layers of other processes each look checks: other processes build in about the same order as this one.
const LOOKED_AT: usize = 4;

/// Makes sure that all `layers`, in this order of need, are in `cache`.
///
/// Another process's clean-up may remove a layer as soon as this returns. Callers must handle a missing layer, usually by
/// calling this again.
pub fn ensure_layers(
    cache: &Cache,
    layers: &[&Layer],
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<(), BuildError> {
    let is_ready = |layer: &&&Layer| cache.layer_state(**layer) == LayerState::Ready;
    let (ready, missing): (Vec<&Layer>, Vec<&Layer>) = layers.iter().partition(is_ready);
    ready.iter().for_each(|layer| cache.touch_layer(&layer.content));
    timing.counts.reused += ready.len() as u64;
    timing.counts.saved += layers.iter().map(|layer| layer.archive.size).sum::<u64>();
    if missing.is_empty() {
        return Ok(());
    }
    let staging = cache.staging().map_err(|e| BuildError::cache(cache, e))?;
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

/// The layers of one start on their way from missing to complete.
struct Building<'a> {
    cache: &'a Cache,
    layers: &'a [&'a Layer],
    means: &'a Means<'a>,
    staging: &'a Staging,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Layers to look at, in the order of need.
    queue: VecDeque<usize>,
    /// Layers that this process extracts.
    in_work: HashMap<usize, (Claimed, StagedLayer)>,
    /// Layers that other processes build.
    theirs: VecDeque<(usize, Watched)>,
    /// Layers to build here although another process holds the claim: it makes no progress.
    taken_over: HashSet<usize>,
    /// Why a layer could not be begun or committed.
    error: Option<BuildError>,
    /// Archive bytes of the layers that this process built.
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
            let stats = stats.map_err(|failure| self.build_error(failure))?;
            timing.counts.fetched += stats.packed;
            timing.counts.written += stats.unpacked;
            let waited = self.wait();
            timing.mark(Phase::Wait);
            if waited? == 0 {
                return Ok(());
            }
        }
    }

    fn build_error(&self, failure: Failure) -> BuildError {
        if let Some(error) = self.lock().error.take() {
            return error;
        }
        match failure.first() {
            ExtractError::Stopped => self.means.stopped(),
            _ => BuildError::Extract(Box::new(failure)),
        }
    }

    /// Waits until this process has layers to build, and returns how many: 0 when all layers are complete.
    fn wait(&self) -> Result<usize, BuildError> {
        let _event = cpack_events::span("wait", || "layers of other processes".into());
        let mut pauses = Pauses::new();
        loop {
            let mut state = self.lock();
            self.look_at_theirs(&mut state);
            if state.theirs.is_empty() || !state.queue.is_empty() {
                return Ok(state.queue.len());
            }
            drop(state);
            pauses.sleep(self.means)?;
        }
    }

    /// Takes the layers that other processes completed off the list, and queues those whose builder gave up or makes no
    /// progress.
    fn look_at_theirs(&self, state: &mut State) {
        let mut kept = VecDeque::new();
        let mut looked_at = 0;
        while let Some((index, mut watched)) = state.theirs.pop_front() {
            let Some(layer) = self.layers.get(index) else { continue };
            if self.cache.layer_state(*layer) == LayerState::Ready {
                state.counts.waited += 1;
                continue;
            }
            if watched.is_stalled(self.means.stall_timeout) {
                state.taken_over.insert(index);
                state.queue.push_back(index);
            } else if self.cache.claim(&layer.content.to_hex()).is_some() {
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

    /// Looks at one layer, and claims it if it is missing.
    fn attempt(&self, index: usize, layer: &'a Layer) -> Result<Attempt<'a>, BuildError> {
        let failed = |e| BuildError::cache(self.cache, e);
        let name = layer.content.to_hex();
        let claimed = match self.cache.claim(&name) {
            Some(claimed) => claimed,
            None if self.lock().taken_over.contains(&index) => Claimed::without_lock(),
            None => return Ok(Attempt::Theirs(self.cache.watch(&name))),
        };
        point("layer.claimed").map_err(failed)?;
        match self.cache.layer_state(layer) {
            LayerState::Ready => return Ok(Attempt::Complete(|counts| counts.waited += 1)),
            LayerState::Unchecked => {
                let progress = || claimed.progress();
                if self.cache.check_layer(&layer.content, 1, &progress, self.staging).map_err(failed)? {
                    return Ok(Attempt::Complete(|counts| counts.checked += 1));
                }
            }
            LayerState::Missing => {}
        }
        let source = layer_source(self.means.store, layer)?;
        let wanted = if is_of_the_job(layer) { Wanted::with_content(layer.content) } else { layer.into() };
        let staged = Cache::stage_layer(self.staging, wanted).map_err(failed)?;
        let into = OwnedFd::from(File::open(staged.files()).map_err(failed)?);
        self.lock().in_work.insert(index, (claimed, staged));
        let (name, archive) = (layer_title(layer), &layer.archive);
        Ok(Attempt::Build(Box::new(LayerTask { id: index, name, archive, source, into })))
    }

    /// Commits an extracted layer and gives its claim back.
    fn commit(&self, id: usize, unpacked: u64) -> io::Result<()> {
        let Some((claimed, staged)) = self.lock().in_work.remove(&id) else { return Ok(()) };
        point("layer.extracted")?;
        if let Some(layer) = self.layers.get(id).filter(|layer| is_of_the_job(layer))
            && content_of(staged.files(), 1, &|| claimed.progress())? != layer.content
        {
            self.lock().error = Some(BuildError::Content(layer_title(layer)));
            return Err(io::ErrorKind::InvalidData.into());
        }
        seal_directories(staged.files())?;
        // If another process committed it first, this copy goes with the staging directory.
        self.cache.commit_layer(&staged, unpacked)?;
        drop(claimed);
        let mut state = self.lock();
        state.counts.built += 1;
        state.built += self.layers.get(id).map_or(0, |layer| layer.archive.size);
        Ok(())
    }
}

/// Whether a layer is a job's own. Its content is checked, not only its archive: what a job runs is named by its content.
const fn is_of_the_job(layer: &Layer) -> bool {
    matches!(layer.kind, LayerKind::Overlay | LayerKind::Payload)
}

/// The result of [`Building::attempt`].
enum Attempt<'a> {
    Complete(fn(&mut Counts)),
    Theirs(Watched),
    Build(Box<LayerTask<'a>>),
}

impl<'a> Layers<'a> for Building<'a> {
    fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>> {
        loop {
            // `attempt` runs without the lock: checking a large layer takes seconds, and other workers go on.
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
        Ok(self.commit(id, unpacked)?)
    }

    fn progress(&self, id: usize, _bytes: u64) {
        if let Some((claimed, _)) = self.lock().in_work.get(&id) {
            claimed.progress();
        }
    }
}

/// Where a layer's bytes come from: straight from the file if the store is a directory.
pub fn layer_source<'a>(store: &'a dyn Store, layer: &Layer) -> Result<Box<dyn PieceSource + 'a>, StoreError> {
    let key = layer.key();
    Ok(match store.local_path(&key) {
        Some(path) => match FileSource::open(&path) {
            Ok((source, _)) => Box::new(source),
            // The store's own error names the object and what to do.
            Err(error) => return Err(store.read(&key, 0).err().unwrap_or(error)),
        },
        None => Box::new(StoreSource::new(store, key)),
    })
}

/// What a layer is called in messages.
pub fn layer_title(layer: &Layer) -> String {
    match layer.version.as_str() {
        "" => format!("layer {}", layer.name),
        version => format!("layer {} {version}", layer.name),
    }
}

/// Layers in the order in which they are built: needed first, then longest.
pub fn in_order<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Vec<&'a Layer> {
    let mut layers: Vec<_> = layers.into_iter().collect();
    layers.sort_by_key(|layer| (layer.rank, std::cmp::Reverse(layer.archive.unpacked), layer.content));
    layers.dedup_by_key(|layer| layer.content);
    layers
}

#[cfg(test)]
mod tests {
    use cpack_format::Digest;
    use cpack_format::manifest::Archive;

    use super::*;

    fn layer(name: &str, rank: u32, unpacked: u64) -> Layer {
        let digest = Digest::of(name.as_bytes());
        Layer {
            rank,
            ..Layer::new(LayerKind::Distribution, name.into(), digest, Archive { unpacked, ..Archive::named(digest) })
        }
    }

    #[test]
    fn the_needed_first_then_the_longest() {
        let layers = [layer("small", 1, 1), layer("late", 2, 99), layer("large", 1, 50), layer("small", 1, 1)];
        let names: Vec<_> = in_order(&layers).iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["large", "small", "late"]);
    }
}
