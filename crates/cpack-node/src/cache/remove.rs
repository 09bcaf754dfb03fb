//! Removing trees whose directories are read-only.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use crate::listing::list;

/// Removes the tree at `path`, without following links. A missing tree is no error. Stops at `deadline`; returns whether all
/// of it is gone.
pub fn remove_tree(path: &Path, deadline: Option<Instant>) -> io::Result<bool> {
    match remove_directory(path, deadline) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => fs::remove_file(path).map(|()| true),
        result => result,
    }
}

fn remove_directory(path: &Path, deadline: Option<Instant>) -> io::Result<bool> {
    if deadline.is_some_and(|deadline| Instant::now() > deadline) {
        return Ok(false);
    }
    if !fs::symlink_metadata(path)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for (name, kind) in list(path)? {
        let inside = path.join(name);
        if kind.is_dir() {
            match remove_directory(&inside, deadline) {
                Ok(true) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        } else {
            ignore_missing(fs::remove_file(&inside))?;
        }
    }
    ignore_missing(fs::remove_dir(path)).map(|()| true)
}

/// Two processes may remove the same thing.
fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    #[test]
    fn read_only_trees_go_and_what_links_lead_to_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let outside = directory.path().join("outside");
        fs::write(&outside, "kept").expect("writes");
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("creates");
        symlink(&outside, tree.join("a/b/link")).expect("links");
        symlink(directory.path(), tree.join("a/up")).expect("links");
        for path in ["a/b", "a", ""] {
            fs::set_permissions(tree.join(path), Permissions::from_mode(0o555)).expect("chmod");
        }
        assert!(!remove_tree(&tree, Some(Instant::now() - Duration::from_secs(1))).expect("stops"));
        assert!(tree.join("a/b").exists());
        assert!(remove_tree(&tree, None).expect("removes"));
        assert!(!tree.exists() && outside.exists());
        assert!(remove_tree(&tree, None).expect("is gone"));
    }
}
