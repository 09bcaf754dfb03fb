//! What a job with overlays starts from.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::fault::point;

use super::{BuildError, cache_error};
use crate::cache::{
    Cache, Environment, Found, LEASE, Published, Staging, environment_of, read_description, seal_directories,
    write_overlays,
};
use crate::environment::{Python, add_scripts, fill_job};

/// How often a job prefix may be cleaned up between being published and being leased.
const ATTEMPTS: usize = 5;

/// Makes sure that the job prefix of the environment called `key` with `overlays` is in `cache`. The caller holds leases on
/// all of them.
///
/// It is a few dozen links, so nobody waits for another who makes it: all do, and one publishes.
pub fn ensure_job(cache: &Cache, key: &str, overlays: &[Digest]) -> Result<(Environment, String), BuildError> {
    let name = cache.job_name(key, overlays);
    for _ in 0..ATTEMPTS {
        let stale = match cache.find_job(&name) {
            Found::Ready(environment) => return Ok((environment, name)),
            Found::Stale => true,
            Found::Missing => false,
        };
        make(cache, key, &name, overlays, stale).map_err(|e| cache_error(cache, e))?;
    }
    Err(BuildError::Vanishing(cache.root().into()))
}

fn make(cache: &Cache, key: &str, name: &str, overlays: &[Digest], stale: bool) -> io::Result<()> {
    let staging = cache.staging()?;
    let staged = stage(cache, &staging, key, overlays)?;
    seal_directories(&staged)?;
    // Only a directory that may be written to can be moved to another parent.
    fs::set_permissions(&staged, Permissions::from_mode(0o755))?;
    if stale { cache.replace_job(&staged, name) } else { cache.publish_job(&staged, name).map(|_: Published| ()) }
}

fn stage(cache: &Cache, staging: &Staging, key: &str, overlays: &[Digest]) -> io::Result<PathBuf> {
    let tree = cache.environment_path(key);
    let description = read_description(&tree)?;
    let staged = staging.subdirectory("job")?;
    fill_job(&staged, &tree, &python(&description.python, description.version), &files(cache, overlays))?;
    cache.write_job_records(&staged, overlays)?;
    point("job.filled")?;
    Ok(staged)
}

/// Compares the job prefix called `name` with one that is made now, and puts that in its place if they differ. Whether it
/// was good. An error: what it leads to is gone.
pub(crate) fn check_job(cache: &Cache, name: &str) -> io::Result<bool> {
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let key = environment_of(name).ok_or_else(missing)?;
    let overlays = cache.overlays_of(name).ok_or_else(missing)?;
    let staging = cache.staging()?;
    let staged = stage(cache, &staging, key, &overlays)?;
    let place = cache.job_path(name);
    if is_same(&staged, &place)? && is_same(&place, &staged)? {
        return Ok(true);
    }
    drop(staging);
    make(cache, key, name, &overlays, true).map(|()| false)
}

/// Whether all that is below `one`, but leases, is below `other` in the same form.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(one)? {
        let entry = entry?;
        let (ours, theirs) = (entry.path(), other.join(entry.file_name()));
        let kind = entry.file_type()?;
        let same = match fs::symlink_metadata(&theirs) {
            Err(_) => false,
            Ok(found) if found.file_type() != kind => false,
            Ok(_) if kind.is_dir() => is_same(&ours, &theirs)?,
            Ok(_) if kind.is_symlink() => fs::read_link(&ours)? == fs::read_link(&theirs)?,
            Ok(_) => entry.file_name() == LEASE || fs::read(&ours)? == fs::read(&theirs)?,
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn python(path: &str, version: String) -> Python {
    if path.is_empty() { Python::Shipped { version } } else { Python::Node { path: path.into(), version } }
}

fn files(cache: &Cache, overlays: &[Digest]) -> Vec<PathBuf> {
    overlays.iter().map(|content| cache.layer_files(content)).collect()
}

/// Adds overlays to a private copy of an environment, which nobody else uses.
pub fn add_to_private(cache: &Cache, tree: &Path, overlays: &[Digest]) -> Result<(), BuildError> {
    let add = || {
        write_overlays(tree, overlays)?;
        add_scripts(&tree.join("bin"), &files(cache, overlays))
    };
    add().map_err(|e| cache_error(cache, e))
}
