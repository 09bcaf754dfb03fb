//! What a job with overlays starts from.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_fault::point;

use super::BuildError;
use crate::cache::{Cache, Committed, Environment, LEASE, Lookup, Staging, read_description, seal_directories};
use crate::listing::list;
use crate::tree::{Python, add_scripts, fill_job};

/// How often a job prefix may be cleaned up between being published and being leased.
const ATTEMPTS: usize = 5;

/// Makes sure that the job prefix of the environment in `tree` with the overlays in the directories `overlays` is in `cache`.
/// They may be in another cache, on a read-only file system. The caller holds leases on all of them.
///
/// It is a few dozen links, so starts do not wait for each other: each makes it, and one publishes.
pub fn ensure_job(cache: &Cache, tree: &Path, overlays: &[PathBuf]) -> Result<(Environment, String), BuildError> {
    let name = cache.job_name(tree, overlays);
    for _ in 0..ATTEMPTS {
        let stale = match cache.find_job(&name) {
            Lookup::Ready(environment) => return Ok((environment, name)),
            Lookup::Stale => true,
            Lookup::Missing => false,
        };
        make(cache, tree, &name, overlays, stale).map_err(|e| BuildError::cache(cache, e))?;
    }
    Err(BuildError::Vanishing(cache.root().into()))
}

fn make(cache: &Cache, tree: &Path, name: &str, overlays: &[PathBuf], stale: bool) -> io::Result<()> {
    let staging = cache.staging()?;
    let staged = stage(cache, &staging, tree, overlays)?;
    seal_directories(&staged)?;
    // Only a directory that may be written to can be moved to another parent.
    fs::set_permissions(&staged, Permissions::from_mode(0o755))?;
    if stale { cache.replace_job(&staged, name) } else { cache.commit_job(&staged, name).map(|_: Committed| ()) }
}

fn stage(cache: &Cache, staging: &Staging, tree: &Path, overlays: &[PathBuf]) -> io::Result<PathBuf> {
    // `pyvenv.cfg`, which says whether system packages are seen, is the tree's.
    let python = Python::of(&read_description(tree)?, false);
    let staged = staging.subdirectory("job")?;
    fill_job(&staged, tree, &cache.path_from_job(tree), &python, overlays)?;
    cache.write_job_records(&staged, tree, overlays)?;
    point("job.filled")?;
    Ok(staged)
}

/// Compares the job prefix called `name` with one that is made now, and puts that in its place if they differ. Whether it
/// was good. An error: what it leads to is gone.
pub fn check_job(cache: &Cache, name: &str) -> io::Result<bool> {
    let (tree, overlays) = cache.job_parts(name).ok_or(io::ErrorKind::NotFound)?;
    let staging = cache.staging()?;
    let staged = stage(cache, &staging, &tree, &overlays)?;
    let place = cache.job_path(name);
    if is_same(&staged, &place)? && is_same(&place, &staged)? {
        return Ok(true);
    }
    drop(staging);
    make(cache, &tree, name, &overlays, true).map(|()| false)
}

/// Whether all that is below `one`, but leases, is below `other` in the same form.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    for (name, kind) in list(one)? {
        let (ours, theirs) = (one.join(&name), other.join(&name));
        let same = match fs::symlink_metadata(&theirs) {
            Err(_) => false,
            Ok(found) if found.file_type() != kind => false,
            Ok(_) if kind.is_dir() => is_same(&ours, &theirs)?,
            Ok(_) if kind.is_symlink() => fs::read_link(&ours)? == fs::read_link(&theirs)?,
            Ok(_) => name == LEASE || fs::read(&ours)? == fs::read(&theirs)?,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Adds overlays to a private copy of an environment, which no other start uses.
pub fn add_to_private(cache: &Cache, tree: &Path, overlays: &[PathBuf]) -> Result<(), BuildError> {
    let add = || {
        cache.write_overlays(tree, overlays)?;
        add_scripts(&tree.join("bin"), overlays)
    };
    add().map_err(|e| BuildError::cache(cache, e))
}
