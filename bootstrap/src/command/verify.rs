//! `verify`: every file in the node caches is compared with what it should be, and what is damaged is made again.
//!
//! A damaged layer is removed and fetched again for the environments that link it; an environment that misses a file, or
//! has one that is not its layer's, is put up anew. What cannot be repaired is removed, so that the next start builds it. A
//! job prefix is made again if it is not what its environment and overlays give.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::manifest::Manifest;
use cpack_artifact::store::{StoreOptions, StoreUri, open};
use serde_json::json;

use super::{Report, table};
use crate::build::{Means, Tree, check_job, repair_tree};
use crate::cache::{
    Cache, Claim, Description, Staging, content_of, file_digest, read_description, read_manifest, remove_tree,
};
use crate::environment::{HOOK_TEXT, Python, hook_path, is_own};
use crate::error::BootError;
use crate::job;
use crate::node::Node;
use crate::settings::Settings;
use crate::trace::Trace;
use crate::watch::Stop;

/// What was found, and done about it.
#[derive(Debug, Default)]
struct Findings {
    layers: u64,
    environments: u64,
    /// What, and what was done.
    repairs: Vec<(String, String)>,
}

pub(super) fn run(settings: &Settings) -> Result<Report, BootError> {
    let mut findings = Findings::default();
    for cache in Node::new(settings).caches() {
        let failed = |source| BootError::Io { path: cache.root().into(), source };
        let staging = cache.staging().map_err(failed)?;
        let verifier = Verifier { cache: &cache, settings, staging: &staging };
        let bad = verifier.layers(&mut findings).map_err(failed)?;
        verifier.environments(&bad, &mut findings).map_err(failed)?;
        verifier.jobs(&mut findings).map_err(failed)?;
    }
    let Findings { layers, environments, repairs } = findings;
    let rows: Vec<_> = repairs.iter().map(|(what, done)| vec![what.clone(), done.clone()]).collect();
    let text = format!("{}checked {layers} layers and {environments} environments\n", table(&rows, 0));
    let repairs: Vec<_> = repairs.iter().map(|(what, done)| json!({ "what": what, "done": done })).collect();
    Ok(Report { text, json: json!({ "layers": layers, "environments": environments, "repairs": repairs }) })
}

struct Verifier<'a> {
    cache: &'a Cache,
    settings: &'a Settings,
    staging: &'a Staging,
}

impl Verifier<'_> {
    /// Checks all layers; those that were bad, which are removed.
    fn layers(&self, findings: &mut Findings) -> io::Result<HashSet<Digest>> {
        let mut bad = HashSet::new();
        for content in self.cache.layers()? {
            // One that somebody builds or checks is not looked at.
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

    /// Checks all environments, and repairs those that are damaged or link a layer that was.
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

    /// Checks all job prefixes, and makes those again that are damaged; those that lead to what is gone are removed.
    fn jobs(&self, findings: &mut Findings) -> io::Result<()> {
        for name in self.cache.jobs()? {
            let done = match check_job(self.cache, &name) {
                Ok(true) => continue,
                Ok(false) => "was damaged: repaired",
                Err(_) => {
                    remove_tree(&self.cache.job_path(&name), None)?;
                    "leads to what is gone: removed"
                }
            };
            findings.repairs.push((format!("job prefix {name}"), done.into()));
        }
        Ok(())
    }

    /// The first thing that is wrong with a tree.
    fn fault(&self, tree: &Path, manifest: &Manifest, description: &Description) -> Option<String> {
        let python = python(description);
        for layer in &manifest.layers {
            let files = self.cache.layer_files(&layer.content);
            if let Some(path) = first_difference(&files, tree, Path::new(""), &python) {
                return Some(format!("{} was missing or changed", path.display()));
            }
        }
        let hook = hook_path(&manifest.python.version, &manifest.python.soabi);
        if fs::read(tree.join(&hook)).ok().as_deref() != Some(HOOK_TEXT.as_bytes()) {
            return Some(format!("{} was missing or changed", hook.display()));
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
        let python = python(description);
        let (stop, _watching) = Stop::watch(&[]);
        let means = Means {
            store: &*store,
            threads: self.settings.threads(),
            stall_timeout: self.settings.stall_timeout,
            stop: &stop,
        };
        let tree = Tree { key, manifest, manifest_bytes: bytes, python: &python, description, overlays: &[] };
        Ok(repair_tree(self.cache, &tree, &means, &mut Trace::start())?)
    }

    fn remove(&self, key: &str) -> io::Result<()> {
        remove_tree(&self.cache.environment_path(key), None).map(|_| ())
    }
}

/// What an environment was made from, if its records are whole.
fn records(tree: &Path) -> Option<(Description, Vec<u8>, Manifest)> {
    let description = read_description(tree).ok()?;
    let bytes = read_manifest(tree).ok().filter(|bytes| Digest::of(bytes) == description.environment)?;
    let manifest = Manifest::parse(&bytes).ok()?;
    Some((description, bytes, manifest))
}

fn python(description: &Description) -> Python {
    let version = description.version.clone();
    match description.python.as_str() {
        "" => Python::Shipped { version },
        path => Python::Node { path: path.into(), version },
    }
}

/// The first path below `relative` that a layer has and its tree has not, or has otherwise. The layer is known to be good.
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

/// Whether two paths are one file, or links or copies that are alike.
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
