//! Whether a tree is what its layers say, file by file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_artifact::manifest::Manifest;

use super::{Python, is_own};
use crate::cache::{Cache, Description, file_digest};

/// The interpreter of a tree that is there.
pub(crate) fn python_of(description: &Description) -> Python {
    let version = description.version.clone();
    match description.python.as_str() {
        "" => Python::Shipped { version },
        path => Python::Node { path: path.into(), version },
    }
}

/// The first thing that is wrong with a tree in `cache` whose layers are known to be good.
pub(crate) fn tree_fault(cache: &Cache, tree: &Path, manifest: &Manifest, python: &Python) -> Option<String> {
    for layer in &manifest.layers {
        let files = cache.layer_files(&layer.content);
        if let Some(path) = first_difference(&files, tree, Path::new(""), python) {
            return Some(format!("{} was missing or changed", path.display()));
        }
    }
    let linked = fs::read_link(tree.join("bin/python")).ok();
    match python {
        Python::Node { path, .. } if linked.as_ref() != Some(path) => Some("bin/python was missing".into()),
        Python::Node { .. } if !tree.join("pyvenv.cfg").is_file() => Some("pyvenv.cfg was missing".into()),
        Python::Shipped { .. } if !tree.join("bin/python").exists() => Some("bin/python was missing".into()),
        _ => None,
    }
}

/// The first path below `relative` that a layer has and its tree has not, or has otherwise. The layer is known to be good.
fn first_difference(layer: &Path, tree: &Path, relative: &Path, python: &Python) -> Option<PathBuf> {
    for entry in fs::read_dir(layer.join(relative)).into_iter().flatten().flatten() {
        let path = relative.join(entry.file_name());
        if is_own(python, &path) {
            continue;
        }
        let (ours, theirs) = (layer.join(&path), tree.join(&path));
        let found = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if theirs.is_dir() { first_difference(layer, tree, &path, python) } else { Some(path) }
        } else {
            (!is_same(&ours, &theirs)).then_some(path)
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether two paths are one file, or links or copies that are alike.
fn is_same(a: &Path, b: &Path) -> bool {
    let (Ok(first), Ok(second)) = (fs::symlink_metadata(a), fs::symlink_metadata(b)) else { return false };
    if (first.dev(), first.ino()) == (second.dev(), second.ino()) {
        return true;
    }
    if first.is_symlink() {
        return fs::read_link(a).ok() == fs::read_link(b).ok();
    }
    // Copied where the file system refuses links.
    first.len() == second.len() && matches!((file_digest(a), file_digest(b)), (Ok(a), Ok(b)) if a == b)
}
