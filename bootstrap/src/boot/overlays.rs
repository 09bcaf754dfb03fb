//! What a job adds to an environment: overlays and payloads. Python uses them from their layers' directories.

use cpack_format::job::Program;
use cpack_format::manifest::{Layer, LayerKind};
use cpack_node::building::{BuildError, ensure_layers, in_order};
use cpack_node::cache::{Cache, Environment};
use cpack_node::timing::Timing;

use super::{Boot, Ready};
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
            let materials = self.materials()?;
            ensure_layers(&ready.cache, &in_order(missing), &materials.means(self.settings), timing)?;
        }
        Err(BuildError::Vanishing(ready.cache.root().into()).into())
    }

    /// Takes leases on the overlays, and returns those that are not in the cache.
    fn lease_overlays(&self, ready: &mut Ready) -> Vec<&Layer> {
        ready.leases.truncate(1);
        ready.overlays.clear();
        let mut missing = Vec::new();
        for layer in &self.job().overlays {
            let Some(lease) = ready.cache.lease_layer(&layer.content) else {
                missing.push(layer);
                continue;
            };
            ready.leases.push(lease);
            let files = ready.cache.layer_files(&layer.content);
            match &self.job().entry {
                Program::Payload(content) if *content == layer.content => ready.payload = Some(files),
                _ if layer.kind == LayerKind::Payload => {}
                _ => ready.overlays.push(files),
            }
        }
        missing
    }
}
