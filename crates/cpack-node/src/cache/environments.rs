//! Environments in the node cache: read-only trees, named by environment id and interpreter.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_fault::point;
use cpack_store::unique_name;

use super::boot_id::Mark;
use super::commit::{self, Committed};
use super::image;
use super::lease::{self, Lease};
use super::own_directory::{Cache, ENVIRONMENTS};
use super::records::lease_path;
use super::staging::Staging;

/// An environment that may be used.
#[derive(Debug)]
pub struct Environment {
    /// Python's prefix.
    pub path: PathBuf,
    /// Keeps clean-up from removing it.
    pub lease: Lease,
}

/// The result of [`Cache::find_environment`].
#[derive(Debug)]
pub enum Lookup {
    /// It may be used.
    Ready(Environment),
    /// There is a tree that was written under another boot of the node, or that is damaged: it must be built again.
    Stale,
    /// There is none.
    Missing,
}

impl Cache {
    /// Where the environment called `key` is, or would be.
    pub fn environment_path(&self, key: &str) -> PathBuf {
        self.directory(ENVIRONMENTS).join(key)
    }

    /// Looks for an environment, in a fixed number of system calls.
    pub fn find_environment(&self, key: &str) -> Lookup {
        self.find_prefix(self.environment_path(key))
    }

    /// Looks for a prefix of Python: an environment's tree, or what a job starts from.
    pub(super) fn find_prefix(&self, path: PathBuf) -> Lookup {
        let Some((lease, state)) = Lease::take(&lease_path(&path)) else {
            return if path.exists() { Lookup::Stale } else { Lookup::Missing };
        };
        let trusted = state.is_ok_and(|state| state.mark.is_trusted_by(self.boot()));
        // A link to an interpreter that is gone counts as damage.
        if trusted && path.join("bin/python").exists() {
            return Lookup::Ready(Environment { path, lease });
        }
        Lookup::Stale
    }

    /// Renames a staged tree into its place, unless there is one.
    pub(crate) fn commit_environment(&self, staged: &Path, key: &str) -> io::Result<Committed> {
        commit_prefix(staged, &self.environment_path(key), ["tree.renamed", "tree.closed"])
    }

    /// Puts a staged tree in the place of a stale one, which is at `staged` afterwards.
    pub(crate) fn replace_environment(&self, staged: &Path, key: &str) -> io::Result<()> {
        replace_prefix(staged, &self.environment_path(key), ["tree.exchanged", "tree.closed"])
    }

    /// Notes in the lease of an environment that it was whole under this boot.
    pub fn trust_environment(&self, key: &str) -> io::Result<()> {
        Mark::Boot(self.boot().clone()).overwrite(&lease_path(&self.environment_path(key)))
    }

    /// Takes a lease on an environment without reading its boot id. The caller knows that it is whole.
    pub fn lease_environment(&self, key: &str) -> Option<Environment> {
        let path = self.environment_path(key);
        let (lease, _) = Lease::take(&lease_path(&path))?;
        path.join("bin/python").exists().then_some(Environment { path, lease })
    }

    /// Marks an environment that was synced to disk.
    pub fn mark_environment_durable(&self, key: &str) -> io::Result<()> {
        Mark::Durable.overwrite(&lease_path(&self.environment_path(key)))
    }

    /// Removes a damaged prefix of Python, whole: no start finds half of it.
    pub fn discard_prefix(&self, place: &Path, staging: &Staging) -> io::Result<()> {
        match move_tree(place, &staging.path().join(unique_name())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) if image::is_immovable(&e) => image::remove_prefix(place),
            result => result,
        }
    }

    /// The keys of all environments in the cache.
    pub fn environments(&self) -> io::Result<Vec<String>> {
        self.names(ENVIRONMENTS)
    }

    /// When an environment was last started.
    pub fn last_used(&self, key: &str) -> Option<SystemTime> {
        lease::last_used(&lease_path(&self.environment_path(key)))
    }

    /// Whether a live process holds a lease on it.
    pub fn is_leased(&self, key: &str) -> bool {
        let path = lease_path(&self.environment_path(key));
        path.exists() && lease::exclusive(&path).is_none()
    }
}

/// Makes the top directory of a tree writable and renames it to `aside`. On an error the tree stays as it was.
pub(super) fn move_tree(place: &Path, aside: &Path) -> io::Result<()> {
    // Only a directory that may be written to can be moved to another parent.
    fs::set_permissions(place, Permissions::from_mode(0o755))?;
    let moved = point("move").and_then(|()| fs::rename(place, aside));
    if moved.is_err() {
        let _ = fs::set_permissions(place, Permissions::from_mode(0o555));
    }
    moved
}

/// Renames a staged prefix to `place`, unless there is one. Passes the `steps` of renaming and of closing it.
pub(super) fn commit_prefix(staged: &Path, place: &Path, steps: [&'static str; 2]) -> io::Result<Committed> {
    let [renamed, closed] = steps;
    let committed = commit::commit(staged, place)?;
    point(renamed)?;
    if committed == Committed::Ours {
        close(place, closed)?;
    }
    Ok(committed)
}

/// Puts a staged prefix in the place of one that is not to be used; that one is at `staged` afterwards. Passes the `steps` of
/// exchanging the two and of closing the new one.
pub(super) fn replace_prefix(staged: &Path, place: &Path, steps: [&'static str; 2]) -> io::Result<()> {
    let [exchanged, closed] = steps;
    // Only a directory that may be written to can be moved to another parent.
    match fs::set_permissions(place, Permissions::from_mode(0o755)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => commit::exchange(staged, place)
            .or_else(|e| if image::is_immovable(&e) { image::replace_tree(staged, place) } else { Err(e) })?,
    }
    point(exchanged)?;
    close(place, closed)
}

/// Takes the permission to write from the top directory of a prefix, which had to be writable to be renamed.
fn close(place: &Path, step: &'static str) -> io::Result<()> {
    fs::set_permissions(place, Permissions::from_mode(0o555))?;
    point(step)
}
