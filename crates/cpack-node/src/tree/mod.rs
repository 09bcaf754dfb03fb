//! The tree that Python sees: a virtual environment whose files are links to the layers' files.
//!
//! Hard links cost 105,000 files a second, a third of what copying small files costs, and one copy in memory serves all
//! environments of a node. Symbolic links at package level would not do: the `nvidia-*` packages share one directory and
//! find each other through `RUNPATH`.
//!
//! Files of conda packages that hold the environment's path are written with the tree's ([`own_prefix`]).
//!
//! Files that programs copy from their packages are copied, not linked ([`copies`]), so that the program's copy has the
//! mode of a file that may be edited.
//!
//! The tree is a real virtual environment (`pyvenv.cfg`, `bin/python` linked to the interpreter), so `sys.prefix`,
//! `.pth` files, console scripts and `multiprocessing` work as in the one that was packed. Where a layer ships the
//! interpreter the tree is a full prefix instead, which needs no `pyvenv.cfg`. A job with overlays runs in a directory of links
//! to the tree ([`mod@job`]).

mod compare;
mod copies;
mod job;
mod link;
mod own_prefix;

use std::collections::HashSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpack_fault::point;
use cpack_format::job::Job;
use cpack_format::manifest;
use cpack_format::virtual_environment::{interpreter_names, minor_in_names, pyvenv_cfg};

use crate::cache::Description;
use crate::listing::list;
pub(crate) use job::{add_scripts, fill_job};

pub use compare::tree_fault;
pub use copies::{Area, LARGEST, Packages};
pub use link::LinkError;
use link::{Files, link_layers};
pub(crate) use link::{How, Linked, Merged};
pub(crate) use own_prefix::OwnPrefix;

/// The interpreter of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Python {
    /// One of the node.
    Node {
        /// Without symbolic links.
        path: PathBuf,
        /// `X.Y.Z`.
        version: String,
        /// Whether its own packages are seen, after those of the environment.
        sees_system: bool,
    },
    /// One that a layer ships.
    Shipped {
        /// `X.Y.Z`.
        version: String,
    },
}

impl Python {
    /// The interpreter of an environment as `description` notes it; `sees_system` is said by its manifest.
    pub fn of(description: &Description, sees_system: bool) -> Self {
        let version = description.version.clone();
        match description.python.as_str() {
            "" => Self::Shipped { version },
            path => Self::Node { path: path.into(), version, sees_system },
        }
    }

    /// What the cache notes of an environment of this interpreter that `job` starts.
    pub fn describe(&self, job: &Job) -> Description {
        let python = match self {
            Self::Node { path, .. } => path.display().to_string(),
            Self::Shipped { .. } => String::new(),
        };
        Description {
            format: 1,
            name: job.name.clone(),
            environment: job.environment,
            store: job.store.clone(),
            python,
            version: self.version().to_owned(),
        }
    }

    fn version(&self) -> &str {
        match self {
            Self::Node { version, .. } | Self::Shipped { version } => version,
        }
    }
}

/// Whether a tree has a file of its own at `path`, so that the layer's is left out.
pub fn is_own(python: &Python, path: &Path) -> bool {
    if path.starts_with(crate::cache::RECORDS) || path == Path::new("pyvenv.cfg") || job::is_hook(path) {
        return true;
    }
    let in_bin = path.parent() == Some(Path::new("bin"));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let interpreter = in_bin && interpreter_names(python.version()).iter().any(|own| own == name);
    interpreter && matches!(python, Python::Node { .. })
}

/// Fills the empty directory `tree` with the files of `layers`; [`own_files`] makes them an environment. Records may be written below it until [`seal_tree`].
pub(crate) fn link_tree(
    tree: &Path,
    layers: &[PathBuf],
    (python, own_prefix): (&Python, &OwnPrefix<'_>),
    how: How,
    threads: usize,
    progress: &(dyn Fn() + Sync),
) -> Result<Merged, LinkError> {
    let files = Files { leave_out: &|path| is_own(python, path), own_prefix };
    link_layers(tree, layers, how, threads, files, progress)
}

/// Writes the files that are a tree's own into `tree`, which has the files of its layers: what makes it an environment of
/// `python`, and the hook for overlays.
pub(crate) fn own_files(tree: &Path, python: &Python, wanted: &manifest::Python) -> io::Result<()> {
    interpreter_files(tree, python)?;
    job::write_hook(tree, &wanted.version, &wanted.soabi)
}

/// Takes the permission to write from the directories of a tree except those that are `open`, unless its files are copies
/// that may be written to. The top one stays writable, since it is still to be renamed.
pub(crate) fn seal_tree(tree: &Path, how: How, open: &HashSet<PathBuf>) -> io::Result<()> {
    if how == How::Link {
        seal_below(tree, Path::new(""), open)?;
    }
    fs::set_permissions(tree, Permissions::from_mode(0o755))?;
    point("tree.sealed")
}

/// Takes the permission to write from all directories below `directory` of a tree except those that are `open`.
fn seal_below(tree: &Path, directory: &Path, open: &HashSet<PathBuf>) -> io::Result<()> {
    for (name, _) in list(&tree.join(directory))?.iter().filter(|(_, kind)| kind.is_dir()) {
        let below = directory.join(name);
        seal_below(tree, &below, open)?;
        let mode = if open.contains(&below) { 0o755 } else { 0o555 };
        fs::set_permissions(tree.join(below), Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// `bin/python` and its names, `pyvenv.cfg` and `lib64`.
fn interpreter_files(tree: &Path, python: &Python) -> io::Result<()> {
    let bin = tree.join("bin");
    fs::create_dir_all(&bin)?;
    let versioned = format!("python{}", minor_in_names(python.version()));
    match python {
        Python::Node { path, version, sees_system } => {
            symlink(path, bin.join("python"))?;
            unless_there(symlink("python", bin.join("python3")))?;
            unless_there(symlink("python", bin.join(&versioned)))?;
            fs::write(tree.join("pyvenv.cfg"), pyvenv_cfg(path, version, *sees_system))?;
        }
        Python::Shipped { .. } => {
            unless_there(symlink(&versioned, bin.join("python")))?;
            unless_there(symlink(&versioned, bin.join("python3")))?;
        }
    }
    // As `python -m venv` leaves it on 64-bit systems: some packages look there.
    if tree.join("lib").is_dir() { unless_there(symlink("lib", tree.join("lib64"))) } else { Ok(()) }
}

fn unless_there(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(root: &Path, name: &str, files: &[&str]) -> PathBuf {
        let layer = root.join(name);
        for file in files {
            let path = layer.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
            fs::write(&path, file).expect("writes");
        }
        layer
    }

    fn node() -> Python {
        Python::Node { path: "/opt/py/bin/python3.11".into(), version: "3.11.7".into(), sees_system: false }
    }

    fn build(tree: &Path, layers: &[PathBuf], python: &Python) -> Result<Linked, LinkError> {
        fs::create_dir(tree).expect("creates");
        let Merged { linked, open } = link_tree(tree, layers, (python, &OwnPrefix::default()), How::Link, 2, &|| {})?;
        interpreter_files(tree, python).expect("writes");
        seal_tree(tree, How::Link, &open).expect("seals");
        Ok(linked)
    }

    #[test]
    fn tree_is_a_virtual_environment() {
        let directory = tempfile::tempdir().expect("a directory");
        let layers = [
            layer(directory.path(), "a", &["lib/python3.11/site-packages/ns/a.py", "bin/tool"]),
            layer(directory.path(), "b", &["lib/python3.11/site-packages/ns/b.py", "bin/python", "pyvenv.cfg"]),
        ];
        let tree = directory.path().join("tree");
        let linked = build(&tree, &layers, &node()).expect("builds");
        assert_eq!((linked.files, linked.copied), (3, 0));
        assert!(tree.join("lib64/python3.11/site-packages/ns/a.py").is_file());
        assert!(tree.join("lib/python3.11/site-packages/ns/b.py").is_file());
        assert_eq!(fs::read_link(tree.join("bin/python")).expect("a link"), Path::new("/opt/py/bin/python3.11"));
        assert_eq!(fs::read_link(tree.join("bin/python3.11")).expect("a link"), Path::new("python"));
        let cfg = fs::read_to_string(tree.join("pyvenv.cfg")).expect("reads");
        assert!(cfg.starts_with("home = /opt/py/bin\n") && cfg.contains("version = 3.11.7"), "{cfg}");
        assert!(cfg.ends_with("include-system-site-packages = false\n"), "{cfg}");
        let seeing = String::from_utf8(pyvenv_cfg(Path::new("/opt/py/bin/python3.11"), "3.11.7", true)).expect("utf-8");
        assert!(seeing.ends_with("include-system-site-packages = true\n"), "{seeing}");
        assert_eq!(fs::metadata(tree.join("lib")).expect("stat").permissions().mode() & 0o7777, 0o555);
    }

    #[test]
    fn shipped_interpreter_makes_a_prefix() {
        let directory = tempfile::tempdir().expect("a directory");
        let layers = [layer(directory.path(), "py", &["bin/python3.11", "lib/python3.11/os.py"])];
        let tree = directory.path().join("tree");
        build(&tree, &layers, &Python::Shipped { version: "3.11.7".into() }).expect("builds");
        assert_eq!(fs::read_link(tree.join("bin/python")).expect("a link"), Path::new("python3.11"));
        assert!(tree.join("bin/python3.11").is_file() && !tree.join("pyvenv.cfg").exists());
    }

    #[test]
    fn link_refuses_two_layers_with_one_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let layers = [layer(directory.path(), "a", &["lib/x.py"]), layer(directory.path(), "b", &["lib/x.py"])];
        let error = build(&directory.path().join("tree"), &layers, &node()).expect_err("refuses");
        assert!(matches!(&error, LinkError::Twice { path } if path.ends_with("lib/x.py")), "{error}");
    }
}
