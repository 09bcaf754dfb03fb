//! The tree of an environment: one process builds it, others wait for it.

use std::io;
use std::path::{Path, PathBuf};

use cpack_fault::point;
use cpack_format::Digest;
use cpack_format::manifest::{Layer, Manifest};

use super::missing_layers::{ensure_layers, in_order};
use super::waiting::{Waited, wait_for_environment};
use super::{BuildError, Means};
use crate::cache::{
    Cache, Committed, Description, Environment, Lookup, Staging, lease_tree, remove_tree, write_records,
};
use crate::timing::{Phase, Timing};
use crate::tree::{How, LinkError, Linked, Merged, OwnPrefix, Python, link_tree, own_files, seal_tree};

/// How often layers may vanish under a tree that is built.
const ATTEMPTS: usize = 5;

/// What an environment's tree is made from.
#[derive(Debug, Clone, Copy)]
pub struct TreeInputs<'a> {
    /// Its name in the cache.
    pub key: &'a str,
    /// Its layers and their order.
    pub manifest: &'a Manifest,
    /// The manifest as it was read: its digest is the environment id.
    pub manifest_bytes: &'a [u8],
    /// Its interpreter.
    pub python: &'a Python,
    /// Notes in the cache what it was made from.
    pub description: &'a Description,
    /// Layers that the job needs beside those of the manifest.
    pub overlays: &'a [Layer],
}

/// Makes sure that the environment is in `cache`, with the layers of its overlays. Returns whether this process built it.
pub fn ensure_tree(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<(Environment, bool), BuildError> {
    require_room(inputs.manifest, &cache.environment_path(inputs.key))?;
    with_layers(cache, inputs, means, timing, |timing| build_once(cache, inputs, means, timing))
}

/// Refuses a place whose path binaries have no room for, before anything is fetched.
fn require_room(manifest: &Manifest, place: &Path) -> Result<(), LinkError> {
    let length = place.as_os_str().len();
    match manifest.longest_prefix() {
        Some(room) if length > room => Err(LinkError::LongPrefix { length, room }),
        _ => Ok(()),
    }
}

/// Makes sure that the layers are in `cache`, then builds from them. Begins again if one vanishes meanwhile.
fn with_layers<T>(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    timing: &mut Timing,
    build: impl Fn(&mut Timing) -> Result<T, BuildError>,
) -> Result<T, BuildError> {
    let layers = in_order(inputs.manifest.layers.iter().chain(inputs.overlays));
    for _ in 0..ATTEMPTS {
        ensure_layers(cache, &layers, means, timing)?;
        match build(timing) {
            Err(BuildError::Link(LinkError::Vanished { .. })) => {}
            result => return result,
        }
    }
    Err(BuildError::Vanishing(cache.root().into()))
}

fn build_once(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<(Environment, bool), BuildError> {
    loop {
        let claimed = match wait_for_environment(cache, inputs.key, inputs.key, means)? {
            Waited::There(environment) => {
                timing.mark(Phase::Wait);
                return Ok((environment, false));
            }
            Waited::Ours(claimed) => claimed,
        };
        point("tree.claimed").map_err(|e| BuildError::cache(cache, e))?;
        timing.mark(Phase::Wait);
        let stale = match cache.find_environment(inputs.key) {
            Lookup::Ready(environment) => return Ok((environment, false)),
            Lookup::Stale => true,
            Lookup::Missing => false,
        };
        let linked = build(cache, inputs, means, stale, &|| claimed.progress(), timing)?;
        drop(claimed);
        timing.counts.files += linked.files;
        // Gone again only if another process cleaned up meanwhile: build it once more.
        if let Lookup::Ready(environment) = cache.find_environment(inputs.key) {
            timing.mark(Phase::Commit);
            return Ok((environment, true));
        }
        means.check_stop()?;
    }
}

fn build(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    stale: bool,
    progress: &(dyn Fn() + Sync),
    timing: &mut Timing,
) -> Result<Linked, BuildError> {
    let failed = |e| BuildError::cache(cache, e);
    let staging = cache.staging().map_err(failed)?;
    let staged = staging.subdirectory("tree").map_err(failed)?;
    let place = cache.environment_path(inputs.key);
    let linked = fill(cache, inputs, (&staged, &place), How::Link, means, progress)?;
    require_interpreter(&staged)?;
    timing.mark(Phase::Link);
    if stale {
        cache.replace_environment(&staged, inputs.key).map_err(failed)?;
    } else if cache.commit_environment(&staged, inputs.key).map_err(failed)? == Committed::Theirs {
        return Ok(Linked::default());
    }
    Ok(linked)
}

/// A tree without an interpreter would be built again for ever.
fn require_interpreter(tree: &Path) -> Result<(), BuildError> {
    const NAME: &str = "bin/python";
    if tree.join(NAME).exists() { Ok(()) } else { Err(BuildError::NoInterpreter(NAME.into())) }
}

/// Fills the directory `place`, which will be renamed to `final_place`.
fn fill(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    (place, final_place): (&Path, &Path),
    how: How,
    means: &Means<'_>,
    progress: &(dyn Fn() + Sync),
) -> Result<Linked, BuildError> {
    let contents: Vec<Digest> = inputs.manifest.layers.iter().map(|layer| layer.content).collect();
    // Tells a clean-up that began before this that the layers are in use.
    contents.iter().for_each(|content| cache.touch_layer(content));
    let layers: Vec<PathBuf> = contents.iter().map(|content| cache.layer_files(content)).collect();
    let own_prefix = OwnPrefix::of(inputs.manifest, final_place);
    let python = (inputs.python, &own_prefix);
    let Merged { linked, open } = link_tree(place, &layers, python, how, means.threads, progress)?;
    let own = |source| LinkError::Write { path: place.into(), source };
    own_part(cache, inputs, place).map_err(own)?;
    point("tree.records").map_err(own)?;
    seal_tree(place, how, &open).map_err(own)?;
    Ok(linked)
}

/// Writes what is in a tree beside the files of its layers: what makes it an environment, and its records.
fn own_part(cache: &Cache, inputs: &TreeInputs<'_>, place: &Path) -> io::Result<()> {
    let contents: Vec<Digest> = inputs.manifest.layers.iter().map(|layer| layer.content).collect();
    own_files(place, inputs.python, &inputs.manifest.python)?;
    write_records(place, cache, inputs.description, inputs.manifest_bytes, &contents)
}

/// Makes the part of a tree that is no layer's, in `staging`, for a tree that is served: its files go where the layers have
/// none of the same path.
pub fn stage_own_part(cache: &Cache, inputs: &TreeInputs<'_>, staging: &Staging) -> Result<PathBuf, BuildError> {
    let stage = || {
        let staged = staging.subdirectory("own")?;
        // As every tree with a layer has it.
        std::fs::create_dir(staged.join("lib"))?;
        own_part(cache, inputs, &staged)?;
        Ok(staged)
    };
    stage().map_err(|e| BuildError::cache(cache, e))
}

/// Builds a damaged environment again and puts it in the place of the one that is there.
pub fn repair_tree(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<(), BuildError> {
    with_layers(cache, inputs, means, timing, |timing| {
        build(cache, inputs, means, true, &|| {}, timing).map(|_: Linked| ())
    })
}

/// A copy of the environment that only this process and its children use and may write to.
pub fn private_tree(
    cache: &Cache,
    inputs: &TreeInputs<'_>,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<Environment, BuildError> {
    let failed = |e| BuildError::cache(cache, e);
    with_layers(cache, inputs, means, timing, |timing| {
        // The lock protects the directory until the lease in it does.
        let (path, _lock) = cache.private_directory().map_err(failed)?;
        let filled = fill(cache, inputs, (&path, &path), How::Copy, means, &|| {});
        if matches!(filled, Err(BuildError::Link(LinkError::Vanished { .. }))) {
            let _ = remove_tree(&path, None);
        }
        timing.counts.files += filled?.files;
        require_interpreter(&path)?;
        timing.mark(Phase::Link);
        point("private.filled").map_err(failed)?;
        let lease = lease_tree(&path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(Environment { path, lease })
    })
}
