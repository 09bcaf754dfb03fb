//! Manifests, launchers and names: the objects that are put after the layers.

use cpack_format::Digest;
use cpack_format::manifest::{Layer, MAX_JSON, Manifest};
use cpack_parallel::try_map;
use cpack_store::{Key, Put, Source, Store, StoreErrorKind, Written};
use serde::{Deserialize, Serialize};

use super::error::{PublishError, step};
use super::layers::{is_old, refresh_if_old};
use crate::launcher::Launcher;

/// Layers that are looked at side by side.
const CHECKS: usize = 16;

/// The record under a mutable name: `names/<name>.json`, with the metadata that users of cluster-pack know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    pub format: u32,
    pub environment: Digest,
    /// The digest of the job under the name, as `launchers/` keeps it for containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<Digest>,
    /// Every distribution as `name==version`, as cluster-pack's metadata lists them.
    pub package_installed: Vec<String>,
    /// `sysconfig.get_platform()` of the environment.
    pub platform: String,
    /// Full version of Python.
    pub python_version: String,
}

/// Puts the manifest, then looks whether the store still has every layer it names: [`PublishError::Vanished`] if it lacks one.
/// Returns the environment id.
pub(crate) fn publish_manifest(store: &dyn Store, manifest: &Manifest, repair: bool) -> Result<Digest, PublishError> {
    let bytes = manifest.to_bytes();
    let id = Digest::of(&bytes);
    let key = Key::environment(&id);
    let put = if repair && !holds(store, &key, &bytes)? { Put::Replace } else { Put::IfAbsent };
    store.put(&key, Source::Bytes(&bytes), put)?;
    step("publish.manifest")?;
    check_layers(store, &manifest.layers)?;
    Ok(id)
}

/// Many at once: each waits for the network.
fn check_layers(store: &dyn Store, layers: &[Layer]) -> Result<(), PublishError> {
    try_map(CHECKS, layers, |layer| check_layer(store, layer)).map(drop)
}

fn check_layer(store: &dyn Store, layer: &Layer) -> Result<(), PublishError> {
    let found = store.stat(&layer.key())?;
    if found.is_some_and(|stat| stat.size == layer.archive.size) {
        return Ok(());
    }
    let (digest, store) = (layer.archive.digest, store.uri().to_string());
    Err(PublishError::Vanished { layer: layer.name.clone(), digest, store })
}

/// Whether the object at `key` is `bytes`.
fn holds(store: &dyn Store, key: &Key, bytes: &[u8]) -> Result<bool, PublishError> {
    match store.read(key, bytes.len() as u64) {
        Ok(found) => Ok(found == bytes),
        Err(e) if e.kind != StoreErrorKind::Denied => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Publishes both parts of a launcher: the executable, and the job that executors start from. Returns the job's digest.
pub(crate) fn publish_launcher(
    store: &dyn Store,
    launcher: &Launcher,
    repair: bool,
) -> Result<(Digest, Written), PublishError> {
    let executable = publish_immutable(store, &Key::boot(launcher.boot_digest()), launcher.boot(), repair)?;
    let stored = launcher.stored();
    let digest = Digest::of(&stored);
    let job = publish_immutable(store, &Key::launcher(&digest), &stored, repair)?;
    Ok((digest, executable.and(job)))
}

/// Puts an object that the store lacks. One that is there is not touched, not even its age: YARN fails the containers of
/// running applications when the time of a file changed that they were started with. A note beside it says that it is in use.
fn publish_immutable(store: &dyn Store, key: &Key, bytes: &[u8], repair: bool) -> Result<Written, PublishError> {
    if let Some(stat) = store.stat(key)?.filter(|stat| stat.size == bytes.len() as u64) {
        if repair && !holds(store, key, bytes)? {
            return Ok(store.put(key, Source::Bytes(bytes), Put::Replace)?);
        }
        let note = key.in_use();
        if !is_old(stat) || store.stat(&note)?.is_some_and(|note| !is_old(note)) {
            return Ok(Written::Kept);
        }
        // `prune` looks for the note before it removes the object. If it removed the object before the note was there, the put
        // below sends the object again.
        store.put(&note, Source::Bytes(b"1"), Put::Replace)?;
    }
    Ok(store.put(key, Source::Bytes(bytes), Put::Once)?)
}

/// The record under a name, if there is one.
pub(crate) fn read_name(store: &dyn Store, name: &str) -> Result<Option<NameRecord>, PublishError> {
    let key = Key::name(name, "json")?;
    match store.read(&key, MAX_JSON) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| PublishError::Damaged { location: store.uri().join(key.as_str()), reason: e.to_string() }),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Points `name` at an environment, and puts the launcher there, unless both are there already.
///
/// An unchanged file is not rewritten: YARN fails containers whose source file changed.
pub(crate) fn publish_name(
    store: &dyn Store,
    name: &str,
    record: &NameRecord,
    launcher: Option<&[u8]>,
) -> Result<Written, PublishError> {
    let key = Key::name(name, "json")?;
    let artifact = Key::name(name, "")?;
    let in_place = match launcher {
        None => true,
        // Two jobs differ in digests alone: their lengths say nothing.
        Some(launcher) => holds(store, &artifact, launcher)?,
    };
    if in_place
        && matches!(read_name(store, name), Ok(Some(found)) if found == *record)
        && let Some(stat) = store.stat(&key)?
    {
        refresh_if_old(store, &key, stat)?;
        return Ok(Written::Kept);
    }
    let mut written = Written::Kept;
    if let Some(launcher) = launcher {
        written = store.put(&artifact, Source::Bytes(launcher), Put::Replace)?;
        step("publish.name")?;
    }
    let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    Ok(written.and(store.put(&key, Source::Bytes(&bytes), Put::Replace)?))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;
    use std::time::SystemTime;

    use cpack_format::manifest::{Archive, LayerKind};
    use cpack_store::{Listed, Stat, StoreError, StoreUri};

    use super::*;

    /// A store whose client panics when it is asked for one object, and that has every other.
    #[derive(Debug)]
    struct Dying(StoreUri, Key);

    impl Store for Dying {
        fn uri(&self) -> &StoreUri {
            &self.0
        }
        fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
            assert!(*key != self.1, "the client dies");
            Ok(Some(Stat { size: 1, modified: SystemTime::now() }))
        }
        fn read(&self, _: &Key, _: u64) -> Result<Vec<u8>, StoreError> {
            unreachable!()
        }
        fn read_range(&self, _: &Key, _: u64, _: &mut [u8]) -> Result<(), StoreError> {
            unreachable!()
        }
        fn write(&self, _: &Key, _: Source<'_>, _: Put) -> Result<Written, StoreError> {
            unreachable!()
        }
        fn refresh(&self, _: &Key) -> Result<(), StoreError> {
            unreachable!()
        }
        fn list(&self, _: &str) -> Result<Vec<Listed>, StoreError> {
            unreachable!()
        }
        fn delete(&self, _: &Key) -> Result<(), StoreError> {
            unreachable!()
        }
        fn remove_old(&self, _: &Key, _: SystemTime) -> Result<bool, StoreError> {
            unreachable!()
        }
        fn sweep(&self, _: SystemTime) -> Result<usize, StoreError> {
            unreachable!()
        }
    }

    fn layer(name: &str) -> Layer {
        let digest = Digest::of(name.as_bytes());
        let archive = Archive { size: 1, ..Archive::named(digest) };
        Layer::new(LayerKind::Distribution, name.to_owned(), digest, archive)
    }

    #[test]
    fn check_layers_panics_when_a_worker_does() {
        let layers: Vec<Layer> = (0..100).map(|number| layer(&number.to_string())).collect();
        for dies in [0, 37, 99] {
            let store = Dying(StoreUri::directory(Path::new("/store")), layers[dies].key());
            let checked = catch_unwind(AssertUnwindSafe(|| check_layers(&store, &layers)));
            assert!(checked.is_err(), "layer {dies} was not checked, and the others count for it: {checked:?}");
            check_layers(&store, &layers[..dies]).expect("these are there");
        }
    }
}
