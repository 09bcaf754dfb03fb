//! What a job adds to an environment: overlays and payloads. Python uses them from their layers' directories.

use std::path::PathBuf;

use cpack_format::job::Program;
use cpack_format::manifest::{Layer, LayerKind};
use cpack_node::building::{BuildError, Means, ensure_layers, in_order};
use cpack_node::cache::{Cache, Environment, Lease};
use cpack_node::timing::Timing;

use super::{Boot, Ready};
use crate::attempts::settle;
use crate::error::BootError;

/// How often a layer may vanish between being built and being leased.
const ATTEMPTS: usize = 5;

impl Boot<'_> {
    /// Completes an environment with the job's overlays. Mostly these alone are new.
    pub(super) fn add_overlays(
        &self,
        cache: Cache,
        key: Option<String>,
        environment: Environment,
        timing: &mut Timing,
    ) -> Result<Ready, BootError> {
        let mut ready = Ready {
            prefix: environment.path,
            cache,
            key,
            overlays: Vec::new(),
            payload: None,
            leases: vec![environment.lease],
        };
        for _ in 0..ATTEMPTS {
            let missing = self.lease_overlays(&mut ready);
            if missing.is_empty() {
                return Ok(ready);
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
        let content = &layer.content;
        let lease = |cache: &Cache| Some((cache.lease_layer(content)?, cache.layer_files(content)));
        lease(cache)
            .or_else(|| if cache.is_read_only() { self.node.caches().find_map(|other| lease(&other)) } else { None })
    }

    /// Takes leases on the overlays, and returns those that no cache has.
    fn lease_overlays(&self, ready: &mut Ready) -> Vec<&Layer> {
        ready.leases.truncate(1);
        ready.overlays.clear();
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
                _ => ready.overlays.push(files),
            }
        }
        missing
    }
}
