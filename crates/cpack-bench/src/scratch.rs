//! A directory of directories that are used once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::{BenchError, io_error};

/// A place for everything that a measurement makes, removed with it unless it is kept.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    made: usize,
    kept: bool,
}

impl Scratch {
    /// A new directory in `place`, which is made if it is not there.
    pub fn new(place: &Path) -> Result<Self, BenchError> {
        fs::create_dir_all(place).map_err(io_error("create", place))?;
        let directory = tempfile::Builder::new().prefix("bench-").tempdir_in(place);
        Ok(Self { directory: directory.map_err(io_error("create", place))?, made: 0, kept: false })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory that was never used.
    pub fn fresh(&mut self, what: &str) -> Result<PathBuf, BenchError> {
        self.made += 1;
        let path = self.directory.path().join(format!("{what}-{}", self.made));
        fs::create_dir(&path).map_err(io_error("create", &path))?;
        Ok(path)
    }

    /// Leaves everything where it is.
    pub fn keep(&mut self) {
        self.directory.disable_cleanup(true);
        self.kept = true;
    }

    /// Bytes that may be written.
    pub fn free(&self) -> u64 {
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

/// Removes a tree, of which directories may be read-only: environments on a node are so on purpose.
pub fn remove(directory: &Path) {
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
    fn nothing_is_used_twice_and_nothing_stays() {
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
