//! The records of a tree, which tell what it is and whether it is used.
//!
//! ```text
//! <tree>/bin/python …      what Python sees
//! <tree>/.cpack/lease      locked by the processes that use it; under which boot it was written
//! <tree>/.cpack/environment.json
//! <tree>/.cpack/manifest.json
//! <tree>/.cpack/layers     content digests of its layers, one a line
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use serde::{Deserialize, Serialize};

use super::boot_id::Mark;
use super::lease::Lease;
use super::own_directory::Cache;

/// The directory of an environment's own records.
pub const RECORDS: &str = ".cpack";
pub(crate) const LEASE: &str = "lease";
const DESCRIPTION: &str = "environment.json";
const MANIFEST: &str = "manifest.json";
const LAYERS: &str = "layers";

/// Notes in the cache what an environment was made from, so that it can be checked and made again.
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

/// Writes the records of a tree that is being staged.
pub(crate) fn write_records(
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

/// Reads what an environment was made from.
pub fn read_description(tree: &Path) -> io::Result<Description> {
    Ok(serde_json::from_slice(&fs::read(tree.join(RECORDS).join(DESCRIPTION))?)?)
}

/// Reads the bytes of an environment's manifest.
pub fn read_manifest(tree: &Path) -> io::Result<Vec<u8>> {
    fs::read(manifest_path(tree))
}

pub(super) fn manifest_path(tree: &Path) -> PathBuf {
    tree.join(RECORDS).join(MANIFEST)
}

/// Reads the content digests of an environment's layers.
pub(super) fn layers_of(tree: &Path) -> io::Result<Vec<Digest>> {
    let text = fs::read_to_string(tree.join(RECORDS).join(LAYERS))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

pub(super) fn lease_path(tree: &Path) -> PathBuf {
    tree.join(RECORDS).join(LEASE)
}
