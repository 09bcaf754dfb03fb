//! `verify`: compares every file in the node caches with what it should be, and repairs what is damaged.
//!
//! It removes a damaged layer and fetches it again for the environments that link it. It builds an environment again that
//! misses a file, or has one that is not its layer's. It makes a job prefix again that is not what its environment and overlays
//! give. What it cannot repair it removes, so that the next start builds it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::Path;

use cpack_format::Digest;
use cpack_format::manifest::Manifest;
use cpack_node::building::{TreeInputs, check_job, repair_tree};
use cpack_node::cache::{Cache, Description, Staging, Verdict, content_of, read_description, read_manifest};
use cpack_node::node::Node;
use cpack_node::timing::Timing;
use cpack_node::tree::{Python, tree_fault};
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
    let node = settings.node();
    for cache in node.caches() {
        let failed = |source| BootError::Io { path: cache.root().into(), source };
        let staging = if cache.is_read_only() { None } else { Some(cache.staging().map_err(failed)?) };
        let verifier = Verifier { cache: &cache, node: &node, settings, staging: staging.as_ref() };
        let bad = verifier.layers(&mut findings).map_err(failed)?;
        verifier.environments(&bad, &mut findings).map_err(failed)?;
        verifier.jobs(&mut findings).map_err(failed)?;
    }
    let Findings { layers, environments, repairs } = findings;
    let rows: Vec<_> = repairs.iter().map(|(what, done)| vec![what.clone(), done.clone()]).collect();
    let text = format!("{}checked {layers} layers and {environments} environments\n", table(&rows, &[]));
    let repairs: Vec<_> = repairs.iter().map(|(what, done)| json!({ "what": what, "done": done })).collect();
    Ok(Report { text, json: json!({ "layers": layers, "environments": environments, "repairs": repairs }) })
}

struct Verifier<'a> {
    cache: &'a Cache,
    node: &'a Node,
    settings: &'a Settings,
    /// `None` on a read-only file system.
    staging: Option<&'a Staging>,
}

impl Verifier<'_> {
    /// Checks all layers. Removes damaged ones and returns them.
    fn layers(&self, findings: &mut Findings) -> io::Result<HashSet<Digest>> {
        let mut bad = HashSet::new();
        for content in self.cache.layers()? {
            // Another process builds or checks this one.
            let Some(claimed) = self.cache.claim(&content.to_hex()) else { continue };
            findings.layers += 1;
            let files = self.cache.layer_files(&content);
            if content_of(&files, self.settings.threads(), &|| claimed.progress()).ok() == Some(content) {
                continue;
            }
            let done = match self.staging {
                Some(staging) => {
                    self.cache.discard_layer(&content, staging)?;
                    "was damaged: removed"
                }
                None => "is damaged: it stays, since its file system is read-only",
            };
            findings.repairs.push((format!("layer {content}"), done.into()));
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
                let done = if self.staging.is_some() {
                    self.remove(&path)?;
                    "its records were damaged: removed".into()
                } else {
                    self.pass_over(&key, "its records are damaged")
                };
                findings.repairs.push((format!("environment {key}"), done));
                continue;
            };
            let fault = if manifest.layers.iter().any(|layer| bad.contains(&layer.content)) {
                Some("a layer of it was damaged".to_owned())
            } else {
                tree_fault(self.cache, &path, &manifest, &Python::of(&description, manifest.sees_system()))
            };
            let Some(fault) = fault else { continue };
            if self.staging.is_none() {
                findings.repairs.push((format!("environment {key}"), self.pass_over(&key, &fault)));
                continue;
            }
            let done = match self.repair(&key, &description, &bytes, &manifest) {
                Ok(()) => format!("{fault}: repaired"),
                Err(error) => {
                    self.remove(&path)?;
                    format!("{fault}: removed, since it cannot be repaired ({error})")
                }
            };
            findings.repairs.push((format!("environment {key}"), done));
        }
        Ok(())
    }

    /// Checks all job prefixes, and makes those again that are damaged; those that lead to what is gone are removed.
    fn jobs(&self, findings: &mut Findings) -> io::Result<()> {
        if self.staging.is_none() {
            // Nothing can be made here to compare with, and nothing repaired.
            return Ok(());
        }
        for name in self.cache.jobs()? {
            let done = match check_job(self.cache, &name) {
                Ok(true) => continue,
                Ok(false) => "was damaged: repaired",
                Err(_) => {
                    self.remove(&self.cache.job_path(&name))?;
                    "leads to what is gone: removed"
                }
            };
            findings.repairs.push((format!("job prefix {name}"), done.into()));
        }
        Ok(())
    }

    /// Notes that starts are to build an environment elsewhere, because a read-only one can be neither repaired nor removed.
    /// Returns what the user is told.
    fn pass_over(&self, key: &str, fault: &str) -> String {
        let then = if self.node.note_checked(self.cache, key, Verdict::Damaged) {
            ", and starts build another elsewhere"
        } else {
            ": remove it from the image"
        };
        format!("{fault}: it stays, since its file system is read-only{then}")
    }

    fn repair(&self, key: &str, description: &Description, bytes: &[u8], manifest: &Manifest) -> Result<(), BootError> {
        let uri: StoreUri = description.store.parse()?;
        let cluster = job::find(self.settings).map_or_else(|_| BTreeMap::new(), |found| found.job.cluster);
        let store = open(&uri, &StoreOptions::of_process(cluster))?;
        let python = Python::of(description, manifest.sees_system());
        let (stop, _watching) = watch(&[]);
        let means = self.settings.means(&*store, &stop);
        let inputs = TreeInputs { key, manifest, manifest_bytes: bytes, python: &python, description, overlays: &[] };
        Ok(repair_tree(self.cache, &inputs, &means, &mut Timing::start())?)
    }

    /// Removes an environment or a job prefix, unless it is on a read-only file system.
    fn remove(&self, prefix: &Path) -> io::Result<()> {
        self.staging.map_or(Ok(()), |staging| self.cache.discard_prefix(prefix, staging))
    }
}

/// The records of an environment, if they are whole.
fn records(tree: &Path) -> Option<(Description, Vec<u8>, Manifest)> {
    let description = read_description(tree).ok()?;
    let bytes = read_manifest(tree).ok().filter(|bytes| Digest::of(bytes) == description.environment)?;
    let manifest = Manifest::parse(&bytes).ok()?;
    Some((description, bytes, manifest))
}
