//! Compares a tree with its layers, file by file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_format::manifest::Manifest;

use super::{Python, is_own, job};
use crate::cache::{Cache, file_digest};

/// Returns the first fault of a tree in `cache`. Its layers must be whole.
pub fn tree_fault(cache: &Cache, tree: &Path, manifest: &Manifest, python: &Python) -> Option<String> {
    for layer in &manifest.layers {
        let files = cache.layer_files(&layer.content);
        if let Some(path) = first_difference(&files, tree, Path::new(""), python) {
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

/// The first path below `relative` of a good layer that its tree lacks or has with other content.
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
