//! From PEX files to an environment in the node cache.
//!
//! Those who start the same PEX at once wait for the first ([`wait`]), unless it stands still.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpack_artifact::job::{self, Interpreter, Job};
use cpack_artifact::manifest::{self, Layer, LayerKind, Manifest};
use cpack_artifact::pex::Pex;
use cpack_artifact::pex::file::Metadata;
use cpack_artifact::store::FileStore;

use super::BYTE_CODE;
use super::layers::{Built, Source, Work};
use super::python::{self, Chosen};
use super::reason::Reason;
use super::setup::{Setup, Variables};
use crate::boot::Ready;
use crate::build::{BuildError, Means, Tree, ensure_tree};
use crate::cache::{Cache, Claim, Claimed, Description, Environment, Found as InCache};
use crate::environment::Python;
use crate::error::BootError;
use crate::interpreter::{Identity, environment_key};
use crate::job::{Found, Origin};
use crate::node::Node;
use crate::settings::Settings;
use crate::trace::{Phase, Trace};
use crate::watch::Stop;

/// How often a claim tells that its holder is alive.
const BEAT: Duration = Duration::from_millis(500);

/// The job that a PEX stands for.
pub(super) fn job(setup: &Setup) -> Found {
    let pex = setup.pex();
    let job = Job {
        format: job::FORMAT,
        requires: Vec::new(),
        name: pex.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        environment: setup.identity,
        store: format!("file:{}", pex.path.display()),
        interpreter: Interpreter { path: String::new(), version: String::new(), soabi: String::new(), shipped: false },
        overlays: Vec::new(),
        entry: job::Entry::Interpreter,
        environ: BTreeMap::new(),
        pass: Vec::new(),
        cluster: Default::default(),
    };
    Found { job, manifest: None, origin: Origin::File(pex.path.clone()), boot: None }
}

/// An environment that was found.
pub(super) fn ready(cache: Cache, key: String, environment: Environment) -> Ready {
    Ready { prefix: environment.path, cache, key: Some(key), job: None, payload: None, leases: vec![environment.lease] }
}

/// The name of the environment for one interpreter.
fn key_for(setup: &Setup, identity: &Identity) -> String {
    environment_key(&setup.identity, "", "", Some(identity))
}

/// Looks for the environment in all caches: the warm path.
pub(super) fn look(setup: &Setup, variables: &Variables, settings: &Settings) -> Option<Ready> {
    let identities = python::identities(setup, variables, settings);
    let found = Node::new(settings).look(identities.map(|identity| key_for(setup, &identity)));
    found.map(|(cache, key, environment)| ready(cache, key, environment))
}

/// Builds the environment; or tells why the PEX is handed over.
pub(super) fn build(
    setup: &Setup,
    variables: &Variables,
    settings: &Settings,
    arguments: &[OsString],
    trace: &mut Trace,
) -> Result<Result<Ready, Reason>, BootError> {
    let (stop, _watching) = Stop::watch(arguments);
    let store = FileStore::new(setup.pex().path.parent().unwrap_or(Path::new("/")));
    let means =
        Means { store: &store, threads: settings.threads(), stall_timeout: settings.stall_timeout, stop: &stop };
    let node = Node::new(settings);
    node.build(&[], trace, |cache, trace| {
        let built =
            build_in(cache, setup, &means, trace, |metadata| python::choose(setup, metadata, variables, settings))?;
        if let Ok((ready, true)) = &built {
            node.clean(&ready.cache, ready.key.as_deref().unwrap_or_default(), trace);
        }
        Ok(built.map(|(ready, _)| ready))
    })
}

/// Builds the environment in one cache. True: it was not there.
fn build_in(
    cache: Cache,
    setup: &Setup,
    means: &Means<'_>,
    trace: &mut Trace,
    choose: impl Fn(&[BTreeMap<String, Metadata>]) -> Result<Chosen, Reason>,
) -> Result<Result<(Ready, bool), Reason>, BootError> {
    let staging = cache.staging().map_err(|source| BuildError::Cache { path: cache.root().into(), source })?;
    let source = Source::open(setup, &staging, means)?;
    let chosen = match choose(&source.metadata) {
        Ok(chosen) => chosen,
        Err(reason) => return Ok(Err(reason)),
    };
    trace.mark(Phase::Plan);
    let key = key_for(setup, &chosen.choice.identity);
    let claimed = match wait(&cache, &key, means)? {
        Waited::There(environment) => {
            trace.mark(Phase::Wait);
            return Ok(Ok((ready(cache, key, environment), false)));
        }
        Waited::Ours(claimed) => claimed,
    };
    trace.mark(Phase::Wait);
    let (done, work) = (AtomicBool::new(false), Work { setup, source: &source, chosen: &chosen, cache: &cache });
    let layers = std::thread::scope(|scope| {
        let beating = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                claimed.progress();
                std::thread::park_timeout(BEAT);
            }
        });
        let layers = work.layers(&staging, means);
        done.store(true, Ordering::Relaxed);
        beating.thread().unpark();
        layers
    });
    let layers = match layers? {
        Ok(layers) => layers,
        Err(reason) => return Ok(Err(reason)),
    };
    trace.mark(Phase::Extract);
    trace.counts.built += layers.len() as u64;
    let environment = put_up(setup, &chosen, &key, &cache, layers, means, trace)?;
    drop(claimed);
    Ok(Ok((ready(cache, key, environment), true)))
}

enum Waited {
    There(Environment),
    Ours(Claimed),
}

/// Waits until the environment is there, or nobody extracts it, or whoever does stands still.
fn wait(cache: &Cache, key: &str, means: &Means<'_>) -> Result<Waited, BuildError> {
    let name = format!("{key}.pex");
    let mut watched = cache.watch(&name);
    loop {
        let claim = cache.claim(&name);
        if let InCache::Ready(environment) = cache.find_environment(key) {
            return Ok(Waited::There(environment));
        }
        if let Claim::Ours(claimed) = claim {
            return Ok(Waited::Ours(claimed));
        }
        if watched.is_stalled(means.stall_timeout) {
            return Ok(Waited::Ours(Claimed::without_lock()));
        }
        if means.stop.is_set() {
            return Err(BuildError::Stopped(means.stop.reason()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Lets Python write byte-code into the empty places for it: each file is written beside its place and renamed.
fn open_byte_code(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        if entry.file_name() == BYTE_CODE && fs::read_dir(&path)?.next().is_none() {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        } else {
            open_byte_code(&path)?;
        }
    }
    Ok(())
}

/// Puts up the tree of the layers.
fn put_up(
    setup: &Setup,
    chosen: &Chosen,
    key: &str,
    cache: &Cache,
    layers: Vec<Built>,
    means: &Means<'_>,
    trace: &mut Trace,
) -> Result<Environment, BootError> {
    let Found { job, .. } = job(setup);
    let (path, version) = (chosen.choice.identity.path.clone(), chosen.choice.version.clone());
    let manifest = manifest_of(setup, chosen, layers);
    let description = Description {
        format: 1,
        name: job.name,
        environment: setup.identity,
        store: job.store,
        python: path.display().to_string(),
        version: version.clone(),
    };
    let python = Python::Node { path, version };
    let tree = Tree {
        key,
        manifest: &manifest,
        manifest_bytes: &manifest.to_bytes(),
        python: &python,
        description: &description,
        overlays: &[],
    };
    let (environment, is_new) = ensure_tree(cache, &tree, means, trace)?;
    if is_new {
        // Without it modules are compiled at each start, which is slower and no fault.
        let _ = open_byte_code(&environment.path.join("lib"));
    }
    Ok(environment)
}

/// The manifest of what was extracted: its layers have no archives, being in the cache.
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
            kind,
            name,
            version,
            content: digest,
            archive: manifest::Archive {
                digest,
                size: 0,
                unpacked: 0,
                files: built.files,
                directory: 0,
                pieces: Vec::new(),
            },
            imports: Vec::new(),
            needs: Vec::new(),
            rank: 0,
            first: Vec::new(),
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

/// What the user's code in a PEX is called.
fn title(pexes: &[Pex], index: usize) -> String {
    let name = pexes.get(index).and_then(|pex| pex.path.file_name());
    name.map(|name| format!("code of {}", name.to_string_lossy())).unwrap_or_default()
}
