//! Removing from a store what nothing names and nobody used for long.
//!
//! **What is kept.** Names, always. What they name: an environment and a launcher. What a kept launcher names: its
//! environment, its overlays and its executable. What a kept environment names: its layers. And whatever was written or
//! refreshed within the grace period, since launchers that people keep elsewhere are not seen here: publishing refreshes
//! what it reuses.
//!
//! **Two phases.** First what names others goes, launchers and environments; then the store is looked at anew, and layers,
//! overlays and content records go that nothing names *now*. So there is no instant at which a manifest can be read whose
//! layers this took, wherever it is killed: what is left then is taken by the next one.
//!
//! **A publisher beside it** refreshes a layer before it relies on it, and looks again after its manifest was written; of a
//! launcher it notes that it is used, and looks then. Each object is looked at once more in the moment of its removal
//! ([`Store::remove_old`]), and so is the note about it. A publisher does not refresh what
//! is younger than a day, so a grace period of less than [`SAFE_GRACE`] is for stores that nobody publishes to meanwhile.
//!
//! Ages are by the store's clock, which is asked before anything is removed: a client whose clock is wrong does no harm.

mod plan;

use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_format::job::{FILE_NAME, Job};
use cpack_format::launcher::{BOOT_NAME, TRAILER_SIZE, Trailer};
use cpack_format::manifest::{DocumentError, MAX_JSON, Manifest};
use cpack_store::{Key, Listed, Put, Source, Store, StoreError};
use rayon::prelude::*;

use crate::publish::{NameRecord, PublishError, read_name};

use plan::{KeptJob, Names, Stock};

/// The least grace period with which others may publish meanwhile: what is younger than a day is not refreshed, and a
/// publication takes less than another.
pub const SAFE_GRACE: Duration = Duration::from_secs(2 * 24 * 3600);

/// Requests that are waited for at once.
const REQUESTS: usize = 16;

/// What became of a store, or would have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What was removed, or would have been, launchers and environments first.
    pub removed: Vec<Listed>,
    /// Objects that stay.
    pub kept: usize,
    /// Bytes of objects that stay.
    pub kept_bytes: u64,
    /// What killed writers had left: unfinished uploads, temporary files. Counted only where something is removed.
    pub swept: usize,
}

/// Why a store was not pruned, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name.
    #[error(transparent)]
    Name(#[from] PublishError),
    /// A document whose references are not known: nothing is removed as long as it is there.
    #[error("{location} cannot be read, so what it needs is not known: repair it with `cluster-pack upload --repair`")]
    Document {
        /// Its URI.
        location: String,
        /// Why.
        source: DocumentError,
    },
    /// A launcher whose job is not known.
    #[error("{location} cannot be read, so what it needs is not known ({reason}): delete it or upload it again")]
    Launcher {
        /// Its URI.
        location: String,
        /// Why.
        reason: String,
    },
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Looks what in `store` nothing names and nobody used within `grace`, and removes it if `delete` says so.
pub fn prune(store: &dyn Store, grace: Duration, delete: bool) -> Result<Pruned, PruneError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(REQUESTS).build()?;
    pool.install(|| Pruning { store, grace, delete }.run())
}

struct Pruning<'a> {
    store: &'a dyn Store,
    grace: Duration,
    delete: bool,
}

impl Pruning<'_> {
    fn run(&self) -> Result<Pruned, PruneError> {
        let now = if self.delete { self.store_clock()? } else { SystemTime::now() };
        let before = now.checked_sub(self.grace).unwrap_or(SystemTime::UNIX_EPOCH);
        let names = self.names()?;
        let mut stock = Stock::look(self.store)?;
        let launchers = stock.old_launchers(&names, before);
        let mut removed = self.remove(&launchers, before)?;
        stock.without(&removed);
        let jobs = self.jobs(&stock.launchers)?;
        let environments = stock.old_environments(&names, &jobs, before);
        let gone = self.remove(&environments, before)?;
        stock.without(&gone);
        removed.extend(gone);
        // What was published meanwhile counts.
        let (names, jobs) = if self.delete {
            stock = Stock::look(self.store)?;
            (self.names()?, self.jobs(&stock.launchers)?)
        } else {
            (names, jobs)
        };
        let manifests = self.manifests(&stock.environments, &names)?;
        let rest = self.remove(&stock.old_content(&manifests, &jobs, before), before)?;
        stock.without(&rest);
        removed.extend(rest);
        let swept = if self.delete { self.store.sweep(before)? } else { 0 };
        let (kept, kept_bytes) = stock.size();
        Ok(Pruned { removed, kept, kept_bytes, swept })
    }

    /// The time by the store's clock, which the ages of its objects are by.
    fn store_clock(&self) -> Result<SystemTime, PruneError> {
        let key = Key::content(&Digest::of(b"what time is it?"));
        self.store.put(&key, Source::Bytes(b"{}"), Put::Replace)?;
        let stat = self.store.stat(&key)?;
        self.store.delete(&key)?;
        // Whoever prunes at the same time may have removed it: the earlier of two clocks keeps more.
        Ok(stat.map_or(SystemTime::UNIX_EPOCH, |stat| stat.modified).min(SystemTime::now()))
    }

    fn names(&self) -> Result<Names, PruneError> {
        let listed = self.store.list("names")?;
        let names = listed.iter().filter_map(|l| l.key.as_str().strip_prefix("names/")?.strip_suffix(".json"));
        let names: Vec<&str> = names.collect();
        let records: Result<Vec<Option<NameRecord>>, PublishError> =
            names.par_iter().map(|name| read_name(self.store, name)).collect();
        Ok(Names::of(records?.into_iter().flatten()))
    }

    fn jobs(&self, launchers: &[Listed]) -> Result<Vec<KeptJob>, PruneError> {
        let jobs: Result<Vec<Option<KeptJob>>, PruneError> = launchers.par_iter().map(|l| self.job(l)).collect();
        Ok(jobs?.into_iter().flatten().collect())
    }

    /// The job of a launcher. None if it is gone, or carries none.
    fn job(&self, launcher: &Listed) -> Result<Option<KeptJob>, PruneError> {
        let location = || self.store.uri().join(launcher.key.as_str());
        let unreadable = |reason: String| PruneError::Launcher { location: location(), reason };
        let read = |offset: u64, len: u64| {
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            match self.store.read_range(&launcher.key, offset, &mut bytes) {
                Err(e) if e.is_not_found() => Ok(None),
                result => result.map(|()| Some(bytes)),
            }
        };
        let size = launcher.stat.size;
        let tail = size.min(TRAILER_SIZE as u64);
        let Some(tail) = read(size - tail, tail)? else { return Ok(None) };
        let Some(trailer) = Trailer::read(&tail, size).map_err(|e| unreadable(e.to_string()))? else { return Ok(None) };
        let Some(appended) = read(trailer.start, trailer.size)? else { return Ok(None) };
        let opened = trailer.open(&appended).map_err(|e| unreadable(e.to_string()))?;
        let job = opened.file(FILE_NAME).ok_or_else(|| unreadable("it has no job".to_owned()))?;
        let job = Job::parse(job).map_err(|source| PruneError::Document { location: location(), source })?;
        let hex = opened.file(BOOT_NAME).map(String::from_utf8_lossy);
        let boot =
            hex.map(|hex| hex.parse()).transpose().map_err(|_| unreadable("it names no executable".to_owned()))?;
        Ok(Some(KeptJob { job, boot }))
    }

    /// The manifests of the environments that are kept.
    fn manifests(&self, environments: &[Listed], names: &Names) -> Result<Vec<Manifest>, PruneError> {
        let listed = environments.iter().map(|listed| listed.key.clone());
        // A name may be newer than the listing.
        let mut keys: Vec<Key> = listed.chain(names.environments.iter().cloned()).collect();
        keys.sort_unstable();
        keys.dedup();
        let read = |key: &Key| match self.store.read(key, MAX_JSON) {
            Ok(bytes) => {
                let location = self.store.uri().join(key.as_str());
                Manifest::parse(&bytes).map(Some).map_err(|source| PruneError::Document { location, source })
            }
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.into()),
        };
        let manifests: Result<Vec<Option<Manifest>>, PruneError> = keys.par_iter().map(read).collect();
        Ok(manifests?.into_iter().flatten().collect())
    }

    /// Removes those of `old` that are still old. Those that were removed, or would have been.
    fn remove(&self, old: &[Listed], before: SystemTime) -> Result<Vec<Listed>, PruneError> {
        if !self.delete {
            return Ok(old.to_vec());
        }
        let remove = |listed: &Listed| -> Result<Option<Listed>, StoreError> {
            // What is not refreshed, since YARN looks at its time, has a note instead.
            let is_noted = |key: &Key| -> Result<bool, StoreError> {
                Ok(Stock::has_notes(key) && self.store.stat(&key.in_use())?.is_some_and(|note| note.modified >= before))
            };
            let goes = !is_noted(&listed.key)? && self.store.remove_old(&listed.key, before)?;
            Ok(goes.then(|| listed.clone()))
        };
        let removed: Result<Vec<Option<Listed>>, StoreError> = old.par_iter().map(remove).collect();
        Ok(removed?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
