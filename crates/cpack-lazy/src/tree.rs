//! The tree of an environment as metadata.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_format::content::Kind;
use cpack_node::tree::{LARGEST, Packages, Python, is_own};

use crate::error::LazyError;
use crate::layer::Listed;

/// The top of a tree.
pub(crate) const ROOT: u32 = 0;

/// A file, link or directory of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) content: Content,
    /// The permissions.
    pub(crate) mode: u16,
    /// In bytes; of a link, of its target.
    pub(crate) size: u64,
}

/// Where what a node holds comes from.
#[derive(Debug)]
pub(crate) enum Content {
    /// Names, in their order, and nodes.
    Directory(Vec<(OsString, u32)>),
    /// The file of this number in a layer.
    File { layer: u32, number: u32 },
    /// The link of this number in a layer.
    Link { layer: u32, number: u32 },
    /// A file that the tree has by itself.
    OwnFile(PathBuf),
    /// A link that the tree has by itself, with its target.
    OwnLink(Vec<u8>),
}

/// The tree of an environment. A node is named by its index.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    /// Merges the files of `layers`, and those below the directory `own` where no layer has one of the same path.
    pub(crate) fn merge(layers: &[&[Listed]], own: &Path, python: &Python) -> Result<Self, LazyError> {
        let mut merge = Merge::new();
        for (layer, files) in (0..).zip(layers) {
            for (number, file) in (0..).zip(*files) {
                if !is_left_out(python, &file.path) {
                    merge.add(layer, number, file)?;
                }
            }
        }
        merge.add_own(Path::new(""), own)?;
        merge.finish()
    }

    pub(crate) fn node(&self, index: u32) -> Option<&Node> {
        self.nodes.get(index as usize)
    }

    /// The names in a directory; `None` if it is none.
    pub(crate) fn names(&self, directory: u32) -> Option<&[(OsString, u32)]> {
        match &self.node(directory)?.content {
            Content::Directory(names) => Some(names),
            _ => None,
        }
    }

    /// The node called `name` in a directory.
    pub(crate) fn child(&self, directory: u32, name: &OsStr) -> Option<u32> {
        let names = self.names(directory)?;
        let at = names.binary_search_by(|(other, _)| other.as_os_str().cmp(name)).ok()?;
        names.get(at).map(|(_, node)| *node)
    }
}

/// Whether the tree has the path, or a directory that it is in, by itself.
fn is_left_out(python: &Python, path: &Path) -> bool {
    path.ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| is_own(python, part))
}

struct Merge {
    nodes: Vec<Node>,
    directories: HashMap<PathBuf, u32>,
    packages: Packages,
    /// Files of layers, by directory.
    files: HashMap<PathBuf, Vec<(OsString, u32)>>,
}

impl Merge {
    fn new() -> Self {
        let root = Node { content: Content::Directory(Vec::new()), mode: 0o555, size: 0 };
        let directories = HashMap::from([(PathBuf::new(), ROOT)]);
        Self { nodes: vec![root], directories, packages: Packages::default(), files: HashMap::new() }
    }

    fn add(&mut self, layer: u32, number: u32, file: &Listed) -> Result<(), LazyError> {
        if file.kind == Kind::Directory {
            return self.directory(&file.path).map(drop);
        }
        let (directory, name) = split(&file.path);
        self.packages.note(directory, name);
        let (content, mode) = match file.kind {
            Kind::Link => (Content::Link { layer, number }, 0o777),
            Kind::Executable => (Content::File { layer, number }, 0o555),
            Kind::File | Kind::Directory => (Content::File { layer, number }, 0o444),
        };
        let node = self.insert(&file.path, Node { content, mode, size: file.size })?;
        self.files.entry(directory.to_owned()).or_default().push((name.to_owned(), node));
        Ok(())
    }

    /// Puts a node that is no directory at a path that is free.
    fn insert(&mut self, path: &Path, node: Node) -> Result<u32, LazyError> {
        let (directory, name) = split(path);
        let parent = self.directory(directory)?;
        if self.directories.contains_key(path) {
            return Err(LazyError::Twice(path.to_owned()));
        }
        Ok(self.push(parent, name, node))
    }

    /// The directory at a path, made with those above it where it is missing.
    fn directory(&mut self, path: &Path) -> Result<u32, LazyError> {
        if let Some(known) = self.directories.get(path) {
            return Ok(*known);
        }
        let (above, name) = split(path);
        let parent = self.directory(above)?;
        let node = Node { content: Content::Directory(Vec::new()), mode: 0o555, size: 0 };
        let made = self.push(parent, name, node);
        self.directories.insert(path.to_owned(), made);
        Ok(made)
    }

    fn push(&mut self, parent: u32, name: &OsStr, node: Node) -> u32 {
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node);
        if let Some(Node { content: Content::Directory(names), .. }) = self.nodes.get_mut(parent as usize) {
            names.push((name.to_owned(), index));
        }
        index
    }

    /// Adds what is in the staged directory `place` to `directory`, but for what layers have.
    fn add_own(&mut self, directory: &Path, place: &Path) -> Result<(), LazyError> {
        let listed: io::Result<Vec<_>> = fs::read_dir(place).and_then(Iterator::collect);
        for entry in listed.map_err(LazyError::read(place))? {
            let (name, from) = (entry.file_name(), entry.path());
            let path = directory.join(&name);
            let metadata = entry.metadata().map_err(LazyError::read(&from))?;
            if metadata.is_dir() {
                self.directory(&path)?;
                self.add_own(&path, &from)?;
                continue;
            }
            let parent = self.directory(directory)?;
            if self.has(parent, &name) {
                continue;
            }
            let mode = (metadata.permissions().mode() & 0o777) as u16;
            let (content, size) = if metadata.is_symlink() {
                let target = fs::read_link(&from).map_err(LazyError::read(&from))?;
                (Content::OwnLink(target.into_os_string().into_vec()), metadata.len())
            } else {
                (Content::OwnFile(from), metadata.len())
            };
            self.insert(&path, Node { content, mode, size })?;
        }
        Ok(())
    }

    fn has(&self, directory: u32, name: &OsStr) -> bool {
        match self.nodes.get(directory as usize).map(|node| &node.content) {
            Some(Content::Directory(names)) => names.iter().any(|(other, _)| other == name),
            _ => false,
        }
    }

    /// Sorts names, checks that each is there once, and opens what programs may write to after copying it.
    fn finish(mut self) -> Result<Tree, LazyError> {
        for (path, directory) in &self.directories {
            let area = self.packages.area(path);
            let mut shares = false;
            for (name, file) in self.files.get(path).into_iter().flatten() {
                let Some(node) = self.nodes.get_mut(*file as usize) else { continue };
                if !matches!(node.content, Content::File { .. }) {
                    continue;
                }
                if area.copies(name) && node.size <= LARGEST {
                    node.mode |= 0o200;
                } else {
                    shares = true;
                }
            }
            let is_open = self.packages.is_open(path, shares);
            let Some(node) = self.nodes.get_mut(*directory as usize) else { continue };
            if is_open {
                node.mode = 0o755;
            }
            if let Content::Directory(names) = &mut node.content {
                names.sort_unstable();
                if let Some([(name, _), _]) = names.array_windows().find(|[a, b]| a.0 == b.0) {
                    return Err(LazyError::Twice(path.join(name)));
                }
            }
        }
        Ok(Tree { nodes: self.nodes })
    }
}

/// The directory of a path, and the last component.
fn split(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(files: &[(&str, Kind, u64)]) -> Vec<Listed> {
        files.iter().map(|(path, kind, size)| Listed { path: path.into(), kind: *kind, size: *size }).collect()
    }

    fn python() -> Python {
        Python::Node { path: "/opt/bin/python3.11".into(), version: "3.11.7".into(), sees_system: false }
    }

    fn merge(layers: &[Vec<Listed>]) -> Result<Tree, LazyError> {
        let own = tempfile::tempdir().expect("a directory");
        fs::create_dir(own.path().join("bin")).expect("creates");
        std::os::unix::fs::symlink("/opt/bin/python3.11", own.path().join("bin/python")).expect("links");
        fs::write(own.path().join("bin/tool"), "own").expect("writes");
        let layers: Vec<&[Listed]> = layers.iter().map(Vec::as_slice).collect();
        Tree::merge(&layers, own.path(), &python())
    }

    fn at<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
        let mut node = ROOT;
        for name in path.split('/') {
            node = tree.child(node, OsStr::new(name))?;
        }
        tree.node(node)
    }

    #[test]
    fn tree_has_own_files_where_layers_have_none() {
        let first = listed(&[("bin/tool", Kind::Executable, 9), ("bin/python", Kind::File, 1)]);
        let second =
            listed(&[("lib/a.py", Kind::File, 5), ("pyvenv.cfg", Kind::File, 3), ("x/empty", Kind::Directory, 0)]);
        let tree = merge(&[first, second]).expect("merges");
        assert!(matches!(at(&tree, "bin/python").expect("there").content, Content::OwnLink(_)));
        assert_eq!(at(&tree, "bin/tool").map(|node| (node.size, node.mode)), Some((9, 0o555)));
        assert_eq!(at(&tree, "lib/a.py").map(|node| (node.size, node.mode)), Some((5, 0o444)));
        assert!(at(&tree, "pyvenv.cfg").is_none() && at(&tree, "lib/b.py").is_none());
        assert!(matches!(&at(&tree, "x/empty").expect("there").content, Content::Directory(names) if names.is_empty()));
    }

    #[test]
    fn tree_refuses_a_path_of_two_layers() {
        for paths in [["lib/x", "lib/x"], ["lib/x", "lib/x/y"], ["lib/x/y", "lib/x"]] {
            let layers = paths.map(|path| listed(&[(path, Kind::File, 1)]));
            assert!(matches!(merge(&layers), Err(LazyError::Twice(_))), "{paths:?}");
        }
    }

    #[test]
    fn tree_opens_resources_that_programs_copy() {
        let site = "lib/python3.11/site-packages/pkg";
        let files = [("__init__.py", 1), ("templates/a.txt", 1), ("data.json", 1), ("weights/large.bin", LARGEST + 1)];
        let files: Vec<(String, Kind, u64)> =
            files.iter().map(|(path, size)| (format!("{site}/{path}"), Kind::File, *size)).collect();
        let files: Vec<(&str, Kind, u64)> =
            files.iter().map(|(path, kind, size)| (path.as_str(), *kind, *size)).collect();
        let tree = merge(&[listed(&files)]).expect("merges");
        let mode = |path: &str| at(&tree, &format!("{site}/{path}")).expect("there").mode;
        let modes =
            ["__init__.py", "templates/a.txt", "templates", "data.json", "weights", "weights/large.bin"].map(mode);
        assert_eq!(modes, [0o444, 0o644, 0o755, 0o644, 0o555, 0o444]);
    }
}
