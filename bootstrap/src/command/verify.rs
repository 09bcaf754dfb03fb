//! `verify`: compares every file in the node caches with what it should be, and repairs what is damaged.
//!
//! It removes a damaged layer and fetches it again for the environments that link it. It builds an environment again that
//! misses a file, or has one that is not its layer's. What it cannot repair it removes, so that the next start builds it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::manifest::Manifest;
use cpack_node::building::{TreeInputs, repair_tree};
use cpack_node::cache::{
    Cache, Claim, Description, Staging, content_of, file_digest, read_description, read_manifest, remove_tree,
};
use cpack_node::timing::Timing;
use cpack_node::tree::{Python, is_own};
use cpack_store::{StoreOptions, StoreUri, open};
use serde_json::json;

use super::{Report, table};
use crate::error::BootError;
use crate::job;
use crate::settings::Settings;
use crate::watch::watch;
#[derive(Debug, Default)]
struct Findings {
    layers: u64,
    environments: u64,
    /// What was damaged, and what was done about it.
    repairs: Vec<(String, String)>,
}

pub(super) fn run(settings: &Settings) -> Result<Report, BootError> {
    let mut findings = Findings::default();
    for cache in settings.node().caches() {
        let failed = |source| BootError::Io { path: cache.root().into(), source };
        let staging = cache.staging().map_err(failed)?;
        let verifier = Verifier { cache: &cache, settings, staging: &staging };
        let bad = verifier.layers(&mut findings).map_err(failed)?;
        verifier.environments(&bad, &mut findings).map_err(failed)?;
    }
    let Findings { layers, environments, repairs } = findings;
    let rows: Vec<_> = repairs.iter().map(|(what, done)| vec![what.clone(), done.clone()]).collect();
    let text = format!("{}checked {layers} layers and {environments} environments\n", table(&rows, &[]));
    let repairs: Vec<_> = repairs.iter().map(|(what, done)| json!({ "what": what, "done": done })).collect();
    Ok(Report { text, json: json!({ "layers": layers, "environments": environments, "repairs": repairs }) })
}

struct Verifier<'a> {
    cache: &'a Cache,
    settings: &'a Settings,
    staging: &'a Staging,
}

impl Verifier<'_> {
    /// Checks all layers. Removes damaged ones and returns them.
    fn layers(&self, findings: &mut Findings) -> io::Result<HashSet<Digest>> {
        let mut bad = HashSet::new();
        for content in self.cache.layers()? {
            // Another process builds or checks this one.
            let Claim::Ours(claimed) = self.cache.claim(&content.to_hex()) else { continue };
            findings.layers += 1;
            let files = self.cache.layer_files(&content);
            if content_of(&files, self.settings.threads(), &|| claimed.progress()).ok() == Some(content) {
                continue;
            }
            self.cache.discard_layer(&content, self.staging)?;
            findings.repairs.push((format!("layer {content}"), "was damaged: removed".into()));
            bad.insert(content);
        }
        Ok(bad)
    }

    /// Checks all environments, and repairs those that are damaged or link one of the `bad` layers.
    fn environments(&self, bad: &HashSet<Digest>, findings: &mut Findings) -> io::Result<()> {
        for key in self.cache.environments()? {
            findings.environments += 1;
            let path = self.cache.environment_path(&key);
            let Some((description, bytes, manifest)) = records(&path) else {
                self.remove(&key)?;
                findings.repairs.push((format!("environment {key}"), "its records were damaged: removed".into()));
                continue;
            };
            let fault = if manifest.layers.iter().any(|layer| bad.contains(&layer.content)) {
                Some("a layer of it was damaged".to_owned())
            } else {
                self.fault(&path, &manifest, &description)
            };
            let Some(fault) = fault else { continue };
            let done = match self.repair(&key, &description, &bytes, &manifest) {
                Ok(()) => format!("{fault}: repaired"),
                Err(error) => {
                    self.remove(&key)?;
                    format!("{fault}: removed, since it cannot be repaired ({error})")
                }
            };
            findings.repairs.push((format!("environment {key}"), done));
        }
        Ok(())
    }

    /// The first thing that is wrong with a tree.
    fn fault(&self, tree: &Path, manifest: &Manifest, description: &Description) -> Option<String> {
        let python = Python::of(description);
        for layer in &manifest.layers {
            let files = self.cache.layer_files(&layer.content);
            if let Some(path) = first_difference(&files, tree, Path::new(""), &python) {
                return Some(format!("{} was missing or changed", path.display()));
            }
        }
        let linked = fs::read_link(tree.join("bin/python")).ok();
        match &python {
            Python::Node { path, .. } if linked.as_ref() != Some(path) => Some("bin/python was missing".into()),
            Python::Node { .. } if !tree.join("pyvenv.cfg").is_file() => Some("pyvenv.cfg was missing".into()),
            Python::Shipped { .. } if !tree.join("bin/python").exists() => Some("bin/python was missing".into()),
            _ => None,
        }
    }

    fn repair(&self, key: &str, description: &Description, bytes: &[u8], manifest: &Manifest) -> Result<(), BootError> {
        let uri: StoreUri = description.store.parse()?;
        let cluster = job::find(self.settings).map_or_else(|_| BTreeMap::new(), |found| found.job.cluster);
        let store = open(&uri, &StoreOptions::of_process(cluster))?;
        let python = Python::of(description);
        let (stop, _watching) = watch(&[]);
        let means = self.settings.means(&*store, &stop);
        let inputs = TreeInputs { key, manifest, manifest_bytes: bytes, python: &python, description, overlays: &[] };
        Ok(repair_tree(self.cache, &inputs, &means, &mut Timing::start())?)
    }

    fn remove(&self, key: &str) -> io::Result<()> {
        remove_tree(&self.cache.environment_path(key), None).map(|_| ())
    }
}

/// The records of an environment, if they are whole.
fn records(tree: &Path) -> Option<(Description, Vec<u8>, Manifest)> {
    let description = read_description(tree).ok()?;
    let bytes = read_manifest(tree).ok().filter(|bytes| Digest::of(bytes) == description.environment)?;
    let manifest = Manifest::parse(&bytes).ok()?;
    Some((description, bytes, manifest))
}

/// The first path below `relative` of a good layer that its tree lacks or has with other content.
fn first_difference(layer: &Path, tree: &Path, relative: &Path, python: &Python) -> Option<PathBuf> {
    for entry in fs::read_dir(layer.join(relative)).into_iter().flatten().flatten() {
        let path = relative.join(entry.file_name());
        if is_own(python, &path) {
            continue;
        }
        let (ours, theirs) = (layer.join(&path), tree.join(&path));
        let found = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if theirs.is_dir() { first_difference(layer, tree, &path, python) } else { Some(path) }
        } else {
            (!is_same(&ours, &theirs)).then_some(path)
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether two paths are one file, equal links, or equal copies.
fn is_same(a: &Path, b: &Path) -> bool {
    let (Ok(first), Ok(second)) = (fs::symlink_metadata(a), fs::symlink_metadata(b)) else { return false };
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return true;
    }
    if first.is_symlink() {
        return fs::read_link(a).ok() == fs::read_link(b).ok();
    }
    // Copied where the file system refuses links.
    first.len() == second.len() && matches!((file_digest(a), file_digest(b)), (Ok(a), Ok(b)) if a == b)
}
