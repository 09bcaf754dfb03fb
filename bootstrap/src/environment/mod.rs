//! The tree that Python sees: a virtual environment whose files are links to the layers' files.
//!
//! Hard links cost 105,000 files a second, a third of what copying small files costs, and one copy in memory serves all
//! environments of a node. Symbolic links at package level would not do: the `nvidia-*` packages share one directory and
//! find each other through `RUNPATH`.
//!
//! The tree is a real virtual environment (`pyvenv.cfg`, `bin/python` linked to the interpreter), so `sys.prefix`,
//! `.pth` files, console scripts and `multiprocessing` work as in the one that was packed. Where a layer ships the
//! interpreter the tree is a full prefix instead, which needs no `pyvenv.cfg`. A job with overlays runs in a directory of links
//! to the tree ([`mod@job`]).

mod job;
mod link;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpack_artifact::fault::point;
pub(crate) use job::{HOOK_TEXT, add_scripts, fill_job, hook_path, write_hook};
pub use link::{How, LinkError, Linked, link_layers};

use crate::cache::seal_directories;

/// The interpreter of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Python {
    /// One of the node.
    Node {
        /// Its path, without symbolic links.
        path: PathBuf,
        /// Its full version.
        version: String,
    },
    /// One that a layer ships.
    Shipped {
        /// Its full version.
        version: String,
    },
}

impl Python {
    fn version(&self) -> &str {
        match self {
            Self::Node { version, .. } | Self::Shipped { version } => version,
        }
    }
}

/// Whether a path of a layer is left out because the tree has its own.
pub(crate) fn is_own(python: &Python, path: &Path) -> bool {
    if path.starts_with(crate::cache::RECORDS) || path == Path::new("pyvenv.cfg") || job::is_hook(path) {
        return true;
    }
    let in_bin = path.parent() == Some(Path::new("bin"));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let interpreter = in_bin && interpreter_names(python.version()).iter().any(|own| own == name);
    interpreter && matches!(python, Python::Node { .. })
}

/// What an interpreter is called in `bin/`.
fn interpreter_names(version: &str) -> [String; 3] {
    ["python".into(), "python3".into(), format!("python{}", crate::interpreter::minor(version))]
}

/// Fills the empty directory `tree` with the files of `layers` and what makes them an environment of `python`.
///
/// With [`How::Copy`] the files may be written to, otherwise the directories are read-only afterwards; the top one is
/// left writable, since it is still to be renamed.
pub fn build_tree(
    tree: &Path,
    layers: &[PathBuf],
    python: &Python,
    how: How,
    threads: usize,
    progress: &(dyn Fn() + Sync),
    records: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Linked, LinkError> {
    let linked = link_layers(tree, layers, how, threads, &|path| is_own(python, path), progress)?;
    let own = |source| LinkError::Write { path: tree.into(), source };
    interpreter_files(tree, python).map_err(own)?;
    records(tree).and_then(|()| point("tree.records")).map_err(own)?;
    if how == How::Link {
        for entry in fs::read_dir(tree).map_err(own)? {
            let entry = entry.map_err(own)?;
            if entry.file_type().map_err(own)?.is_dir() {
                seal_directories(&entry.path()).map_err(own)?;
            }
        }
    }
    fs::set_permissions(tree, Permissions::from_mode(0o755)).and_then(|()| point("tree.sealed")).map_err(own)?;
    Ok(linked)
}

/// `bin/python` and its names, `pyvenv.cfg` and `lib64`.
fn interpreter_files(tree: &Path, python: &Python) -> io::Result<()> {
    let bin = tree.join("bin");
    fs::create_dir_all(&bin)?;
    let versioned = format!("python{}", crate::interpreter::minor(python.version()));
    match python {
        Python::Node { path, version } => {
            symlink(path, bin.join("python"))?;
            link_unless_there("python", &bin.join("python3"))?;
            link_unless_there("python", &bin.join(&versioned))?;
            fs::write(tree.join("pyvenv.cfg"), pyvenv_cfg(path, version))?;
        }
        Python::Shipped { .. } => {
            link_unless_there(&versioned, &bin.join("python"))?;
            link_unless_there(&versioned, &bin.join("python3"))?;
        }
    }
    // As `python -m venv` leaves it on 64-bit systems: some packages look there.
    if tree.join("lib").is_dir() { link_unless_there("lib", &tree.join("lib64")) } else { Ok(()) }
}

fn link_unless_there(target: &str, link: &Path) -> io::Result<()> {
    match symlink(target, link) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// What tells CPython where its standard library is (PEP 405).
fn pyvenv_cfg(python: &Path, version: &str) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let home = python.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().as_bytes();
    let rest = format!(
        "\nimplementation = CPython\nversion = {version}\nversion_info = {version}\ninclude-system-site-packages = false\n"
    );
    [b"home = ", home, rest.as_bytes()].concat()
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
        Python::Node { path: "/opt/py/bin/python3.11".into(), version: "3.11.7".into() }
    }

    fn build(tree: &Path, layers: &[PathBuf], python: &Python) -> Result<Linked, LinkError> {
        fs::create_dir(tree).expect("creates");
        build_tree(tree, layers, python, How::Link, 2, &|| {}, |_| Ok(()))
    }

    #[test]
    fn a_tree_is_a_virtual_environment() {
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
        assert_eq!(fs::metadata(tree.join("lib")).expect("stat").permissions().mode() & 0o7777, 0o555);
    }

    #[test]
    fn a_shipped_interpreter_makes_a_prefix() {
        let directory = tempfile::tempdir().expect("a directory");
        let layers = [layer(directory.path(), "py", &["bin/python3.11", "lib/python3.11/os.py"])];
        let tree = directory.path().join("tree");
        build(&tree, &layers, &Python::Shipped { version: "3.11.7".into() }).expect("builds");
        assert_eq!(fs::read_link(tree.join("bin/python")).expect("a link"), Path::new("python3.11"));
        assert!(tree.join("bin/python3.11").is_file() && !tree.join("pyvenv.cfg").exists());
    }

    #[test]
    fn two_layers_with_one_path_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let layers = [layer(directory.path(), "a", &["lib/x.py"]), layer(directory.path(), "b", &["lib/x.py"])];
        let error = build(&directory.path().join("tree"), &layers, &node()).expect_err("refuses");
        assert!(matches!(&error, LinkError::Twice { path } if path.ends_with("lib/x.py")), "{error}");
    }
}
