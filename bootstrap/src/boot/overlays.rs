//! What a job adds to an environment: overlays and payloads. Python uses them from their layers' directories.
//!
//! With overlays Python starts from a job prefix, a small directory of links (`tree/job.rs` of cpack-node says why); without, from
//! the environment's tree. Leases are taken in this order: the environment, the overlays, the job prefix that leads to them.

use std::path::{Path, PathBuf};

use cpack_format::job::Program;
use cpack_format::manifest::{Layer, LayerKind};
use cpack_node::building::{BuildError, Means, add_to_private, ensure_job, ensure_layers, in_order};
use cpack_node::cache::{Cache, Environment, Lease, Lookup};
use cpack_node::timing::Timing;

use super::{JobStart, Ready};
use crate::attempts::settle;
use crate::error::BootError;

/// How often a layer may vanish between being built and being leased.
const ATTEMPTS: usize = 5;

impl JobStart<'_> {
    /// Completes an environment with the job's overlays. Mostly these alone are new.
    pub(super) fn add_overlays(
        &self,
        cache: Cache,
        key: Option<String>,
        environment: Environment,
        timing: &mut Timing,
    ) -> Result<Ready, BootError> {
        let mut ready =
            Ready { prefix: environment.path, cache, key, job: None, payload: None, leases: vec![environment.lease] };
        for _ in 0..ATTEMPTS {
            let mut overlays = Vec::new();
            let missing = self.lease_overlays(&mut ready, &mut overlays);
            if missing.is_empty() {
                return if overlays.is_empty() { Ok(ready) } else { self.enter(ready, &overlays, timing) };
            }
            let (materials, missing) = (self.materials()?, in_order(missing));
            let means = materials.means(self.settings);
            if ready.cache.is_read_only() {
                self.build_overlays_elsewhere(&missing, &means, timing)?;
            } else {
                ensure_layers(&ready.cache, &missing, &means, timing)?;
            }
        }
        Err(BuildError::Vanishing(ready.cache.root().into()).into())
    }

    /// Builds overlays in another cache, because the one of the environment is on a read-only file system.
    fn build_overlays_elsewhere(
        &self,
        missing: &[&Layer],
        means: &Means<'_>,
        timing: &mut Timing,
    ) -> Result<(), BootError> {
        let mut attempts = self.node.attempts(missing);
        loop {
            let cache = attempts.next_cache(timing)?;
            let outcome = ensure_layers(&cache, missing, means, timing).map_err(BootError::from);
            if settle(&mut attempts, outcome)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes a lease on an overlay in `cache`, or in any other cache if that one is read-only. Returns its files, too.
    fn lease_overlay(&self, cache: &Cache, layer: &Layer) -> Option<(Lease, PathBuf)> {
        let lease = |cache: &Cache| Some((cache.lease_layer(layer)?, cache.layer_files(&layer.content)));
        lease(cache)
            .or_else(|| if cache.is_read_only() { self.node.caches().find_map(|other| lease(&other)) } else { None })
    }

    /// Starts from a prefix that has the overlays in these directories.
    fn enter(&self, mut ready: Ready, overlays: &[PathBuf], timing: &mut Timing) -> Result<Ready, BootError> {
        if ready.key.is_none() {
            // A private copy has them itself.
            add_to_private(&ready.cache, &ready.prefix, overlays)?;
            return Ok(ready);
        }
        let (environment, name) = if ready.cache.is_read_only() {
            let name = ready.cache.job_name(&ready.prefix, overlays);
            match ready.cache.find_job(&name) {
                Lookup::Ready(environment) => (environment, Some(name)),
                Lookup::Stale | Lookup::Missing => (self.enter_elsewhere(&ready.prefix, overlays, timing)?, None),
            }
        } else {
            let (environment, name) = ensure_job(&ready.cache, &ready.prefix, overlays)?;
            (environment, Some(name))
        };
        ready.prefix = environment.path;
        ready.leases.push(environment.lease);
        ready.job = name;
        Ok(ready)
    }

    /// The job prefix in another cache, because the one of the environment in `tree` is on a read-only file system.
    fn enter_elsewhere(
        &self,
        tree: &Path,
        overlays: &[PathBuf],
        timing: &mut Timing,
    ) -> Result<Environment, BootError> {
        for cache in self.node.caches() {
            if let Lookup::Ready(environment) = cache.find_job(&cache.job_name(tree, overlays)) {
                return Ok(environment);
            }
        }
        // Mostly the one that just got the overlays: nothing is said of it again.
        let known = self.node.usable_caches().filter(|cache| !cache.is_read_only());
        if let Some((environment, _)) = known.filter_map(|cache| ensure_job(&cache, tree, overlays).ok()).next() {
            return Ok(environment);
        }
        let mut attempts = self.node.attempts(&[]);
        loop {
            let cache = attempts.next_cache(timing)?;
            let outcome = ensure_job(&cache, tree, overlays).map_err(BootError::from);
            if let Some((environment, _)) = settle(&mut attempts, outcome)? {
                return Ok(environment);
            }
        }
    }

    /// Takes leases on the overlays, and returns those that no cache has. `overlays` gets the directories of those of the path,
    /// in their order.
    fn lease_overlays(&self, ready: &mut Ready, overlays: &mut Vec<PathBuf>) -> Vec<&Layer> {
        ready.leases.truncate(1);
        let mut missing = Vec::new();
        for layer in &self.job().overlays {
            let Some((lease, files)) = self.lease_overlay(&ready.cache, layer) else {
                missing.push(layer);
                continue;
            };
            ready.leases.push(lease);
            match &self.job().entry {
                Program::Payload(content) if *content == layer.content => ready.payload = Some(files),
                _ if layer.kind == LayerKind::Payload => {}
                _ => overlays.push(files),
            }
        }
        missing
    }
}
