//! Manifests, launchers and names: what is written after the layers.

use cpack_artifact::Digest;
use cpack_artifact::manifest::{Layer, MAX_JSON, Manifest};
use cpack_artifact::store::{Key, Put, Source, Store, Written};
use serde::{Deserialize, Serialize};

use super::layers::{archive_key, refresh_if_old};
use super::{PublishError, step};

/// The record under a mutable name: `names/<name>.json`, with the metadata that users of cluster-pack know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    /// The version of this format.
    pub format: u32,
    /// The environment id.
    pub environment: Digest,
    /// The launcher that lies under the name, as an immutable copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<Digest>,
    /// Every distribution as `name==version`, as cluster-pack's metadata lists them.
    pub package_installed: Vec<String>,
    /// `sysconfig.get_platform()` of the environment.
    pub platform: String,
    /// Full version of Python.
    pub python_version: String,
}

/// A manifest that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The environment id.
    pub id: Digest,
    /// Whether the store had it.
    pub existed: bool,
}

/// Writes the manifest, then looks whether every layer it names is still there.
pub fn publish_manifest(store: &dyn Store, manifest: &Manifest) -> Result<Published, PublishError> {
    let bytes = manifest.to_bytes();
    let id = Digest::of(&bytes);
    let key = Key::environment(&id);
    let written = store.put(&key, Source::Bytes(&bytes), Put::IfAbsent)?;
    step("publish.manifest")?;
    manifest.layers.iter().try_for_each(|layer| check_layer(store, layer))?;
    Ok(Published { id, existed: written == Written::Kept })
}

fn check_layer(store: &dyn Store, layer: &Layer) -> Result<(), PublishError> {
    let found = store.stat(&archive_key(layer.kind, &layer.archive.digest))?;
    if found.is_some_and(|stat| stat.size == layer.archive.size) {
        return Ok(());
    }
    let (digest, store) = (layer.archive.digest, store.uri().to_string());
    Err(PublishError::Vanished { layer: layer.name.clone(), digest, store })
}

/// Publishes a launcher: the immutable copy that jobs refer to.
pub fn publish_launcher(store: &dyn Store, launcher: &[u8]) -> Result<(Digest, Written), PublishError> {
    let digest = Digest::of(launcher);
    let written = store.put(&Key::launcher(&digest), Source::Bytes(launcher), Put::IfAbsent)?;
    Ok((digest, written))
}

/// The record under a name, if there is one.
pub fn read_name(store: &dyn Store, name: &str) -> Result<Option<NameRecord>, PublishError> {
    let key = Key::name(name, "json")?;
    match store.read(&key, MAX_JSON) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| PublishError::Damaged { location: store.uri().join(key.as_str()), reason: e.to_string() }),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Points `name` at an environment, and lays the launcher there, unless both are there already. True: it was written.
///
/// What is unchanged is not rewritten: YARN fails containers whose source file changed.
pub fn publish_name(
    store: &dyn Store,
    name: &str,
    record: &NameRecord,
    launcher: Option<&[u8]>,
) -> Result<bool, PublishError> {
    let key = Key::name(name, "json")?;
    let artifact = Key::name(name, "")?;
    let in_place = match launcher {
        None => true,
        Some(bytes) => store.stat(&artifact)?.is_some_and(|stat| stat.size == bytes.len() as u64),
    };
    if in_place
        && matches!(read_name(store, name), Ok(Some(found)) if found == *record)
        && let Some(stat) = store.stat(&key)?
    {
        refresh_if_old(store, &key, stat)?;
        return Ok(false);
    }
    if let Some(bytes) = launcher {
        store.put(&artifact, Source::Bytes(bytes), Put::Replace)?;
        step("publish.name")?;
    }
    let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    store.put(&key, Source::Bytes(&bytes), Put::Replace)?;
    Ok(true)
}
