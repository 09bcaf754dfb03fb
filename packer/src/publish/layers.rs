//! Layers: recognised, packed where they must be, and sent where the store lacks them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cpack_artifact::manifest::{Archive, Layer, LayerKind, MAX_JSON};
use cpack_artifact::store::{Key, Put, Source, Stat, Store, StoreErrorKind, Watcher, Written};
use cpack_artifact::{Digest, events};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Outcome, PublishError, step};
use crate::cache::{ClientCache, Facts, Packed};
use crate::layer::{Entry, write_layer};

/// What is reused is refreshed when it is older than this, well below the grace period of a prune: refreshing at each
/// upload would cost one request per layer.
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Threads beside those that pack where a store is on the network: they wait for answers and send.
const SENDERS: usize = 6;

/// Makes the entries of a layer when they are needed, with what was learned from them.
pub type MakeEntries<'a> = Box<dyn Fn() -> Result<(Vec<Entry>, Facts), crate::layer::LayerError> + Send + Sync + 'a>;

/// A layer that should be in the store.
pub struct Planned<'a> {
    /// What it holds.
    pub kind: LayerKind,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Top-level names that can be imported from it.
    pub imports: Vec<String>,
    /// Identifies its files by their stat data; none where they must be read each time.
    pub fingerprint: Option<Digest>,
    /// Bytes of its files, or about: the largest are packed first.
    pub size: u64,
    /// Its entries.
    pub entries: MakeEntries<'a>,
}

impl fmt::Debug for Planned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Planned({} {}, {} bytes)", self.name, self.version, self.size)
    }
}

/// Which archive carries a content: `contents/<content>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct ContentRecord {
    format: u32,
    archive: Archive,
}

/// Sends layers to one store.
#[derive(Debug)]
pub struct Publisher<'a> {
    /// Where to.
    pub store: &'a dyn Store,
    /// What this client remembers.
    pub cache: &'a ClientCache,
    /// zstd level.
    pub level: i32,
    /// Verify what the store has by its digest, and replace what is damaged.
    pub repair: bool,
    /// Is told the bytes that go over the network.
    pub sending: Watcher<'a>,
}

impl Publisher<'_> {
    /// Makes sure that the store has `planned`, in parallel, the largest first. `progress` is told the bytes of files
    /// that are done with.
    pub fn publish(
        &self,
        planned: &[Planned<'_>],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<Outcome>, PublishError> {
        let mut order: Vec<usize> = (0..planned.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(planned.get(*i).map_or(0, |p| p.size)));
        let publish = || -> Result<Vec<(usize, Outcome)>, PublishError> {
            order
                .into_par_iter()
                .with_max_len(1)
                .filter_map(|i| Some((i, planned.get(i)?)))
                .map(|(i, layer)| self.publish_one(layer, progress).map(|outcome| (i, outcome)))
                .collect()
        };
        let mut done = match self.more_threads() {
            Some(pool) => pool.install(publish)?,
            None => publish()?,
        };
        done.sort_unstable_by_key(|(i, _)| *i);
        Ok(done.into_iter().map(|(_, outcome)| outcome).collect())
    }

    /// Threads for a store that lets its callers wait. Without them it is slower, nothing else.
    fn more_threads(&self) -> Option<rayon::ThreadPool> {
        if self.store.uri().as_directory().is_some() {
            return None;
        }
        rayon::ThreadPoolBuilder::new().num_threads(rayon::current_num_threads() + SENDERS).build().ok()
    }

    fn publish_one(&self, planned: &Planned<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Outcome, PublishError> {
        let known = planned.fingerprint.as_ref().and_then(|f| self.cache.packed(f));
        if let Some(known) = known
            && let Some(archive) = self.in_store(planned.kind, &known.content, Some(&known.archive))?
        {
            progress(planned.size);
            return Ok(outcome(planned, Packed { archive, ..known }, None, false));
        }
        let temporary = Temporary::new(self.store, self.cache)?;
        let event = events::span("pack", || planned.name.clone()).of(planned.size);
        let (entries, facts) = (planned.entries)()?;
        let written = write_layer(&planned.name, entries, &temporary.path, self.level, progress)?;
        drop(event);
        step("publish.packed")?;
        let mut packed = Packed { content: written.content, archive: written.archive, facts };
        self.remember(planned, &packed)?;
        if let Some(archive) = self.in_store(planned.kind, &packed.content, Some(&packed.archive))? {
            packed.archive = archive;
            return Ok(outcome(planned, packed, None, true));
        }
        let sent = self.send(planned.kind, &packed, &temporary.path)?;
        Ok(outcome(planned, packed, sent, true))
    }

    fn remember(&self, planned: &Planned<'_>, packed: &Packed) -> Result<(), PublishError> {
        let Some(fingerprint) = &planned.fingerprint else { return Ok(()) };
        let path = || self.cache.root().to_owned();
        self.cache.remember(fingerprint, packed).map_err(|source| PublishError::Local { path: path(), source })
    }

    /// Sends an archive, then the record that names it by its content.
    pub(super) fn send(&self, kind: LayerKind, packed: &Packed, path: &Path) -> Result<Option<u64>, PublishError> {
        let _event = events::span("send", || packed.archive.digest.to_string()).of(packed.archive.size);
        // What is there is not whole: that was found out before.
        let put = if self.repair { Put::Replace } else { Put::IfAbsent };
        let source = Source::Watched(path, self.sending);
        let written = self.store.put(&archive_key(kind, &packed.archive.digest), source, put)?;
        step("publish.sent")?;
        if kind != LayerKind::Overlay && kind != LayerKind::Payload {
            let record = ContentRecord { format: 1, archive: packed.archive.clone() };
            let bytes = serde_json::to_vec(&record).unwrap_or_default();
            self.store.put(&Key::content(&packed.content), Source::Bytes(&bytes), Put::Replace)?;
        }
        Ok(match written {
            Written::Sent(bytes) => Some(bytes),
            Written::Kept => None,
        })
    }

    /// The archive in the store that carries `content`: `hint` if it is there, else the one that the store remembers,
    /// whichever client or release packed it.
    fn in_store(
        &self,
        kind: LayerKind,
        content: &Digest,
        hint: Option<&Archive>,
    ) -> Result<Option<Archive>, PublishError> {
        if let Some(archive) = hint
            && self.is_whole(kind, archive)?
        {
            return Ok(Some(archive.clone()));
        }
        if kind == LayerKind::Overlay || kind == LayerKind::Payload {
            return Ok(None);
        }
        let bytes = match self.store.read(&Key::content(content), MAX_JSON) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind, StoreErrorKind::NotFound | StoreErrorKind::Damaged) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // A record that cannot be read is replaced when the layer is sent.
        let Ok(record) = serde_json::from_slice::<ContentRecord>(&bytes) else { return Ok(None) };
        let differs = hint.is_none_or(|hint| hint.digest != record.archive.digest);
        Ok(if differs && self.is_whole(kind, &record.archive)? { Some(record.archive) } else { None })
    }

    /// Whether the store has the archive; its age is refreshed on the way.
    pub(super) fn is_whole(&self, kind: LayerKind, archive: &Archive) -> Result<bool, PublishError> {
        let key = archive_key(kind, &archive.digest);
        let Some(stat) = self.store.stat(&key)?.filter(|stat| stat.size == archive.size) else { return Ok(false) };
        if self.repair && !self.verifies(&key, archive)? {
            return Ok(false);
        }
        Ok(match refresh_if_old(self.store, &key, stat) {
            Err(e) if e.is_not_found() => false,
            result => result.map(|()| true)?,
        })
    }

    fn verifies(&self, key: &Key, archive: &Archive) -> Result<bool, PublishError> {
        let offsets = archive.pieces.iter().scan(0, |at, piece| {
            let offset = *at;
            *at += u64::from(piece.size);
            Some((offset, piece))
        });
        let pieces: Vec<_> = offsets.collect();
        let verified = pieces.into_par_iter().map(|(offset, piece)| {
            let mut buffer = vec![0; piece.size as usize];
            match self.store.read_range(key, offset, &mut buffer) {
                Ok(()) => Ok::<_, PublishError>(Digest::of(&buffer) == piece.digest),
                // Its bytes cannot be had, although it was found a moment ago: blocks that are lost, a file cut short.
                Err(e) if e.kind != StoreErrorKind::Denied => Ok(false),
                Err(e) => Err(e.into()),
            }
        });
        verified.try_reduce(|| true, |a, b| Ok(a && b))
    }
}

/// Where the archive of a layer of this kind is.
pub(crate) fn archive_key(kind: LayerKind, archive: &Digest) -> Key {
    match kind {
        LayerKind::Overlay | LayerKind::Payload => Key::overlay(archive),
        LayerKind::Distribution | LayerKind::Unowned | LayerKind::Interpreter => Key::layer(archive),
    }
}

/// Makes an object's age zero if it is not young.
pub(super) fn refresh_if_old(
    store: &dyn Store,
    key: &Key,
    stat: Stat,
) -> Result<(), cpack_artifact::store::StoreError> {
    if is_old(stat) { store.refresh(key) } else { Ok(()) }
}

/// Whether an object is old enough to be refreshed when it is used again.
pub(super) fn is_old(stat: Stat) -> bool {
    SystemTime::now().duration_since(stat.modified).unwrap_or_default() > REFRESH_AFTER
}

fn outcome(planned: &Planned<'_>, packed: Packed, sent: Option<u64>, was_packed: bool) -> Outcome {
    let layer = Layer {
        kind: planned.kind,
        name: planned.name.clone(),
        version: planned.version.clone(),
        content: packed.content,
        archive: packed.archive,
        imports: planned.imports.clone(),
        needs: Vec::new(),
        rank: 0,
        first: Vec::new(),
    };
    Outcome { layer, facts: packed.facts, sent, packed: was_packed }
}

/// A path for an archive that is being written: in the store where that is a directory, so that publishing is a
/// rename; else in the client's cache. What is left there is removed.
pub(super) struct Temporary {
    pub(super) path: PathBuf,
}

impl Temporary {
    pub(super) fn new(store: &dyn Store, cache: &ClientCache) -> Result<Self, PublishError> {
        if let Some(root) = store.uri().as_directory() {
            return Ok(Self { path: cpack_artifact::store::FileStore::new(&root).temporary()? });
        }
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let failed = |source| PublishError::Local { path: cache.root().to_owned(), source };
        let directory = cache.temporary().map_err(failed)?;
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { path: directory.join(format!("{}-{count}.zip", std::process::id())) })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
