//! Environments of a container's image that were built under another boot id: checked once where they are, and then used.

use cpack_node::building::{BuildError, Means};
use cpack_node::cache::{Cache, Lookup, Verdict, content_of};
use cpack_node::timing::{Phase, Timing};
use cpack_node::tree::tree_fault;

use super::cold::Plan;
use super::{JobStart, Ready};
use crate::error::BootError;

impl JobStart<'_> {
    /// Takes the environment from a cache whose directories cannot be moved, if one has it and it is whole.
    ///
    /// Takes no lock: a check changes nothing, so several processes may check the same environment at once.
    pub(super) fn adopt(
        &self,
        plan: &Plan,
        means: &Means<'_>,
        timing: &mut Timing,
    ) -> Result<Option<Ready>, BootError> {
        for cache in self.node.caches() {
            let key = self.key_in(&plan.key, &cache);
            let is_stale = matches!(cache.find_environment(&key), Lookup::Stale);
            if !is_stale || !cache.is_of_image() || self.node.is_noted(&cache, &key, Verdict::Damaged) {
                continue;
            }
            let whole = is_whole(&cache, &key, plan, means)?;
            timing.mark(Phase::Extract);
            timing.counts.checked += plan.manifest.layers.len() as u64;
            if !whole {
                continue;
            }
            // If no cache takes the note, each start checks the environment.
            self.node.note_checked(&cache, &key, Verdict::Whole);
            if let Some(environment) = cache.lease_environment(&key) {
                return self.add_overlays(cache, Some(key), environment, timing).map(Some);
            }
        }
        Ok(None)
    }
}

/// Reads all layers of an environment and compares its tree with them.
fn is_whole(cache: &Cache, key: &str, plan: &Plan, means: &Means<'_>) -> Result<bool, BuildError> {
    for layer in &plan.manifest.layers {
        means.check_stop()?;
        let found = content_of(&cache.layer_files(&layer.content), means.threads, &|| {});
        if found.ok() != Some(layer.content) {
            return Ok(false);
        }
    }
    let tree = cache.environment_path(key);
    Ok(tree_fault(cache, &tree, &plan.manifest, &plan.python).is_none())
}
