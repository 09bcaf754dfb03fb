//! The tree of an environment: built by one process, waited for by others.

use std::io;
use std::path::{Path, PathBuf};

use cpack_artifact::fault::point;
use cpack_artifact::manifest::{Layer, Manifest};
use cpack_artifact::{Digest, events};

use super::{BuildError, GLANCES, Means, cache_error, ensure_layers, in_order};
use crate::cache::{Cache, Claim, Claimed, Description, Environment, Found, Published, lease_tree, write_records};
use crate::environment::{How, LinkError, Linked, Python, build_tree, write_hook};
use crate::trace::{Phase, Trace};

/// How often layers may vanish under a tree that is built.
const ATTEMPTS: usize = 5;

/// What a tree is made from.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// Its name in the cache.
    pub key: &'a str,
    /// Its layers and their order.
    pub manifest: &'a Manifest,
    /// The manifest as it was read: its digest is the environment id.
    pub manifest_bytes: &'a [u8],
    /// Its interpreter.
    pub python: &'a Python,
    /// What it was made from.
    pub description: &'a Description,
    /// Layers beside those of the manifest, wanted at the same time.
    pub overlays: &'a [Layer],
}

/// Makes sure that the environment is in `cache`, with the layers of its overlays.
///
/// True: this process put it up.
pub fn ensure_tree(
    cache: &Cache,
    tree: &Tree<'_>,
    means: &Means<'_>,
    trace: &mut Trace,
) -> Result<(Environment, bool), BuildError> {
    let layers = in_order(tree.manifest.layers.iter().chain(tree.overlays));
    for _ in 0..ATTEMPTS {
        ensure_layers(cache, &layers, means, trace)?;
        match put_up(cache, tree, means, trace) {
            Err(BuildError::Link(LinkError::Vanished { .. })) => {}
            result => return result,
        }
    }
    Err(BuildError::Vanishing(cache.root().into()))
}

fn put_up(
    cache: &Cache,
    tree: &Tree<'_>,
    means: &Means<'_>,
    trace: &mut Trace,
) -> Result<(Environment, bool), BuildError> {
    loop {
        let claimed = match wait_for_claim(cache, tree.key, means)? {
            Waited::There(environment) => {
                trace.mark(Phase::Wait);
                return Ok((environment, false));
            }
            Waited::Ours(claimed) => claimed,
        };
        point("tree.claimed").map_err(|e| cache_error(cache, e))?;
        trace.mark(Phase::Wait);
        let stale = match cache.find_environment(tree.key) {
            Found::Ready(environment) => return Ok((environment, false)),
            Found::Stale => true,
            Found::Missing => false,
        };
        let linked = build(cache, tree, means, stale, &|| claimed.progress(), trace)?;
        drop(claimed);
        trace.counts.files += linked.files;
        // Gone again only if somebody cleans up beside: once more then.
        if let Found::Ready(environment) = cache.find_environment(tree.key) {
            trace.mark(Phase::Commit);
            return Ok((environment, true));
        }
        if means.stop.is_set() {
            return Err(BuildError::Stopped(means.stop.reason()));
        }
    }
}

enum Waited {
    There(Environment),
    Ours(Claimed),
}

/// Waits until the environment is there, or nobody builds it, or whoever does stands still.
fn wait_for_claim(cache: &Cache, key: &str, means: &Means<'_>) -> Result<Waited, BuildError> {
    let mut pause = GLANCES.0;
    let mut watched = cache.watch(key);
    let _event = events::span("wait", || format!("environment {key}"));
    loop {
        if let Claim::Ours(claimed) = cache.claim(key) {
            return Ok(Waited::Ours(claimed));
        }
        if let Found::Ready(environment) = cache.find_environment(key) {
            return Ok(Waited::There(environment));
        }
        if watched.is_stalled(means.stall_timeout) {
            return Ok(Waited::Ours(Claimed::without_lock()));
        }
        if means.stop.is_set() {
            return Err(BuildError::Stopped(means.stop.reason()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(GLANCES.1);
    }
}

fn build(
    cache: &Cache,
    tree: &Tree<'_>,
    means: &Means<'_>,
    stale: bool,
    progress: &(dyn Fn() + Sync),
    trace: &mut Trace,
) -> Result<Linked, BuildError> {
    let failed = |e| cache_error(cache, e);
    let staging = cache.staging().map_err(failed)?;
    let staged = staging.subdirectory("tree").map_err(failed)?;
    let linked = fill(cache, tree, &staged, How::Link, means, progress)?;
    require_interpreter(&staged)?;
    trace.mark(Phase::Link);
    if stale {
        cache.replace_environment(&staged, tree.key).map_err(failed)?;
    } else if cache.publish_environment(&staged, tree.key).map_err(failed)? == Published::Theirs {
        return Ok(Linked::default());
    }
    Ok(linked)
}

/// A tree without an interpreter would be built again for ever.
fn require_interpreter(tree: &Path) -> Result<(), BuildError> {
    const NAME: &str = "bin/python";
    if tree.join(NAME).exists() { Ok(()) } else { Err(BuildError::NoInterpreter(NAME.into())) }
}

fn fill(
    cache: &Cache,
    tree: &Tree<'_>,
    place: &Path,
    how: How,
    means: &Means<'_>,
    progress: &(dyn Fn() + Sync),
) -> Result<Linked, BuildError> {
    let contents: Vec<Digest> = tree.manifest.layers.iter().map(|layer| layer.content).collect();
    // Whoever cleans up since the layers were looked at must know.
    contents.iter().for_each(|content| cache.touch_layer(content));
    let layers: Vec<PathBuf> = contents.iter().map(|content| cache.layer_files(content)).collect();
    let wanted = &tree.manifest.python;
    let records = |root: &Path| {
        write_hook(root, &wanted.version, &wanted.soabi)?;
        write_records(root, cache, tree.description, tree.manifest_bytes, &contents)
    };
    Ok(build_tree(place, &layers, tree.python, how, means.threads, progress, records)?)
}

/// Puts up an environment anew although one is there: somebody damaged it.
pub fn repair_tree(cache: &Cache, tree: &Tree<'_>, means: &Means<'_>, trace: &mut Trace) -> Result<(), BuildError> {
    let layers = in_order(&tree.manifest.layers);
    for _ in 0..ATTEMPTS {
        ensure_layers(cache, &layers, means, trace)?;
        match build(cache, tree, means, true, &|| {}, trace) {
            Err(BuildError::Link(LinkError::Vanished { .. })) => {}
            result => return result.map(|_| ()),
        }
    }
    Err(BuildError::Vanishing(cache.root().into()))
}

/// A copy of the environment that only this process and its children use, and may write to.
pub fn private_tree(
    cache: &Cache,
    tree: &Tree<'_>,
    means: &Means<'_>,
    trace: &mut Trace,
) -> Result<Environment, BuildError> {
    let failed = |e| cache_error(cache, e);
    let layers = in_order(tree.manifest.layers.iter().chain(tree.overlays));
    for _ in 0..ATTEMPTS {
        ensure_layers(cache, &layers, means, trace)?;
        // The lock protects the directory until the lease does.
        let (place, _lock) = cache.private_directory().map_err(failed)?;
        match fill(cache, tree, &place, How::Copy, means, &|| {}) {
            Err(BuildError::Link(LinkError::Vanished { .. })) => {}
            Err(error) => return Err(error),
            Ok(linked) => {
                require_interpreter(&place)?;
                trace.counts.files += linked.files;
                trace.mark(Phase::Link);
                point("private.filled").map_err(failed)?;
                let lease = lease_tree(&place).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
                return Ok(Environment { path: place, lease });
            }
        }
        let _ = crate::cache::remove_tree(&place, None);
    }
    Err(BuildError::Vanishing(cache.root().into()))
}
