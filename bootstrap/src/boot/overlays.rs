//! What a job adds to an environment: overlays and payloads, used straight from the layers' directories.

use std::path::PathBuf;

use cpack_artifact::job::Entry;
use cpack_artifact::manifest::{Layer, LayerKind};

use super::{Boot, Ready};
use crate::build::{BuildError, ensure_layers, in_order};
use crate::cache::{Cache, Environment, Lease};
use crate::error::BootError;
use crate::trace::Trace;

/// How often a layer may vanish between being built and being leased.
const ATTEMPTS: usize = 5;

impl Boot<'_> {
    /// Completes an environment with the job's overlays, which mostly are all that is new.
    pub(super) fn add_overlays(
        &self,
        cache: Cache,
        key: Option<String>,
        environment: Environment,
        trace: &mut Trace,
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
            if !ready.cache.is_read_only() {
                ensure_layers(&ready.cache, &missing, &means, trace)?;
                continue;
            }
            // Nothing can be added to the cache of an image.
            self.node.build(&missing, trace, |cache, trace| Ok(ensure_layers(&cache, &missing, &means, trace)?))?;
        }
        Err(BuildError::Vanishing(ready.cache.root().into()).into())
    }

    /// A lease on an overlay and where it is: beside the environment, or in any cache where that one is read-only.
    fn lease_overlay(&self, cache: &Cache, layer: &Layer) -> Option<(Lease, PathBuf)> {
        let content = &layer.content;
        let lease = |cache: &Cache| Some((cache.lease_layer(content)?, cache.layer_files(content)));
        lease(cache)
            .or_else(|| if cache.is_read_only() { self.node.caches().find_map(|other| lease(&other)) } else { None })
    }

    /// Takes leases on the overlays; gives back those that are not there.
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
                Entry::Payload(content) if *content == layer.content => ready.payload = Some(files),
                _ if layer.kind == LayerKind::Payload => {}
                _ => ready.overlays.push(files),
            }
        }
        missing
    }
}
