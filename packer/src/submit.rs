//! One submission: an environment and what the job adds, published, and the job that names them.
//!
//! ```text
//! assemble::plan      which layers, recognised by stat data     no file is read
//! Packer::pack        one archive for each layer that changed   in parallel
//! Publisher::send     archives that the store lacks             each as soon as it is packed
//! publish_manifest    then overlays and payload, then the job
//! ```
//!
//! Nothing of it is visible under a name until [`publish_name`](crate::publish::publish_name) is called.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cpack_discover::Environment;
use cpack_format::Digest;
use cpack_format::job::{Conda, Interpreter, Job, Program, Start};
use cpack_format::manifest::{CONDA, LayerKind, Manifest};
use cpack_layer::PackError;
use cpack_layer::content::compile::Compilers;
use cpack_store::Store;

use crate::assemble::{self, LayerPlan};
use crate::manifest;
use crate::pack::Packer;
use crate::publish::{PublishError, PublishedLayer, Publisher, publish_manifest};

/// How often layers that vanish while they are published are sent again.
const PUBLISHED_AGAIN: u32 = 3;

#[derive(Debug, Clone, Default)]
pub(crate) struct JobRequest {
    pub entry: EntryRequest,
    /// Variables with the values that the user wrote out.
    pub environ: BTreeMap<String, String>,
    /// Variables that the executor must have.
    pub pass: Vec<String>,
    pub no_editable: bool,
    /// Properties of the cluster that an executor needs.
    pub cluster: BTreeMap<String, String>,
    pub name: String,
    /// What activating the environment does, if it is one of conda.
    pub conda: Conda,
    pub start: Start,
}

#[derive(Debug, Clone, Default)]
pub(crate) enum EntryRequest {
    #[default]
    Interpreter,
    /// A module, as `python -m` does.
    Module(String),
    Script(String),
    /// The pickled function in this file.
    Payload(PathBuf),
}

#[derive(Debug)]
pub(crate) struct Submission {
    pub manifest: Manifest,
    pub id: Digest,
    pub layers: Vec<PublishedLayer>,
    pub overlays: Vec<PublishedLayer>,
    pub job: Job,
    /// How long packing and sending took.
    pub elapsed: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    #[error(transparent)]
    Assemble(#[from] assemble::AssembleError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("cannot read the payload {path}: {source}", path = path.display())]
    Payload { path: PathBuf, source: io::Error },
    #[error("the environment has no console script {name:?}{hint}")]
    Script { name: String, hint: String },
}

/// Publishes `environment` and what `request` adds. Calls `progress` with the bytes of files that are done.
pub(crate) fn submit(
    environment: &Environment,
    publisher: &Publisher<'_>,
    options: &assemble::Options,
    request: &JobRequest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Submission, SubmitError> {
    let start = Instant::now();
    let mut plan = assemble::plan(environment, options)?;
    if request.no_editable {
        plan.overlays.clear();
    }
    plan.overlays.extend(payload(&request.entry)?);
    let compilers = Compilers::of(&environment.python);
    let packer = Packer::new(environment, &compilers, options.level);
    let submitter = Submitter { environment, packer, publisher };
    let (layers, manifest, id) = submitter.publish(&plan.layers, request, progress)?;
    let overlays = submitter.pack_and_send(&plan.overlays, &|_| {})?;
    let job = make_job(environment, publisher.store, &id, &overlays, request, options);
    Ok(Submission { manifest, id, layers, overlays, job, elapsed: start.elapsed() })
}

struct Submitter<'a> {
    environment: &'a Environment,
    packer: Packer<'a>,
    publisher: &'a Publisher<'a>,
}

impl Submitter<'_> {
    /// Publishes the layers, then the manifest that names them. Layers that a prune removed meanwhile are sent again.
    fn publish(
        &self,
        plans: &[LayerPlan<'_>],
        request: &JobRequest,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Vec<PublishedLayer>, Manifest, Digest), SubmitError> {
        let mut layers = self.pack_and_send(plans, progress)?;
        let mut again = 0;
        loop {
            let manifest = manifest::build(self.environment, &layers);
            check_entry(request, self.environment, &manifest)?;
            match publish_manifest(self.publisher.store, &manifest, self.publisher.repair) {
                Err(PublishError::Vanished { .. }) if again < PUBLISHED_AGAIN => again += 1,
                result => return Ok((layers, manifest, result?)),
            }
            let before = std::mem::replace(&mut layers, self.pack_and_send(plans, &|_| {})?);
            for (layer, before) in layers.iter_mut().zip(before) {
                layer.sent = layer.sent.or(before.sent);
            }
        }
    }

    /// Makes sure that the store has the layers of `plans`, in parallel. A layer that the client recognises and the store has
    /// is not read; each of the others is packed, and sent as soon as it is packed.
    fn pack_and_send(
        &self,
        plans: &[LayerPlan<'_>],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<PublishedLayer>, SubmitError> {
        self.publisher.for_each(plans, |plan| {
            if let Some(known) = self.publisher.recognise(plan)? {
                progress(plan.size);
                return Ok(known);
            }
            let archive = self.publisher.new_archive()?;
            let packed = self.packer.pack(plan, &archive, progress)?;
            Ok(self.publisher.send(plan, packed, &archive)?)
        })
    }
}

/// Bytes of all files of the environment's layers: the total of [`submit`]'s progress.
pub(crate) fn total_size(environment: &Environment) -> u64 {
    environment.files().map(|f| f.size).sum()
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
    let closest = known.into_iter().min_by_key(|known| strsim::levenshtein(known, name));
    let hint = closest.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
    Err(SubmitError::Script { name: name.clone(), hint })
}

/// The payload of a job that calls a pickled function.
fn payload(entry: &EntryRequest) -> Result<Option<LayerPlan<'static>>, SubmitError> {
    let EntryRequest::Payload(path) = entry else { return Ok(None) };
    let bytes = fs::read(path).map_err(|source| SubmitError::Payload { path: path.clone(), source })?;
    Ok(Some(LayerPlan::payload(bytes)))
}

fn make_job(
    environment: &Environment,
    store: &dyn Store,
    id: &Digest,
    overlays: &[PublishedLayer],
    request: &JobRequest,
    options: &assemble::Options,
) -> Job {
    let payload = overlays.iter().find(|o| o.layer.kind == LayerKind::Payload);
    let entry = match &request.entry {
        EntryRequest::Module(module) => Program::Module(module.clone()),
        EntryRequest::Script(script) => Program::Script(script.clone()),
        EntryRequest::Payload(_) => payload.map_or(Program::Interpreter, |o| Program::Payload(o.layer.content)),
        EntryRequest::Interpreter => Program::Interpreter,
    };
    let python = &environment.python;
    let shipped = options.with_python || environment.is_whole_conda();
    let path = if shipped { String::new() } else { python.base_executable.to_string_lossy().into_owned() };
    let conda = environment.is_whole_conda().then(|| request.conda.clone());
    let mut requires: Vec<String> = payload.map(|_| "payload".to_owned()).into_iter().collect();
    requires.extend(conda.as_ref().map(|_| CONDA.to_owned()));
    Job {
        requires,
        name: request.name.clone(),
        overlays: overlays.iter().map(|o| o.layer.clone()).collect(),
        entry,
        environ: request.environ.clone(),
        pass: request.pass.clone(),
        cluster: request.cluster.clone(),
        conda,
        start: request.start,
        ..Job::new(
            *id,
            store.uri().to_string(),
            Interpreter { path, version: python.version.clone(), soabi: python.soabi.clone(), shipped },
        )
    }
}
