//! Removes from a store the objects that no other object names and that were not used within the grace period.
//!
//! **What stays.** Names, always. A name keeps an environment and a launcher; a kept launcher keeps its environment, its overlays
//! and its executable; a kept environment keeps its layers. Everything that was written or refreshed within the grace period
//! stays too, since prune does not see the launchers that people keep outside the store: publishing refreshes what it reuses.
//!
//! **Two phases.** [`prune`] first removes objects that name others: launchers, then environments. Then it lists the store again
//! and removes layers, overlays, executables and content records that nothing names *now*. So at no instant, wherever prune is
//! killed, can a manifest be read whose layers prune removed; the next prune removes what is left.
//!
//! **A publisher at the same time.** It refreshes a layer before it relies on it, puts its manifest, then looks at the layers
//! again. It does not touch a launcher that is there, but puts a note that the launcher is in use, then looks at the launcher
//! again. Prune looks at the note of an object, then at the object's age in the moment of its removal ([`Store::remove_old`]).
//! A publisher does not refresh objects younger than a day, so a grace period of less than [`SAFE_GRACE`] is only for stores
//! that no client publishes to meanwhile.
//!
//! Ages count by the store's clock, which prune reads before it removes anything: a client with a wrong clock does no harm.

mod plan;

use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_format::job::{FILE_NAME, Job};
use cpack_format::launcher::{BOOT_NAME, TRAILER_SIZE, Trailer};
use cpack_format::manifest::{DocumentError, MAX_JSON, Manifest};
use cpack_parallel::try_map;
use cpack_store::{Key, Listed, Put, Source, Store, StoreError};

use crate::publish::{PublishError, read_name};

use plan::{KeptJob, Names, Stock};

/// The least grace period with which other clients may publish meanwhile: they do not refresh objects younger than a day, and a
/// publication takes less than another day.
pub(crate) const SAFE_GRACE: Duration = Duration::from_secs(2 * 24 * 3600);

/// Requests at the same time.
const REQUESTS: usize = 16;

/// What a prune removed and kept, or would have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// The removed objects, launchers and environments first.
    pub removed: Vec<Listed>,
    pub kept: usize,
    pub kept_bytes: u64,
    /// Unfinished uploads and temporary files of killed writers that were removed; 0 without `delete`.
    pub swept: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Name(#[from] PublishError),
    /// Nothing is removed as long as a document whose references are not known is in the store.
    #[error("{location} cannot be read, so what it needs is not known: repair it with `cluster-pack upload --repair`")]
    Document { location: String, source: DocumentError },
    #[error("{location} cannot be read, so what it needs is not known ({reason}): delete it or upload it again")]
    Launcher { location: String, reason: String },
}

/// Finds the objects in `store` that no other object names and that were not used within `grace`. Removes them if `delete` is
/// set.
pub(crate) fn prune(store: &dyn Store, grace: Duration, delete: bool) -> Result<Pruned, PruneError> {
    Pruning { store, grace, delete }.run()
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
        // Clients may have published meanwhile.
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

    /// The time by the store's clock.
    fn store_clock(&self) -> Result<SystemTime, PruneError> {
        let key = Key::content(&Digest::of(b"what time is it?"));
        self.store.put(&key, Source::Bytes(b"{}"), Put::Replace)?;
        let stat = self.store.stat(&key)?;
        self.store.delete(&key)?;
        // Another prune may have removed the object. The earlier of two clocks keeps more.
        Ok(stat.map_or(SystemTime::UNIX_EPOCH, |stat| stat.modified).min(SystemTime::now()))
    }

    fn names(&self) -> Result<Names, PruneError> {
        let listed = self.store.list("names")?;
        let names = listed.iter().filter_map(|l| l.key.as_str().strip_prefix("names/")?.strip_suffix(".json"));
        let names: Vec<&str> = names.collect();
        let records = try_map(REQUESTS, &names, |name| read_name(self.store, name))?;
        Ok(Names::of(records.into_iter().flatten()))
    }

    fn jobs(&self, launchers: &[Listed]) -> Result<Vec<KeptJob>, PruneError> {
        Ok(try_map(REQUESTS, launchers, |launcher| self.job(launcher))?.into_iter().flatten().collect())
    }

    /// Reads the job of a launcher. `None` if the launcher is gone, or carries no job.
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

    /// Reads the manifests of the environments that stay.
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
        Ok(try_map(REQUESTS, &keys, read)?.into_iter().flatten().collect())
    }

    /// Removes those of `old` that are still old. Returns what it removed, or would have without `delete`.
    fn remove(&self, old: &[Listed], before: SystemTime) -> Result<Vec<Listed>, PruneError> {
        if !self.delete {
            return Ok(old.to_vec());
        }
        let remove = |listed: &Listed| -> Result<Option<Listed>, StoreError> {
            // Launchers and executables are not refreshed, since YARN looks at their time: they have a note instead.
            let is_noted = |key: &Key| -> Result<bool, StoreError> {
                Ok(Stock::has_notes(key) && self.store.stat(&key.in_use())?.is_some_and(|note| note.modified >= before))
            };
            let goes = !is_noted(&listed.key)? && self.store.remove_old(&listed.key, before)?;
            Ok(goes.then(|| listed.clone()))
        };
        Ok(try_map(REQUESTS, old, remove)?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests;
