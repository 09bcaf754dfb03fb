//! Environments in the node cache: read-only trees, named by environment id and interpreter.
//!
//! ```text
//! environments/<key>/bin/python …      what Python sees
//! environments/<key>/.cpack/lease      the lock of those who use it; under which boot it was written
//! environments/<key>/.cpack/environment.json
//! environments/<key>/.cpack/manifest.json
//! environments/<key>/.cpack/layers     content digests of its layers, one a line
//! ```

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_artifact::Digest;
use cpack_artifact::fault::point;
use serde::{Deserialize, Serialize};

use super::commit::{self, Published};
use super::lease::{self, Lease};
use super::reboot::Mark;
use super::{Cache, ENVIRONMENTS};

/// The directory of an environment's own records.
pub(crate) const RECORDS: &str = ".cpack";
pub(crate) const LEASE: &str = "lease";
const DESCRIPTION: &str = "environment.json";
const MANIFEST: &str = "manifest.json";
const LAYERS: &str = "layers";

/// An environment that may be used.
#[derive(Debug)]
pub struct Environment {
    /// Its directory: Python's prefix.
    pub path: PathBuf,
    /// Keeps clean-up away.
    pub lease: Lease,
}

/// What is in the place of an environment.
#[derive(Debug)]
pub enum Found {
    /// All of it.
    Ready(Environment),
    /// A tree that was written under another boot of the node, or that somebody damaged: to be put up anew.
    Stale,
    /// Nothing.
    Missing,
}

/// What an environment was made from, so that it can be checked and made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of this record.
    pub format: u32,
    /// The name under which it was uploaded.
    #[serde(default)]
    pub name: String,
    /// The environment id.
    pub environment: Digest,
    /// The store it came from.
    pub store: String,
    /// The interpreter, empty if a layer ships it.
    #[serde(default)]
    pub python: String,
    /// The interpreter's full version.
    #[serde(default)]
    pub version: String,
}

impl Cache {
    /// Where the environment called `key` is, or would be.
    pub fn environment_path(&self, key: &str) -> PathBuf {
        self.directory(ENVIRONMENTS).join(key)
    }

    /// Looks for an environment, in a fixed number of system calls.
    pub fn find_environment(&self, key: &str) -> Found {
        self.find_prefix(self.environment_path(key))
    }

    /// Looks for a prefix of Python: an environment's tree, or what a job starts from.
    pub(super) fn find_prefix(&self, path: PathBuf) -> Found {
        let Some((lease, mark)) = Lease::take(&lease_path(&path)) else {
            return if path.exists() { Found::Stale } else { Found::Missing };
        };
        let trusted = mark.is_ok_and(|mark| mark.is_trusted_by(self.boot()));
        // A link to an interpreter that is gone counts as damage.
        if trusted && path.join("bin/python").exists() {
            return Found::Ready(Environment { path, lease });
        }
        Found::Stale
    }

    /// Publishes a staged tree.
    pub fn publish_environment(&self, staged: &Path, key: &str) -> io::Result<Published> {
        let place = self.environment_path(key);
        let published = commit::publish(staged, &place)?;
        point("tree.renamed")?;
        if published == Published::Ours {
            close(&place)?;
        }
        Ok(published)
    }

    /// Puts a staged tree in the place of one that is not to be used; that one is at `staged` afterwards.
    pub fn replace_environment(&self, staged: &Path, key: &str) -> io::Result<()> {
        let place = self.environment_path(key);
        // Only a directory that may be written to can be moved to another parent.
        match fs::set_permissions(&place, Permissions::from_mode(0o755)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => commit::exchange(staged, &place)?,
        }
        point("tree.exchanged")?;
        close(&place)
    }

    /// Marks an environment that was synced to disk.
    pub fn mark_environment_durable(&self, key: &str) -> io::Result<()> {
        Mark::Durable.overwrite(&lease_path(&self.environment_path(key)))
    }

    /// The keys of the environments that are there.
    pub fn environments(&self) -> io::Result<Vec<String>> {
        let entries = self.list(ENVIRONMENTS)?;
        Ok(entries.into_iter().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    /// When an environment was last started.
    pub fn last_used(&self, key: &str) -> Option<SystemTime> {
        lease::last_used(&lease_path(&self.environment_path(key)))
    }

    /// Whether a live process holds a lease on it.
    pub fn is_leased(&self, key: &str) -> bool {
        let path = lease_path(&self.environment_path(key));
        path.exists() && lease::exclusive(&path).is_none()
    }
}

/// Writes the records of a tree that is being staged.
pub fn write_records(
    tree: &Path,
    cache: &Cache,
    description: &Description,
    manifest: &[u8],
    layers: &[Digest],
) -> io::Result<()> {
    let records = tree.join(RECORDS);
    fs::create_dir(&records)?;
    let names: String = layers.iter().map(|digest| format!("{digest}\n")).collect();
    fs::write(records.join(LAYERS), names)?;
    fs::write(records.join(MANIFEST), manifest)?;
    fs::write(records.join(DESCRIPTION), serde_json::to_vec_pretty(description)?)?;
    write_lease(tree, cache)
}

/// Writes the file by which a prefix that is being staged is leased: under which boot it was written.
pub(super) fn write_lease(prefix: &Path, cache: &Cache) -> io::Result<()> {
    fs::write(lease_path(prefix), Mark::Boot(cache.boot().clone()).to_bytes())
}

/// Takes a lease on a tree outside `environments/`.
pub fn lease_tree(tree: &Path) -> Option<Lease> {
    Lease::take(&lease_path(tree)).map(|(lease, _)| lease)
}

/// What an environment was made from.
pub fn read_description(tree: &Path) -> io::Result<Description> {
    Ok(serde_json::from_slice(&fs::read(tree.join(RECORDS).join(DESCRIPTION))?)?)
}

/// The bytes of an environment's manifest.
pub fn read_manifest(tree: &Path) -> io::Result<Vec<u8>> {
    fs::read(tree.join(RECORDS).join(MANIFEST))
}

/// The content digests of an environment's layers.
pub(super) fn layers_of(tree: &Path) -> io::Result<Vec<Digest>> {
    let text = fs::read_to_string(tree.join(RECORDS).join(LAYERS))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

pub(super) fn lease_path(tree: &Path) -> PathBuf {
    tree.join(RECORDS).join(LEASE)
}

/// Takes the permission to write from a tree's top directory, which had to be writable to be renamed.
fn close(place: &Path) -> io::Result<()> {
    fs::set_permissions(place, Permissions::from_mode(0o555))?;
    point("tree.closed")
}
