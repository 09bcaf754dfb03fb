//! Layers: recognised by their fingerprint, or sent where the store lacks them.

use std::cmp::Reverse;
use std::path::Path;
use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use cpack_format::manifest::{Archive, Layer, LayerKind, MAX_JSON};
use cpack_layer::content::facts::Facts;
use cpack_store::{FileStore, Key, Put, Source, Stat, Store, StoreError, StoreErrorKind, Watcher, Written};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tempfile::TempPath;

use super::error::{PublishError, step};
use crate::assemble::LayerPlan;
use crate::cache::{ClientCache, PackedLayer};

/// Objects that are reused are refreshed when they are older than this, well below the grace period of a prune: refreshing at
/// each upload would cost one request per layer.
const REFRESH_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Threads beside those that pack where a store is on the network: they wait for answers and send.
const SENDERS: usize = 6;

/// A layer that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedLayer {
    /// The layer as the manifest names it, without needs and rank.
    pub layer: Layer,
    pub facts: Facts,
    /// Bytes sent to the store; `None` if it had the layer.
    pub sent: Option<u64>,
    /// Whether its files were read: false where the client recognised them by their stat data.
    pub packed: bool,
}

/// `contents/<content>.json`: which archive carries a content.
#[derive(Debug, Serialize, Deserialize)]
struct ContentRecord {
    format: u32,
    archive: Archive,
}

/// Sends layers to one store.
#[derive(Debug)]
pub(crate) struct Publisher<'a> {
    pub store: &'a dyn Store,
    pub cache: &'a ClientCache,
    /// Verify what the store has by its digest, and replace what is damaged.
    pub repair: bool,
    /// Is called with the bytes that go over the network.
    pub sending: Watcher<'a>,
}

impl Publisher<'_> {
    /// Does `work` for each of `plans` in parallel, the largest first. Returns the results in the order of `plans`.
    ///
    /// Uses the threads of the rayon pool that it is called in. For a store on the network it starts some more, since such a
    /// store lets its callers wait; where they cannot be started, sending is slower, nothing else.
    pub(crate) fn for_each<T: Send, E: Send>(
        &self,
        plans: &[LayerPlan<'_>],
        work: impl Fn(&LayerPlan<'_>) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let mut order: Vec<(usize, &LayerPlan<'_>)> = plans.iter().enumerate().collect();
        order.sort_by_key(|(_, plan)| Reverse(plan.size));
        let run = || -> Result<Vec<(usize, T)>, E> {
            order.into_par_iter().with_max_len(1).map(|(at, plan)| Ok((at, work(plan)?))).collect()
        };
        let threads = rayon::current_num_threads() + SENDERS;
        let is_remote = self.store.uri().as_directory().is_none();
        let more = is_remote.then(|| rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()).flatten();
        let mut done = match more {
            Some(pool) => pool.install(run)?,
            None => run()?,
        };
        done.sort_unstable_by_key(|(at, _)| *at);
        Ok(done.into_iter().map(|(_, result)| result).collect())
    }

    /// The layer of `plan`, if this client packed files with this fingerprint before and the store has the archive.
    pub(crate) fn recognise(&self, plan: &LayerPlan<'_>) -> Result<Option<PublishedLayer>, PublishError> {
        let Some(known) = plan.fingerprint.as_ref().and_then(|f| self.cache.packed(f)) else { return Ok(None) };
        let archive = self.in_store(plan.kind, &known.content, &known.archive)?;
        Ok(archive.map(|archive| published(plan, PackedLayer { archive, ..known }, None, false)))
    }

    /// A path for an archive that is being written: in the store where that is a directory, so that putting it is a rename;
    /// else in the client's cache. The file is removed when the value is dropped.
    pub(crate) fn new_archive(&self) -> Result<TempPath, PublishError> {
        let failed = |source| PublishError::Local { path: self.cache.root().to_owned(), source };
        if let Some(root) = self.store.uri().as_directory() {
            return TempPath::try_from_path(FileStore::new(&root).temporary()?).map_err(failed);
        }
        let directory = self.cache.temporary().map_err(failed)?;
        let named = tempfile::Builder::new().suffix(".zip").make_in(directory, |_| Ok(()));
        Ok(named.map_err(failed)?.into_temp_path())
    }

    /// Remembers that the layer of `plan` is `packed`, and sends its archive, the file `path`, unless the store has one with the
    /// same content.
    pub(crate) fn send(
        &self,
        plan: &LayerPlan<'_>,
        mut packed: PackedLayer,
        path: &Path,
    ) -> Result<PublishedLayer, PublishError> {
        step("publish.packed")?;
        self.remember(plan, &packed)?;
        if let Some(archive) = self.in_store(plan.kind, &packed.content, &packed.archive)? {
            packed.archive = archive;
            return Ok(published(plan, packed, None, true));
        }
        let sent = self.put(plan.kind, &packed, path)?;
        Ok(published(plan, packed, sent, true))
    }

    fn remember(&self, plan: &LayerPlan<'_>, packed: &PackedLayer) -> Result<(), PublishError> {
        let Some(fingerprint) = &plan.fingerprint else { return Ok(()) };
        let path = || self.cache.root().to_owned();
        self.cache.remember(fingerprint, packed).map_err(|source| PublishError::Local { path: path(), source })
    }

    /// Puts an archive, then the record that names it by its content.
    pub(super) fn put(&self, kind: LayerKind, packed: &PackedLayer, path: &Path) -> Result<Option<u64>, PublishError> {
        let _event = cpack_events::span("send", || packed.archive.digest.to_string()).of(packed.archive.size);
        // With `repair`, [`Self::in_store`] has found that an archive under this key is damaged.
        let put = if self.repair { Put::Replace } else { Put::IfAbsent };
        let source = Source::Watched(path, self.sending);
        let written = self.store.put(&kind.key(&packed.archive.digest), source, put)?;
        step("publish.sent")?;
        if has_record(kind) {
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
    fn in_store(&self, kind: LayerKind, content: &Digest, hint: &Archive) -> Result<Option<Archive>, PublishError> {
        if self.is_whole(kind, hint)? {
            return Ok(Some(hint.clone()));
        }
        if !has_record(kind) {
            return Ok(None);
        }
        let bytes = match self.store.read(&Key::content(content), MAX_JSON) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind, StoreErrorKind::NotFound | StoreErrorKind::Damaged) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // A record that cannot be read is replaced when the layer is sent.
        let Ok(record) = serde_json::from_slice::<ContentRecord>(&bytes) else { return Ok(None) };
        let differs = hint.digest != record.archive.digest;
        Ok(if differs && self.is_whole(kind, &record.archive)? { Some(record.archive) } else { None })
    }

    /// Whether the store has the archive. Refreshes its age if it has.
    pub(super) fn is_whole(&self, kind: LayerKind, archive: &Archive) -> Result<bool, PublishError> {
        let key = kind.key(&archive.digest);
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
                // The store listed it a moment ago but cannot read it: lost blocks, or a file cut short.
                Err(e) if e.kind != StoreErrorKind::Denied => Ok(false),
                Err(e) => Err(e.into()),
            }
        });
        verified.try_reduce(|| true, |a, b| Ok(a && b))
    }
}

/// Overlays and payloads belong to one job: nothing looks for their content.
fn has_record(kind: LayerKind) -> bool {
    !matches!(kind, LayerKind::Overlay | LayerKind::Payload)
}

/// Refreshes an object that is old.
pub(super) fn refresh_if_old(store: &dyn Store, key: &Key, stat: Stat) -> Result<(), StoreError> {
    if is_old(stat) { store.refresh(key) } else { Ok(()) }
}

/// Whether an object is old enough to be refreshed when it is used again.
pub(super) fn is_old(stat: Stat) -> bool {
    SystemTime::now().duration_since(stat.modified).unwrap_or_default() > REFRESH_AFTER
}

fn published(plan: &LayerPlan<'_>, packed: PackedLayer, sent: Option<u64>, was_packed: bool) -> PublishedLayer {
    let layer = Layer {
        version: plan.version.to_owned(),
        imports: plan.imports.clone(),
        prefixes: packed.facts.prefixes.clone(),
        ..Layer::new(plan.kind, plan.name.to_owned(), packed.content, packed.archive)
    };
    PublishedLayer { layer, facts: packed.facts, sent, packed: was_packed }
}
