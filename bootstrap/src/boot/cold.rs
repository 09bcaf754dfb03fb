//! A cold start: the manifest, an interpreter, a place, the layers, the tree.

use cpack_artifact::Digest;
use cpack_artifact::manifest::{MAX_JSON, Manifest};
use cpack_artifact::store::{Key, Store, StoreOptions, StoreUri, open};

use super::{Boot, Means, Phase, Ready, Trace, Tree};
use crate::build::{ensure_tree, in_order, private_tree};
use crate::cache::{Cache, Description};
use crate::environment::Python;
use crate::error::BootError;
use crate::interpreter::{Search, choose, environment_key, node_glibc, require_glibc, require_platform};
use crate::settings::Settings;
use crate::watch::{Stop, Watching};

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
        let options = StoreOptions::of_process(self.job().cluster.clone());
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
            if let Some((cache, key, environment)) = self.node.look([plan.key.clone()]) {
                return self.add_overlays(cache, Some(key), environment, trace);
            }
        }
        let wanted = in_order(plan.manifest.layers.iter().chain(&self.job().overlays));
        self.node.build(&wanted, trace, |cache, trace| self.build_in(cache, &plan, &means, trace))
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
            self.node.clean(&cache, &plan.key, trace);
            return self.add_overlays(cache, None, environment, trace);
        }
        let (environment, is_new) = ensure_tree(&cache, &tree, means, trace)?;
        if is_new {
            self.node.clean(&cache, &plan.key, trace);
        }
        self.add_overlays(cache, Some(plan.key.clone()), environment, trace)
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
            let (path, version) = (choice.identity.path.clone(), choice.version);
            (Python::Node { path, version, sees_system: manifest.sees_system() }, Some(choice.identity))
        };
        let key = environment_key(&job.environment, search.minor, search.soabi, identity.as_ref());
        let (python_path, version) = match &python {
            Python::Node { path, version, .. } => (path.display().to_string(), version.clone()),
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
}
