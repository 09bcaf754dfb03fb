//! What a job adds to an environment: overlays and payloads, used straight from the layers' directories.
//!
//! With overlays Python starts from a job prefix, a small directory of links ([`crate::environment`] says why); without, from
//! the environment's tree. Leases are taken in this order: the environment, the overlays, the job prefix that leads to them.

use cpack_artifact::job::Entry;
use cpack_artifact::manifest::{Layer, LayerKind};

use super::{Boot, Ready};
use cpack_artifact::Digest;

use crate::build::{BuildError, add_to_private, ensure_job, ensure_layers, in_order};
use crate::cache::{Cache, Environment};
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
        let mut ready =
            Ready { prefix: environment.path, cache, key, job: None, payload: None, leases: vec![environment.lease] };
        for _ in 0..ATTEMPTS {
            let mut overlays = Vec::new();
            let missing = self.lease_overlays(&mut ready, &mut overlays);
            if missing.is_empty() {
                return if overlays.is_empty() { Ok(ready) } else { enter(ready, &overlays) };
            }
            let materials = self.materials()?;
            ensure_layers(&ready.cache, &in_order(missing), &materials.means(self.settings), trace)?;
        }
        Err(BuildError::Vanishing(ready.cache.root().into()).into())
    }

    /// Takes leases on the overlays; gives back those that are not there. `overlays` get those of the path, in their order.
    fn lease_overlays(&self, ready: &mut Ready, overlays: &mut Vec<Digest>) -> Vec<&Layer> {
        ready.leases.truncate(1);
        let mut missing = Vec::new();
        for layer in &self.job().overlays {
            let Some(lease) = ready.cache.lease_layer(&layer.content) else {
                missing.push(layer);
                continue;
            };
            ready.leases.push(lease);
            match &self.job().entry {
                Entry::Payload(content) if *content == layer.content => {
                    ready.payload = Some(ready.cache.layer_files(&layer.content));
                }
                _ if layer.kind == LayerKind::Payload => {}
                _ => overlays.push(layer.content),
            }
        }
        missing
    }
}

/// Makes what is ready a prefix that has the overlays.
fn enter(mut ready: Ready, overlays: &[Digest]) -> Result<Ready, BootError> {
    match &ready.key {
        // A private copy has them itself.
        None => add_to_private(&ready.cache, &ready.prefix, overlays)?,
        Some(key) => {
            let (environment, name) = ensure_job(&ready.cache, key, overlays)?;
            ready.prefix = environment.path;
            ready.leases.push(environment.lease);
            ready.job = Some(name);
        }
    }
    Ok(ready)
}
