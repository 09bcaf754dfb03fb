//! One submission: an environment and what the job adds, published, and the job that names them.
//!
//! Discover, plan the layers, publish what the store lacks, write the manifest, then the overlays and the payload of
//! the job. Nothing of it is visible under a name until [`publish_name`](crate::publish::publish_name) is called.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cpack_artifact::Digest;
use cpack_artifact::SafePath;
use cpack_artifact::content::Kind;
use cpack_artifact::job::{self, Entry, Interpreter, Job};
use cpack_artifact::manifest::{LayerKind, Manifest};
use cpack_artifact::store::Store;

use crate::assemble::{self, Assembled, Packer};
use crate::cache::{ClientCache, Facts};
use crate::discover::Environment;
use crate::layer::{Body, Entry as LayerEntry, LayerError};
use crate::manifest;
use crate::publish::{Outcome, Planned, PublishError, Published, Publisher, publish_manifest};

/// How often layers that vanish while they are published are sent again.
const PUBLISHED_AGAIN: u32 = 3;

/// What the job adds to the environment.
#[derive(Debug, Clone, Default)]
pub struct JobRequest {
    /// What runs.
    pub entry: EntryRequest,
    /// Variables with the values that were written out.
    pub environ: BTreeMap<String, String>,
    /// Variables that the executor must have.
    pub pass: Vec<String>,
    /// Whether editable projects are left out.
    pub no_editable: bool,
    /// What an executor must know of the cluster.
    pub cluster: BTreeMap<String, String>,
    /// The name of the environment.
    pub name: String,
}

/// What runs.
#[derive(Debug, Clone, Default)]
pub enum EntryRequest {
    /// Python.
    #[default]
    Interpreter,
    /// A module.
    Module(String),
    /// A console script.
    Script(String),
    /// The pickled function in this file.
    Payload(PathBuf),
}

/// What became of a submission.
#[derive(Debug)]
pub struct Submission {
    /// The environment's manifest.
    pub manifest: Manifest,
    /// Its digest.
    pub id: Digest,
    /// Whether the store had the manifest.
    pub existed: bool,
    /// What happened to each layer of the environment.
    pub layers: Vec<Outcome>,
    /// What happened to the overlays and the payload.
    pub overlays: Vec<Outcome>,
    /// The job.
    pub job: Job,
    /// How long packing and sending took.
    pub elapsed: Duration,
}

/// Why a submission failed.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Packing or sending.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Planning the layers.
    #[error(transparent)]
    Assemble(#[from] assemble::AssembleError),
    /// The file with the pickled function cannot be read.
    #[error("cannot read the payload {path}: {source}", path = path.display())]
    Payload {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The environment has no such script.
    #[error("the environment has no console script {name:?}{hint}")]
    Script {
        /// As asked for.
        name: String,
        /// What it may have been meant to be.
        hint: String,
    },
}

/// Publishes `environment` and what `request` adds. `progress` is told the bytes of files that are done with.
pub fn submit(
    environment: &Environment,
    publisher: &Publisher<'_>,
    options: &assemble::Options,
    request: &JobRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Submission, SubmitError> {
    let start = Instant::now();
    let compilers = assemble::compilers(environment);
    let packer = Packer { environment, compilers: &compilers };
    let Assembled { layers: planned, overlays: planned_overlays } = assemble::assemble(&packer, options)?;
    let (layers, manifest, published) = publish_whole(publisher, environment, &planned, request, progress)?;
    let overlays = if request.no_editable { Vec::new() } else { planned_overlays };
    let overlays = publish_overlays(publisher, overlays, &request.entry)?;
    let job = make_job(environment, publisher.store, &published.id, &overlays, request, options);
    let (id, existed) = (published.id, published.existed);
    Ok(Submission { manifest, id, existed, layers, overlays, job, elapsed: start.elapsed() })
}

/// Publishes layers and manifest. Layers that a prune took meanwhile are sent again.
fn publish_whole(
    publisher: &Publisher<'_>,
    environment: &Environment,
    planned: &[Planned<'_>],
    request: &JobRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<(Vec<Outcome>, Manifest, Published), SubmitError> {
    let mut layers = publisher.publish(planned, progress)?;
    let mut again = 0;
    loop {
        let manifest = manifest::build(environment, &layers);
        check_entry(request, environment, &manifest)?;
        match publish_manifest(publisher.store, &manifest, publisher.repair) {
            Err(PublishError::Vanished { .. }) if again < PUBLISHED_AGAIN => again += 1,
            result => return Ok((layers, manifest, result?)),
        }
        let before = std::mem::replace(&mut layers, publisher.publish(planned, &|_| {})?);
        for (layer, before) in layers.iter_mut().zip(before) {
            layer.sent = layer.sent.or(before.sent);
        }
    }
}

/// Bytes that [`submit`] has to look at: the total of its progress.
pub fn total_size(environment: &Environment) -> u64 {
    let files = environment.distributions.iter().flat_map(|d| &d.files).chain(&environment.unowned);
    files.map(|f| f.size).sum()
}

fn check_entry(request: &JobRequest, environment: &Environment, manifest: &Manifest) -> Result<(), SubmitError> {
    let EntryRequest::Script(name) = &request.entry else { return Ok(()) };
    let editables = environment.editables.iter().filter(|_| !request.no_editable);
    let scripts = editables.flat_map(|e| &e.scripts).filter_map(|file| file.path.as_bytes().strip_prefix(b"bin/"));
    let scripts = scripts.filter_map(|script| std::str::from_utf8(script).ok());
    let known: Vec<&str> = manifest.entry_points.iter().map(|e| e.name.as_str()).chain(scripts).collect();
    if known.contains(&name.as_str()) {
        return Ok(());
    }
    let closest = known.into_iter().min_by_key(|known| edit_distance(known, name));
    let hint = closest.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
    Err(SubmitError::Script { name: name.clone(), hint })
}

/// Levenshtein's distance, for names of a few characters.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, cb) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let substitute = diagonal + usize::from(ca != *cb);
            left = substitute.min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

fn publish_overlays(
    publisher: &Publisher<'_>,
    mut planned: Vec<Planned<'_>>,
    entry: &EntryRequest,
) -> Result<Vec<Outcome>, SubmitError> {
    if let EntryRequest::Payload(path) = entry {
        let bytes = fs::read(path).map_err(|source| SubmitError::Payload { path: path.clone(), source })?;
        planned.push(payload(bytes));
    }
    Ok(publisher.publish(&planned, &|_| {})?)
}

fn payload(bytes: Vec<u8>) -> Planned<'static> {
    let size = bytes.len() as u64;
    let entries = move || {
        let path = SafePath::new(job::PAYLOAD_NAME.as_bytes())
            .map_err(|e| LayerError::Make { path: job::PAYLOAD_NAME.into(), reason: e.to_string() })?;
        Ok((vec![LayerEntry { path, kind: Kind::File, body: Body::Bytes(bytes.clone()) }], Facts::default()))
    };
    Planned {
        kind: LayerKind::Payload,
        name: "payload".into(),
        version: String::new(),
        imports: Vec::new(),
        fingerprint: None,
        size,
        entries: Box::new(entries),
    }
}

fn make_job(
    environment: &Environment,
    store: &dyn Store,
    id: &Digest,
    overlays: &[Outcome],
    request: &JobRequest,
    options: &assemble::Options,
) -> Job {
    let payload = overlays.iter().find(|o| o.layer.kind == LayerKind::Payload);
    let entry = match &request.entry {
        EntryRequest::Module(module) => Entry::Module(module.clone()),
        EntryRequest::Script(script) => Entry::Script(script.clone()),
        EntryRequest::Payload(_) => payload.map_or(Entry::Interpreter, |o| Entry::Payload(o.layer.content)),
        EntryRequest::Interpreter => Entry::Interpreter,
    };
    let python = &environment.python;
    let path = if options.with_python { String::new() } else { python.base_executable.to_string_lossy().into_owned() };
    Job {
        format: job::FORMAT,
        requires: payload.map(|_| "payload".to_owned()).into_iter().collect(),
        name: request.name.clone(),
        environment: *id,
        store: store.uri().to_string(),
        interpreter: Interpreter {
            path,
            version: python.version.clone(),
            soabi: python.soabi.clone(),
            shipped: options.with_python,
        },
        overlays: overlays.iter().map(|o| o.layer.clone()).collect(),
        entry,
        environ: request.environ.clone(),
        pass: request.pass.clone(),
        cluster: request.cluster.clone(),
    }
}

/// The client's cache directory by the rules of the XDG base directories.
pub fn default_cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<ClientCache> {
    let base = variable("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(variable("HOME").filter(|home| home.is_absolute())?.join(".cache")))?;
    Some(ClientCache::new(base.join("cluster-pack")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_near() {
        for (a, b, distance) in [("", "abc", 3), ("pip", "pip", 0), ("jupyter", "jupiter", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edit_distance(a, b), distance);
        }
    }
}
