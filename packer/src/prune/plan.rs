//! What can go: pure functions of what a store has, what its names say and when each object was last used.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use cpack_artifact::job::Job;
use cpack_artifact::manifest::Manifest;
use cpack_artifact::store::{Key, Listed, Store, StoreError};

use crate::publish::{NameRecord, archive_key};

/// The end of the keys of notes that say when a launcher was used.
const USED: &str = ".used";

/// What the names of a store name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Environments.
    pub(super) environments: HashSet<Key>,
    /// Launchers.
    pub(super) launchers: HashSet<Key>,
}

impl Names {
    pub(super) fn of(records: impl Iterator<Item = NameRecord>) -> Self {
        records.fold(Self::default(), |mut names, record| {
            names.environments.insert(Key::environment(&record.environment));
            names.launchers.extend(record.launcher.map(|digest| Key::launcher(&digest)));
            names
        })
    }
}

/// What a store has.
#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) launchers: Vec<Listed>,
    pub(super) environments: Vec<Listed>,
    /// Layers, overlays, content records, copies of the boot executable, and notes about launchers.
    pub(super) content: Vec<Listed>,
}

impl Stock {
    pub(super) fn look(store: &dyn Store) -> Result<Self, StoreError> {
        // Content first: a layer that is listed after the manifest which names it would look as if nothing did.
        let mut content = Vec::new();
        for directory in ["layers", "overlays", "contents", "boot"] {
            content.extend(store.list(directory)?);
        }
        let (notes, mut launchers): (Vec<Listed>, Vec<Listed>) =
            store.list("launchers")?.into_iter().partition(|listed| listed.key.as_str().ends_with(USED));
        let used: HashMap<&str, SystemTime> =
            notes.iter().filter_map(|note| Some((note.key.as_str().strip_suffix(USED)?, note.stat.modified))).collect();
        for launcher in &mut launchers {
            let used = used.get(launcher.key.as_str()).copied();
            launcher.stat.modified = used.map_or(launcher.stat.modified, |used| used.max(launcher.stat.modified));
        }
        content.extend(notes);
        Ok(Self { content, launchers, environments: store.list("environments")? })
    }

    /// Number and bytes of what there is.
    pub(super) fn size(&self) -> (usize, u64) {
        let all = || self.launchers.iter().chain(&self.environments).chain(&self.content);
        (all().count(), all().map(|listed| listed.stat.size).sum())
    }

    /// Takes out what was removed.
    pub(super) fn without(&mut self, removed: &[Listed]) {
        let gone: HashSet<&Key> = removed.iter().map(|listed| &listed.key).collect();
        for part in [&mut self.launchers, &mut self.environments, &mut self.content] {
            part.retain(|listed| !gone.contains(&listed.key));
        }
    }

    /// Launchers that nothing names.
    pub(super) fn old_launchers(&self, names: &Names, before: SystemTime) -> Vec<Listed> {
        old(&self.launchers, &names.launchers, before)
    }

    /// Environments that neither a name nor the job of a launcher names.
    pub(super) fn old_environments(&self, names: &Names, jobs: &[Job], before: SystemTime) -> Vec<Listed> {
        let of_jobs = jobs.iter().map(|job| Key::environment(&job.environment));
        old(&self.environments, &names.environments.iter().cloned().chain(of_jobs).collect(), before)
    }

    /// Layers, overlays and content records that no manifest and no job names.
    pub(super) fn old_content(&self, manifests: &[Manifest], jobs: &[Job], before: SystemTime) -> Vec<Listed> {
        let layers = manifests.iter().flat_map(|manifest| &manifest.layers);
        let named = layers.chain(jobs.iter().flat_map(|job| &job.overlays));
        let keys = named
            .flat_map(|layer| [archive_key(layer.kind, &layer.archive.digest), Key::content(&layer.content)])
            .chain(self.launchers.iter().filter_map(|l| Key::from_listing(&format!("{}{USED}", l.key))));
        old(&self.content, &keys.collect(), before)
    }
}

/// Those of `listed` that are not in `named` and that nothing happened to since `before`.
fn old(listed: &[Listed], named: &HashSet<Key>, before: SystemTime) -> Vec<Listed> {
    listed.iter().filter(|l| l.stat.modified < before && !named.contains(&l.key)).cloned().collect()
}
