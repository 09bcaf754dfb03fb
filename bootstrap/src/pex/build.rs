//! From PEX files to an environment in the node cache.
//!
//! Processes that start the same PEX at once wait for the first ([`wait_for_environment`]), unless it makes no progress.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use cpack_format::job::{Interpreter, Job};
use cpack_format::manifest::{self, Layer, LayerKind, Manifest};
use cpack_node::building::{BuildError, Means, TreeInputs, Waited, ensure_tree, wait_for_environment};
use cpack_node::cache::{Cache, Environment, Lookup};
use cpack_node::timing::{Phase, Timing};
use cpack_node::tree::Python;
use cpack_parallel::with_beat;
use cpack_pex::Pex;
use cpack_pex::file::Metadata;
use cpack_store::FileStore;

use super::pex_layers::{self, Built, Work};
use super::python::{self, Chosen};
use super::reason::Reason;
use super::setup::{Setup, Variables};
use crate::attempts::settle;
use crate::boot::Ready;
use crate::error::BootError;
use crate::interpreter::{Identity, environment_key};
use crate::job::{FoundJob, Origin};
use crate::local_layer::{BEAT, open_byte_code};
use crate::settings::Settings;
use crate::watch::watch;

/// The job that a PEX stands for.
pub(super) fn job(setup: &Setup) -> FoundJob {
    let pex = setup.pex();
    let job = Job {
        name: pex.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        ..Job::new(setup.identity, format!("file:{}", pex.path.display()), Interpreter::default())
    };
    FoundJob { job, manifest: None, origin: Origin::File(pex.path.clone()), boot: None }
}

pub(super) fn ready(cache: Cache, key: String, environment: Environment) -> Ready {
    Ready::of(cache, Some(key), environment)
}

/// The name of the environment for one interpreter.
fn key_for(setup: &Setup, identity: &Identity) -> String {
    environment_key(&setup.identity, "", "", Some(identity))
}

/// Looks for the environment in all caches: the warm path.
pub(super) fn look(setup: &Setup, variables: &Variables, settings: &Settings) -> Option<Ready> {
    let identities = python::identities(setup, variables, settings);
    let found = settings.node().look(identities.map(|identity| key_for(setup, &identity)));
    found.map(|(cache, key, environment)| ready(cache, key, environment))
}

/// Builds the environment, or says why the PEX is handed over.
pub(super) fn build(
    setup: &Setup,
    variables: &Variables,
    settings: &Settings,
    arguments: &[OsString],
    timing: &mut Timing,
) -> Result<Result<Ready, Reason>, BootError> {
    let (stop, _watching) = watch(arguments);
    let store = FileStore::new(setup.pex().path.parent().unwrap_or(Path::new("/")));
    let means = settings.means(&store, &stop);
    let node = settings.node();
    let mut attempts = node.attempts(&[]);
    loop {
        let cache = attempts.next_cache(timing)?;
        let choose = |metadata: &[_]| python::choose(setup, metadata, variables, settings);
        if let Some(built) = settle(&mut attempts, build_in(cache, setup, &means, timing, choose))? {
            if let Ok((ready, true)) = &built {
                node.clean(&ready.cache, ready.key.as_deref().unwrap_or_default(), timing);
            }
            return Ok(built.map(|(ready, _)| ready));
        }
    }
}

/// Builds the environment in one cache. Returns whether this process built it.
fn build_in(
    cache: Cache,
    setup: &Setup,
    means: &Means<'_>,
    timing: &mut Timing,
    choose: impl Fn(&[BTreeMap<String, Metadata>]) -> Result<Chosen, Reason>,
) -> Result<Result<(Ready, bool), Reason>, BootError> {
    let staging = cache.staging().map_err(|source| BuildError::Cache { path: cache.root().into(), source })?;
    let source = pex_layers::open(setup, &staging, means)?;
    let chosen = match choose(&source.metadata) {
        Ok(chosen) => chosen,
        Err(reason) => return Ok(Err(reason)),
    };
    timing.mark(Phase::Plan);
    let key = key_for(setup, &chosen.choice.identity);
    let waited = wait_for_environment(&cache, &key, &format!("{key}.pex"), means)?;
    timing.mark(Phase::Wait);
    let claimed = match waited {
        Waited::There(environment) => return Ok(Ok((ready(cache, key, environment), false))),
        Waited::Ours(claimed) => claimed,
    };
    if let Lookup::Ready(environment) = cache.find_environment(&key) {
        return Ok(Ok((ready(cache, key, environment), false)));
    }
    let work = Work { setup, source: &source, chosen: &chosen, cache: &cache };
    let layers = match with_beat(BEAT, || claimed.progress(), || work.layers(&staging, means))? {
        Ok(layers) => layers,
        Err(reason) => return Ok(Err(reason)),
    };
    timing.mark(Phase::Extract);
    timing.counts.built += layers.len() as u64;
    let environment = link(setup, &chosen, &key, &cache, layers, means, timing)?;
    drop(claimed);
    Ok(Ok((ready(cache, key, environment), true)))
}

/// Builds the tree that links the layers.
fn link(
    setup: &Setup,
    chosen: &Chosen,
    key: &str,
    cache: &Cache,
    layers: Vec<Built>,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<Environment, BootError> {
    let FoundJob { job, .. } = job(setup);
    let (path, version) = (chosen.choice.identity.path.clone(), chosen.choice.version.clone());
    let manifest = manifest_of(setup, chosen, layers);
    let python = Python::Node { path, version, sees_system: false };
    let description = python.describe(&job);
    let inputs = TreeInputs {
        key,
        manifest: &manifest,
        manifest_bytes: &manifest.to_bytes(),
        python: &python,
        description: &description,
        overlays: &[],
    };
    let (environment, is_new) = ensure_tree(cache, &inputs, means, timing)?;
    if is_new {
        // If that fails, each start compiles the modules again: slower, but right.
        let _ = open_byte_code(&environment.path.join("lib"));
    }
    Ok(environment)
}

/// The manifest of the extracted layers. They have no archives: they are in the cache.
fn manifest_of(setup: &Setup, chosen: &Chosen, layers: Vec<Built>) -> Manifest {
    let layer = |built: Built| {
        let (kind, name, version) = match &built.part.wheel {
            None => (LayerKind::Unowned, title(&setup.pexes, built.part.pex), String::new()),
            Some(wheel) => {
                let mut parts = wheel.split('-').map(str::to_owned);
                (LayerKind::Distribution, parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
        };
        let digest = built.content;
        Layer {
            version,
            ..Layer::new(
                kind,
                name,
                digest,
                manifest::Archive { files: built.files, ..manifest::Archive::named(digest) },
            )
        }
    };
    Manifest {
        format: manifest::FORMAT,
        requires: Vec::new(),
        python: manifest::Python {
            version: chosen.choice.version.clone(),
            soabi: chosen.soabi.clone(),
            platform: format!("linux-{}", std::env::consts::ARCH),
            least_glibc: None,
        },
        layers: layers.into_iter().map(layer).collect(),
        entry_points: Vec::new(),
    }
}

/// The name of the layer with the user's code of a PEX.
fn title(pexes: &[Pex], index: usize) -> String {
    let name = pexes.get(index).and_then(|pex| pex.path.file_name());
    name.map(|name| format!("code of {}", name.to_string_lossy())).unwrap_or_default()
}
