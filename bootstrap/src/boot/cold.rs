//! A cold start: the manifest, an interpreter, a place, the layers, the tree.

use std::time::Duration;

use cpack_artifact::Digest;
use cpack_artifact::manifest::{Layer, MAX_JSON, Manifest};
use cpack_artifact::store::{Key, Store, StoreOptions, StoreUri, open};

use super::{Boot, Means, Phase, Ready, Trace, Tree};
use crate::build::{ensure_tree, in_order, private_tree};
use crate::cache::{
    Cache, Cleaning, Description, Environment, Found as InCache, LayerState, Place, PlaceError, RECENT, clean, free_at,
    unusable,
};
use crate::environment::Python;
use crate::error::BootError;
use crate::interpreter::{Search, choose, environment_key, node_glibc, require_glibc, require_platform};
use crate::settings::Settings;
use crate::watch::{Stop, Watching};

/// How long a start may clean up before Python runs.
const CLEANING_TIME: Duration = Duration::from_secs(1);

/// How long it may clean up where it cannot go on without.
const ROOM_TIME: Duration = Duration::from_secs(30);

/// Layers that this start, or one beside it, built a moment ago are not what is to go.
const JUST_BUILT: Duration = Duration::from_secs(120);

/// What is opened and started only when something is to be built.
#[derive(Debug)]
pub struct Materials {
    store: Box<dyn Store>,
    stop: Stop,
    _watching: Watching,
}

impl Materials {
    /// What building needs.
    pub fn means(&self, settings: &Settings) -> Means<'_> {
        Means {
            store: &*self.store,
            threads: settings.threads(),
            stall_timeout: settings.stall_timeout,
            stop: &self.stop,
        }
    }
}

/// What an environment will be made from.
struct Plan {
    manifest: Manifest,
    bytes: Vec<u8>,
    python: Python,
    key: String,
    description: Description,
}

impl Boot<'_> {
    /// Opens the job's store, and starts to watch whether anybody still wants this.
    pub fn materials(&self) -> Result<Materials, BootError> {
        let uri: StoreUri = self.job().store.parse()?;
        let options = StoreOptions::new(self.job().cluster.clone(), |name| std::env::var(name).ok());
        let store = open(&uri, &options)?;
        let (stop, watching) = Stop::watch(self.arguments);
        Ok(Materials { store, stop, _watching: watching })
    }

    /// Builds the environment in the best place there is.
    pub(super) fn build(&self, trace: &mut Trace) -> Result<Ready, BootError> {
        let materials = self.materials()?;
        let plan = self.plan(&*materials.store)?;
        trace.mark(Phase::Plan);
        let means = materials.means(self.settings);
        if !self.settings.writable {
            // An interpreter behind a shim is known only now that it was asked.
            if let Some((cache, environment)) = self.look_for(&plan.key) {
                return self.add_overlays(cache, Some(plan.key), environment, trace);
            }
        }
        match self.build_somewhere(&plan, &means, trace) {
            Err(BootError::Build(error)) if error.is_full() && self.make_room(trace) => {
                self.build_somewhere(&plan, &means, trace)
            }
            result => result,
        }
    }

    /// Builds in the first place that can take it.
    fn build_somewhere(&self, plan: &Plan, means: &Means<'_>, trace: &mut Trace) -> Result<Ready, BootError> {
        let wanted = in_order(plan.manifest.layers.iter().chain(&self.job().overlays));
        let mut refusals = Vec::new();
        let mut failure = None;
        for place in self.places_for(&wanted, &mut refusals) {
            let cache = match Cache::create(place, &self.boot) {
                Ok(cache) => cache,
                Err(error) => {
                    refusals.push(error.to_string());
                    continue;
                }
            };
            match self.build_in(cache, plan, means, trace) {
                Err(BootError::Build(error)) if error.is_of_this_place() => failure = Some(error),
                result => return result,
            }
        }
        Err(failure.map_or_else(|| BootError::NoPlace(refusals.join("; ")), BootError::Build))
    }

    fn look_for(&self, key: &str) -> Option<(Cache, Environment)> {
        self.places.iter().find_map(|place| {
            let cache = Cache::open(place, &self.boot).ok()?;
            match cache.find_environment(key) {
                InCache::Ready(environment) => Some((cache, environment)),
                InCache::Stale | InCache::Missing => None,
            }
        })
    }

    fn build_in(&self, cache: Cache, plan: &Plan, means: &Means<'_>, trace: &mut Trace) -> Result<Ready, BootError> {
        let tree = Tree {
            key: &plan.key,
            manifest: &plan.manifest,
            manifest_bytes: &plan.bytes,
            python: &plan.python,
            description: &plan.description,
            overlays: &self.job().overlays,
        };
        if self.settings.writable {
            let environment = private_tree(&cache, &tree, means, trace)?;
            self.clean(&cache, &plan.key, trace);
            return self.add_overlays(cache, None, environment, trace);
        }
        let (environment, is_new) = ensure_tree(&cache, &tree, means, trace)?;
        if is_new {
            self.clean(&cache, &plan.key, trace);
        }
        self.add_overlays(cache, Some(plan.key.clone()), environment, trace)
    }

    fn clean(&self, cache: &Cache, key: &str, trace: &mut Trace) {
        let limit = self.settings.cache_limit;
        let cleaning = Cleaning { limit, recent: RECENT, time: CLEANING_TIME, keep: Some(key) };
        // Nobody waits for it to succeed.
        let _ = clean(cache, &cleaning);
        trace.mark(Phase::Clean);
    }

    /// Removes what nobody uses from all caches, since no disk has room: slow, and better than not to start.
    fn make_room(&self, trace: &mut Trace) -> bool {
        let cleaning = Cleaning { limit: 0, recent: JUST_BUILT, time: ROOM_TIME, keep: None };
        let caches = self.places.iter().filter_map(|place| Cache::open(place, &self.boot).ok());
        let bytes: u64 = caches.filter_map(|cache| clean(&cache, &cleaning).ok()).map(|cleaned| cleaned.bytes).sum();
        trace.mark(Phase::Clean);
        bytes > 0
    }

    /// Reads the manifest and finds the interpreter.
    fn plan(&self, store: &dyn Store) -> Result<Plan, BootError> {
        let job = self.job();
        let (bytes, location) = self.manifest_bytes(store)?;
        let manifest = Manifest::parse(&bytes).map_err(|source| BootError::Manifest { location, source })?;
        require_platform(&manifest.python.platform)?;
        let search = Search::new(job, self.settings);
        let (python, identity) = if job.interpreter.shipped {
            require_glibc(&node_glibc(), manifest.python.least_glibc.as_deref())?;
            (Python::Shipped { version: manifest.python.version.clone() }, None)
        } else {
            let choice = choose(&search)?;
            require_glibc(&choice.glibc, manifest.python.least_glibc.as_deref())?;
            (Python::Node { path: choice.identity.path.clone(), version: choice.version }, Some(choice.identity))
        };
        let key = environment_key(&job.environment, search.minor, search.soabi, identity.as_ref());
        let (python_path, version) = match &python {
            Python::Node { path, version } => (path.display().to_string(), version.clone()),
            Python::Shipped { version } => (String::new(), version.clone()),
        };
        let description = Description {
            format: 1,
            name: job.name.clone(),
            environment: job.environment,
            store: job.store.clone(),
            python: python_path,
            version,
        };
        Ok(Plan { manifest, bytes, python, key, description })
    }

    /// The manifest that the job names, from the launcher or the store, and where it was.
    pub(crate) fn manifest_bytes(&self, store: &dyn Store) -> Result<(Vec<u8>, String), BootError> {
        let expected = self.job().environment;
        let key = Key::environment(&expected);
        let (bytes, location) = match &self.found.manifest {
            Some(bytes) => (bytes.clone(), self.found.origin.to_string()),
            None => (store.read(&key, MAX_JSON)?, store.uri().join(key.as_str())),
        };
        let found = Digest::of(&bytes);
        if found == expected {
            return Ok((bytes, location));
        }
        let reason = format!("its digest is {found}, expected {expected}: upload the environment again with --repair");
        Err(BootError::WrongManifest { location, reason })
    }

    /// The places to build in, best first: where most of the layers are already, then in their order, those without
    /// enough space last.
    fn places_for(&self, wanted: &[&Layer], refusals: &mut Vec<String>) -> Vec<&Place> {
        let total: u64 = wanted.iter().map(|layer| layer.archive.unpacked).sum();
        let mut ranked = Vec::new();
        for place in &self.places {
            if let Some(reason) = unusable(place) {
                refusals.push(format!("{}: {reason}", place.path.display()));
                continue;
            }
            let there = match Cache::open(place, &self.boot) {
                Ok(cache) => size_there(&cache, wanted),
                Err(PlaceError::Io { .. }) => 0,
                Err(error) => {
                    refusals.push(error.to_string());
                    continue;
                }
            };
            let lacks_space = free_at(&place.path) < total.saturating_sub(there);
            ranked.push((lacks_space, std::cmp::Reverse(there), place));
        }
        ranked.sort_by_key(|(lacks_space, there, _)| (*lacks_space, *there));
        ranked.into_iter().map(|(_, _, place)| place).collect()
    }
}

/// How much of `wanted` is in a cache.
fn size_there(cache: &Cache, wanted: &[&Layer]) -> u64 {
    let there = wanted.iter().filter(|layer| cache.layer_state(&layer.content) != LayerState::Missing);
    there.map(|layer| layer.archive.unpacked.max(1)).sum()
}
