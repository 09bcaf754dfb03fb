//! Compares a tree with its layers, file by file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_format::manifest::Manifest;

use super::{OwnPrefix, Python, is_own, job};
use crate::cache::{Cache, file_digest};
use crate::listing::list;

/// Returns the first fault of a tree in `cache`. Its layers must be whole.
pub fn tree_fault(cache: &Cache, tree: &Path, manifest: &Manifest, python: &Python) -> Option<String> {
    let own_prefix = OwnPrefix::of(manifest, tree);
    for layer in &manifest.layers {
        let files = cache.layer_files(&layer.content);
        let comparison = Comparison { layer: &files, tree, python, own_prefix: &own_prefix };
        if let Some(path) = comparison.first_difference(Path::new("")) {
            return Some(format!("{} was missing or changed", path.display()));
        }
    }
    let hook = job::hook_path(&manifest.python.version, &manifest.python.soabi);
    if fs::read(tree.join(&hook)).ok().as_deref() != Some(job::HOOK_TEXT.as_bytes()) {
        return Some(format!("{} was missing or changed", hook.display()));
    }
    let linked = fs::read_link(tree.join("bin/python")).ok();
    match python {
        Python::Node { path, .. } if linked.as_ref() != Some(path) => Some("bin/python was missing".into()),
        Python::Node { .. } if !tree.join("pyvenv.cfg").is_file() => Some("pyvenv.cfg was missing".into()),
        Python::Shipped { .. } if !tree.join("bin/python").exists() => Some("bin/python was missing".into()),
        _ => None,
    }
}

/// A good layer and a tree that has its files.
struct Comparison<'a> {
    layer: &'a Path,
    tree: &'a Path,
    python: &'a Python,
    own_prefix: &'a OwnPrefix<'a>,
}

impl Comparison<'_> {
    /// The first path below `relative` that the tree lacks or has with other content.
    fn first_difference(&self, relative: &Path) -> Option<PathBuf> {
        // What cannot be read is not known to be the same.
        let Ok(entries) = list(&self.layer.join(relative)) else { return Some(relative.into()) };
        for (name, kind) in entries {
            let path = relative.join(name);
            if is_own(self.python, &path) {
                continue;
            }
            let (ours, theirs) = (self.layer.join(&path), self.tree.join(&path));
            let found = if kind.is_dir() {
                if theirs.is_dir() { self.first_difference(&path) } else { Some(path) }
            } else {
                (!self.is_same(&path, &ours, &theirs)).then_some(path)
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Whether the tree has the layer's file at `path`, with the tree's own path in it if it holds that.
    fn is_same(&self, path: &Path, ours: &Path, theirs: &Path) -> bool {
        let Some(held) = self.own_prefix.at(path).filter(|_| !ours.is_symlink()) else { return is_same(ours, theirs) };
        let expected = fs::read(ours).ok().and_then(|bytes| held.mend(&bytes).ok());
        expected.is_some() && expected == fs::read(theirs).ok()
    }
}

/// Whether two paths are one file, equal links, or equal copies.
fn is_same(a: &Path, b: &Path) -> bool {
    let (Ok(first), Ok(second)) = (fs::symlink_metadata(a), fs::symlink_metadata(b)) else { return false };
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return true;
    }
    if first.is_symlink() {
        return fs::read_link(a).ok() == fs::read_link(b).ok();
    }
    // A copy that programs may copy on, or one that was made because the file system refuses links.
    first.len() == second.len() && matches!((file_digest(a), file_digest(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_that_cannot_be_read_is_a_difference() {
        let directory = tempfile::tempdir().expect("a directory");
        let (layer, tree) = (directory.path().join("layer"), directory.path().join("tree"));
        for path in [&layer, &tree] {
            fs::create_dir_all(path.join("a")).expect("creates");
            fs::write(path.join("a/file"), "same").expect("writes");
        }
        let python = Python::Node { path: "/python".into(), version: "3.11.7".into(), sees_system: false };
        let difference = |layer: &Path| {
            let own_prefix = OwnPrefix::default();
            Comparison { layer, tree: &tree, python: &python, own_prefix: &own_prefix }.first_difference(Path::new(""))
        };
        assert_eq!(difference(&layer), None);
        assert!(difference(&directory.path().join("none")).is_some());
    }
}
