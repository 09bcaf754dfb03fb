//! Environments of a container's image, which another boot id wrote: checked where they are, once, and then used.

use super::{Boot, Ready, Trace};
use crate::boot::cold::Plan;
use crate::build::{BuildError, Means};
use crate::cache::{Cache, Found, content_of};
use crate::environment::tree_fault;
use crate::error::BootError;
use crate::trace::Phase;

impl Boot<'_> {
    /// The environment from a cache whose directories cannot be moved, if there is one and all of it is whole.
    ///
    /// Nobody is kept from checking the same at the same time: a check changes nothing.
    pub(super) fn adopt(&self, plan: &Plan, means: &Means<'_>, trace: &mut Trace) -> Result<Option<Ready>, BootError> {
        for cache in self.node.caches() {
            let is_stale = matches!(cache.find_environment(&plan.key), Found::Stale);
            if !is_stale || !cache.is_of_image() || self.node.is_noted(&cache, &plan.key, false) {
                continue;
            }
            let whole = is_whole(&cache, plan, means)?;
            trace.mark(Phase::Extract);
            trace.counts.checked += plan.manifest.layers.len() as u64;
            if !whole {
                continue;
            }
            // Where it cannot be noted it is checked by each start.
            self.node.note_checked(&cache, &plan.key, true);
            if let Some(environment) = cache.lease_environment(&plan.key) {
                return self.add_overlays(cache, Some(plan.key.clone()), environment, trace).map(Some);
            }
        }
        Ok(None)
    }
}

/// Reads all layers of an environment, and compares its tree with them.
fn is_whole(cache: &Cache, plan: &Plan, means: &Means<'_>) -> Result<bool, BuildError> {
    for layer in &plan.manifest.layers {
        if means.stop.is_set() {
            return Err(BuildError::Stopped(means.stop.reason()));
        }
        let found = content_of(&cache.layer_files(&layer.content), means.threads, &|| {});
        if found.ok() != Some(layer.content) {
            return Ok(false);
        }
    }
    let tree = cache.environment_path(&plan.key);
    Ok(tree_fault(cache, &tree, &plan.manifest, &plan.python).is_none())
}
