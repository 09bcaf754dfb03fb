//! A cold start: the manifest, an interpreter, a place, the layers, the tree.

use cpack_format::Digest;
use cpack_format::manifest::{Layer, MAX_JSON, Manifest};
use cpack_lazy::Demand;
use cpack_node::building::{FETCHES, ensure_tree, in_order, private_tree};
use cpack_node::cache::{Cache, Description};
use cpack_node::stop::Stop;
use cpack_node::tree::Python;
use cpack_store::{Key, Store, StoreOptions, StoreUri, open};

use super::behind::Behind;
use super::{JobStart, Means, Phase, Ready, Timing, TreeInputs, trace};
use crate::attempts::settle;
use crate::error::BootError;
use crate::interpreter::{Search, choose, environment_key, node_glibc, require_glibc, require_platform};
use crate::settings::Settings;
use crate::watch::{Watching, watch};

/// What only a start that builds something opens: the store, and the watching thread.
#[derive(Debug)]
pub(crate) struct Materials {
    store: Box<dyn Store>,
    fetches: usize,
    stop: Stop,
    _watching: Watching,
}

impl Materials {
    pub(crate) fn means(&self, settings: &Settings) -> Means<'_> {
        Means { fetches: self.fetches, ..settings.means(&*self.store, &self.stop) }
    }
}

/// What a cold start builds from.
pub(crate) struct Plan {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) python: Python,
    /// Its name in a cache, see [`JobStart::key_in`].
    pub(super) key: String,
    pub(super) description: Description,
}

impl Plan {
    /// What the tree called `key` is made from.
    pub(super) fn inputs<'a>(&'a self, key: &'a str, overlays: &'a [Layer]) -> TreeInputs<'a> {
        TreeInputs {
            key,
            manifest: &self.manifest,
            manifest_bytes: &self.bytes,
            python: &self.python,
            description: &self.description,
            overlays,
        }
    }
}

impl JobStart<'_> {
    /// Opens the job's store, and starts the watching thread.
    pub(crate) fn materials(&self) -> Result<Materials, BootError> {
        let store = self.open_store()?;
        let (stop, watching) = watch(self.arguments);
        Ok(Materials { store, fetches: FETCHES, stop, _watching: watching })
    }

    /// The same for what fills behind a lazy start: it takes of the network what the job leaves.
    pub(super) fn materials_behind(&self, demand: &'static Demand) -> Result<Materials, BootError> {
        let materials = self.materials()?;
        Ok(Materials { store: Box::new(Behind::new(materials.store, demand)), fetches: 1, ..materials })
    }

    /// Opens the job's store.
    pub(crate) fn open_store(&self) -> Result<Box<dyn Store>, BootError> {
        let uri: StoreUri = self.job().store.parse()?;
        let options = StoreOptions::of_process(self.job().cluster.clone());
        Ok(open(&uri, &options)?)
    }

    /// Builds the environment in the best place that can take it.
    pub(super) fn build(&self, timing: &mut Timing) -> Result<Ready, BootError> {
        self.build_from(&self.materials()?, timing)
    }

    /// The same from these materials.
    pub(super) fn build_from(&self, materials: &Materials, timing: &mut Timing) -> Result<Ready, BootError> {
        let plan = self.plan(&*materials.store)?;
        timing.mark(Phase::Plan);
        let means = materials.means(self.settings);
        if !self.settings.writable {
            // The warm path does not find an interpreter behind a shim: it was asked only now.
            if let Some((cache, key, environment)) = self.node.look_by(|cache| self.key_in(&plan.key, cache)) {
                return self.add_overlays(cache, Some(key), environment, timing);
            }
            if let Some(ready) = self.adopt(&plan, &means, timing)? {
                return Ok(ready);
            }
        }
        let wanted = in_order(plan.manifest.layers.iter().chain(&self.job().overlays));
        let mut attempts = self.node.attempts(&wanted);
        loop {
            let cache = attempts.next_cache(timing)?;
            if let Some(ready) = settle(&mut attempts, self.build_in(cache, &plan, &means, timing))? {
                return Ok(ready);
            }
        }
    }

    /// Builds the environment in one cache, and cleans that up.
    pub(crate) fn build_in(
        &self,
        cache: Cache,
        plan: &Plan,
        means: &Means<'_>,
        timing: &mut Timing,
    ) -> Result<Ready, BootError> {
        let key = self.key_in(&plan.key, &cache);
        let inputs = plan.inputs(&key, &self.job().overlays);
        if self.settings.writable {
            let environment = private_tree(&cache, &inputs, means, timing)?;
            self.node.clean(&cache, &key, timing);
            return self.add_overlays(cache, None, environment, timing);
        }
        let (environment, is_new) = ensure_tree(&cache, &inputs, means, timing)?;
        if is_new {
            cache.remove_shared_pieces(&plan.manifest.layers);
            self.node.clean(&cache, &key, timing);
        }
        self.add_overlays(cache, Some(key), environment, timing)
    }

    /// Reads the manifest and chooses an interpreter.
    pub(crate) fn plan(&self, store: &dyn Store) -> Result<Plan, BootError> {
        let job = self.job();
        let (bytes, location) = self.manifest_bytes(store)?;
        let mut manifest = Manifest::parse(&bytes).map_err(|source| BootError::Manifest { location, source })?;
        trace::rank(&mut manifest.layers, &job.trace);
        require_platform(&manifest.python.platform)?;
        let search = Search::new(job, self.settings);
        let (python, identity) = if job.interpreter.shipped {
            require_glibc(&node_glibc(), manifest.python.least_glibc.as_deref())?;
            (Python::Shipped { version: manifest.python.version.clone() }, None)
        } else {
            let choice = choose(&search)?;
            require_glibc(&choice.glibc, manifest.python.least_glibc.as_deref())?;
            let (path, version) = (choice.identity.path.clone(), choice.version);
            (Python::Node { path, version, sees_system: manifest.sees_system() }, Some(choice.identity))
        };
        let key = environment_key(&job.environment, search.minor, search.soabi, identity.as_ref());
        let description = python.describe(job);
        Ok(Plan { manifest, bytes, python, key, description })
    }

    /// The manifest that the job names, from the launcher or the store, and its location for messages.
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
}
