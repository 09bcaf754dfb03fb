//! A directory whose subdirectories are each used once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cluster_pack::cli::CommandError;
use nix::sys::statvfs::statvfs;

use crate::error::BenchError;

/// Holds everything that a measurement writes. Removed when dropped, unless [`Scratch::keep`] was called.
#[derive(Debug)]
pub(crate) struct Scratch {
    directory: tempfile::TempDir,
    made: usize,
    kept: bool,
}

impl Scratch {
    /// Makes a new directory in `parent`, which is made if it is missing.
    pub(crate) fn new(parent: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(parent).map_err(CommandError::io("create", parent))?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(parent);
        Ok(Self { directory: directory.map_err(CommandError::io("create", parent))?, made: 0, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes a directory that was never used.
    pub(crate) fn fresh(&mut self, what: &str) -> Result<PathBuf, BenchError> {
        self.made += 1;
        let path = self.directory.path().join(format!("{what}-{}", self.made));
        fs::create_dir(&path).map_err(CommandError::io("create", &path))?;
        Ok(path)
    }

    /// Prevents the removal.
    pub(crate) fn keep(&mut self) {
        self.directory.disable_cleanup(true);
        self.kept = true;
    }

    /// Free bytes of the file system.
    pub(crate) fn free(&self) -> u64 {
        statvfs(self.directory.path()).map_or(u64::MAX, |found| found.blocks_available() * found.fragment_size())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.kept {
            remove(self.directory.path());
        }
    }
}

/// Removes a directory tree. Its directories may be read-only, as those of environments in the node cache are.
pub(crate) fn remove(directory: &Path) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let _ = fs::set_permissions(directory, fs::Permissions::from_mode(0o700));
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove(&entry.path()),
            _ => _ = fs::remove_file(entry.path()),
        }
    }
    let _ = fs::remove_dir(directory);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_makes_fresh_directories_and_removes_them() {
        let place = tempfile::tempdir().expect("a directory");
        let mut scratch = Scratch::new(&place.path().join("new")).expect("makes");
        let (one, other) = (scratch.fresh("a").expect("makes"), scratch.fresh("a").expect("makes"));
        assert!(one != other && scratch.free() > 0);
        fs::write(one.join("file"), "x").expect("writes");
        fs::set_permissions(&one, fs::Permissions::from_mode(0o500)).expect("sets");
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
        let mut kept = Scratch::new(place.path()).expect("makes");
        let (path, _) = (kept.fresh("a").expect("makes"), kept.keep());
        drop(kept);
        assert!(path.exists());
    }
}
