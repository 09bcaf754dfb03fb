//! Overlays: how Python in a tree comes to them.
//!
//! `PYTHONPATH` would not do: isolated children (`-I`, `-E`), those that get an empty environment and those that set their
//! own path would lose them, and it comes before the standard library. So they belong to the prefix, as editable projects
//! belong to a virtual environment. A job with overlays has a prefix of its own, a directory of links to the tree
//! ([`fill_job`]); `sys.executable` there leads every child to the same overlays. Each tree has a hook ([`write_hook`]), a
//! `.pth` file that looks for a list of overlays in `sys.prefix` and processes them as a virtual environment processes the
//! `.pth` files of editable projects: after the standard library and site-packages.
//!
//! Whole directories of the tree are links, so files keep their paths, `RUNPATH`s and hard links. `bin` is a real
//! directory whose scripts are hard links: they look for `python` beside what they really are, and must find the one of
//! the job.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cpack_format::virtual_environment::{interpreter_names, minor_in_names, pyvenv_cfg};

use super::link::refuse_link;
use super::{Python, unless_there};
use crate::cache::RECORDS;

/// The name of the hook. Sorts before those that begin with a lower-case letter, which may import what is in an overlay.
pub(crate) const HOOK: &str = "_cpack_overlays.pth";

/// The hook. In a prefix without a list it costs one `stat`. An overlay's own `.pth` files are those that its project
/// installs beside its modules, and are processed like all others.
pub(crate) const HOOK_TEXT: &str = r#"import os, sys; os.path.exists(os.path.join(sys.prefix, '.cpack', 'overlays')) and exec("import os, site, sys\nwith open(os.path.join(sys.prefix, '.cpack', 'overlays'), encoding='utf-8', errors='surrogateescape') as overlays:\n    for overlay in overlays:\n        site.addsitedir(os.path.join(os.path.dirname(os.path.dirname(sys.prefix)), overlay.strip()))", {})
"#;

/// Where the hook is in the tree of an interpreter.
pub(crate) fn hook_path(version: &str, soabi: &str) -> PathBuf {
    // `cpython-313t-x86_64-linux-gnu` is the one without the global lock.
    let free = soabi.split('-').nth(1).is_some_and(|tag| tag.ends_with('t'));
    let (minor, free) = (minor_in_names(version), if free { "t" } else { "" });
    Path::new("lib").join(format!("python{minor}{free}")).join("site-packages").join(HOOK)
}

/// Whether a path of a layer is that of a hook, which each tree has by itself.
pub(super) fn is_hook(path: &Path) -> bool {
    path.file_name() == Some(OsStr::new(HOOK)) && path.parent().is_some_and(|site| site.ends_with("site-packages"))
}

/// Writes the hook into a tree that is being staged.
pub(crate) fn write_hook(tree: &Path, version: &str, soabi: &str) -> io::Result<()> {
    let path = tree.join(hook_path(version, soabi));
    if let Some(site) = path.parent() {
        fs::create_dir_all(site)?;
    }
    fs::write(&path, HOOK_TEXT)?;
    fs::set_permissions(&path, Permissions::from_mode(0o444))
}

/// Fills the empty directory `place` with what makes it a prefix of `tree`, with the scripts of the overlays in the
/// directories `overlays`. `there` leads from the job prefix to the tree.
pub(crate) fn fill_job(
    place: &Path,
    tree: &Path,
    there: &Path,
    python: &Python,
    overlays: &[PathBuf],
) -> io::Result<()> {
    for entry in fs::read_dir(tree)? {
        let name = entry?.file_name();
        if name != "bin" && name != RECORDS && name != "pyvenv.cfg" {
            symlink(there.join(&name), place.join(&name))?;
        }
    }
    let bin = place.join("bin");
    fs::create_dir(&bin)?;
    match python {
        Python::Node { .. } => {
            fs::copy(tree.join("pyvenv.cfg"), place.join("pyvenv.cfg"))?;
        }
        // The tree is a full prefix: this one is a virtual environment of it.
        Python::Shipped { version } => {
            fs::write(place.join("pyvenv.cfg"), pyvenv_cfg(&tree.join("bin/python"), version, false))?
        }
    }
    for name in interpreter_names(python.version()) {
        let in_tree = tree.join("bin").join(&name);
        match (python, fs::read_link(&in_tree)) {
            (Python::Node { .. }, Ok(target)) => symlink(target, bin.join(&name))?,
            _ if in_tree.exists() => symlink(Path::new("..").join(there).join("bin").join(&name), bin.join(&name))?,
            _ => {}
        }
    }
    add_scripts(&bin, overlays)?;
    add_rest(&bin, &tree.join("bin"), &Path::new("..").join(there).join("bin"))
}

/// Puts the scripts of overlays into `bin`, those of earlier ones first: what their layers have in `NAME-VERSION.data/scripts`,
/// where a wheel has them. One that is there already stays.
pub(crate) fn add_scripts(bin: &Path, overlays: &[PathBuf]) -> io::Result<()> {
    for overlay in overlays {
        for (name, script) in scripts(overlay)? {
            link_or_copy(&script, &bin.join(name))?;
        }
    }
    Ok(())
}

/// The scripts that an overlay brings.
fn scripts(overlay: &Path) -> io::Result<Vec<(OsString, PathBuf)>> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(overlay)? {
        let entry = entry?;
        if !entry.file_name().as_bytes().ends_with(b".data") {
            continue;
        }
        match fs::read_dir(entry.path().join("scripts")) {
            Ok(entries) => {
                for script in entries {
                    let script = script?;
                    scripts.push((script.file_name(), script.path()));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(e),
        }
    }
    scripts.sort();
    Ok(scripts)
}

/// Puts the rest of a tree's `bin` into that of a job. `there` leads from the one to the other.
fn add_rest(bin: &Path, in_tree: &Path, there: &Path) -> io::Result<()> {
    for entry in fs::read_dir(in_tree)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let place = bin.join(&name);
        if kind.is_file() {
            link_or_copy(&entry.path(), &place)?;
        } else {
            // Links stay relative to what is beside them, which is here, too.
            let target = if kind.is_symlink() { fs::read_link(entry.path())? } else { there.join(&name) };
            unless_there(symlink(target, place))?;
        }
    }
    Ok(())
}

/// Links a read-only file of the cache, or copies it where the file system refuses. What is there already stays.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    let linked = refuse_link().map_err(io::Error::from).and_then(|()| fs::hard_link(from, to));
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists && !is_gone(&e) => {
            let mut input = File::open(from)?;
            let mode = input.metadata()?.permissions().mode() & 0o555;
            let Ok(mut output) = File::options().write(true).create_new(true).open(to) else { return Ok(()) };
            io::copy(&mut input, &mut output)?;
            output.set_permissions(Permissions::from_mode(mode))
        }
        result => unless_there(result),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_is_in_site_packages_of_the_interpreter_and_nowhere_else() {
        for (version, soabi, site) in [
            ("3.11.7", "cpython-311-x86_64-linux-gnu", "lib/python3.11/site-packages"),
            ("3.13.0", "cpython-313t-x86_64-linux-gnu", "lib/python3.13t/site-packages"),
            ("3.14.0rc1", "", "lib/python3.14/site-packages"),
            ("3.../../../../evil/x.1", "a-../t", ""),
            ("/evil.1.2", "", ""),
        ] {
            let path = hook_path(version, soabi);
            assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))), "{version}: {path:?}");
            assert_eq!(path.components().count(), 4, "{version}: {path:?}");
            if !site.is_empty() {
                assert_eq!(path, Path::new(site).join(HOOK));
            }
            assert!(is_hook(&path));
        }
        assert!(!is_hook(Path::new("lib/python3.11/site-packages/sub/_cpack_overlays.pth")));
    }
}
