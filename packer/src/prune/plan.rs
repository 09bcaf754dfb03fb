//! Which objects can be removed: pure functions of the objects in a store, its names, and the time of each object's last use.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use cpack_format::Digest;
use cpack_format::job::Job;
use cpack_format::manifest::Manifest;
use cpack_store::{Key, Listed, Store, StoreError};

use crate::publish::NameRecord;

#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) environments: HashSet<Key>,
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

#[derive(Debug, Default)]
pub(super) struct Stock {
    pub(super) launchers: Vec<Listed>,
    pub(super) environments: Vec<Listed>,
    /// Layers, overlays, content records, executables, and notes that objects are in use.
    pub(super) content: Vec<Listed>,
}

impl Stock {
    pub(super) fn look(store: &dyn Store) -> Result<Self, StoreError> {
        // Content first: a layer that is published between the two listings would otherwise look as if no manifest named it.
        let mut content = Vec::new();
        for directory in ["layers", "overlays", "contents"] {
            content.extend(store.list(directory)?);
        }
        let executables = used(store.list("boot")?, &mut content);
        content.extend(executables);
        let launchers = used(store.list("launchers")?, &mut content);
        Ok(Self { content, launchers, environments: store.list("environments")? })
    }

    /// Whether a publisher puts notes about the object.
    pub(super) fn has_notes(key: &Key) -> bool {
        ["launchers/", "boot/"].iter().any(|start| key.as_str().starts_with(start)) && key.noted().is_none()
    }

    pub(super) fn size(&self) -> (usize, u64) {
        let all = || self.launchers.iter().chain(&self.environments).chain(&self.content);
        (all().count(), all().map(|listed| listed.stat.size).sum())
    }

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
    pub(super) fn old_environments(&self, names: &Names, jobs: &[KeptJob], before: SystemTime) -> Vec<Listed> {
        let of_jobs = jobs.iter().map(|kept| Key::environment(&kept.job.environment));
        old(&self.environments, &names.environments.iter().cloned().chain(of_jobs).collect(), before)
    }

    /// Layers, overlays, content records and executables that no manifest and no job names.
    pub(super) fn old_content(&self, manifests: &[Manifest], jobs: &[KeptJob], before: SystemTime) -> Vec<Listed> {
        let layers = manifests.iter().flat_map(|manifest| &manifest.layers);
        let named = layers.chain(jobs.iter().flat_map(|kept| &kept.job.overlays));
        let executables = jobs.iter().filter_map(|kept| kept.boot.as_ref()).map(Key::boot);
        let keys = named
            .flat_map(|layer| [layer.key(), Key::content(&layer.content)])
            .chain(self.launchers.iter().map(|launcher| launcher.key.in_use()))
            .chain(executables.flat_map(|key| [key.in_use(), key]));
        old(&self.content, &keys.collect(), before)
    }
}

/// A launcher that stays: its job and its executable.
#[derive(Debug)]
pub(super) struct KeptJob {
    pub(super) job: Job,
    pub(super) boot: Option<Digest>,
}

/// Separates objects from notes, which go to `rest`. An object is as young as the note about it.
fn used(listed: Vec<Listed>, rest: &mut Vec<Listed>) -> Vec<Listed> {
    let (notes, mut objects): (Vec<Listed>, Vec<Listed>) =
        listed.into_iter().partition(|listed| listed.key.noted().is_some());
    let used: HashMap<Key, SystemTime> =
        notes.iter().filter_map(|note| Some((note.key.noted()?, note.stat.modified))).collect();
    for object in &mut objects {
        if let Some(used) = used.get(&object.key) {
            object.stat.modified = object.stat.modified.max(*used);
        }
    }
    rest.extend(notes);
    objects
}

/// Those of `listed` that are not in `named` and were last used before `before`.
fn old(listed: &[Listed], named: &HashSet<Key>, before: SystemTime) -> Vec<Listed> {
    listed.iter().filter(|l| l.stat.modified < before && !named.contains(&l.key)).cloned().collect()
}
