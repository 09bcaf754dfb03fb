//! Merging layers into one tree by hard links.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use cpack_artifact::fault::point;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::linkat;

/// How files get into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Linked; copied where the file system refuses links.
    Link,
    /// Copied, and writable.
    Copy,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Linked {
    /// Files and symbolic links in the tree.
    pub files: u64,
    /// Those that had to be copied.
    pub copied: u64,
}

/// Why layers cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Two layers carry the same path.
    #[error(
        "two layers carry {path}, or its file system does not tell upper from lower case: pack the environment again",
        path = .path.display()
    )]
    Twice {
        /// The path in the tree.
        path: PathBuf,
    },
    /// A layer vanished: it was cleaned up meanwhile.
    #[error("layer {path} vanished", path = .path.display())]
    Vanished {
        /// Where it was.
        path: PathBuf,
    },
    /// A file of the tree cannot be made.
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// One directory of one layer.
#[derive(Debug)]
struct Group {
    /// Where it is.
    source: PathBuf,
    /// Relative to the tree.
    directory: PathBuf,
    /// Names of its files, and which are symbolic links.
    names: Vec<(OsString, bool)>,
}

/// State that the threads share.
struct Work<'a> {
    tree: &'a Path,
    groups: Vec<Group>,
    next: AtomicUsize,
    files: AtomicU64,
    copied: AtomicU64,
    /// Set when the file system refused a link: the next ones are copied at once.
    copy: AtomicBool,
    how: How,
    progress: &'a (dyn Fn() + Sync),
    error: Mutex<Option<LinkError>>,
}

/// Merges the directories `layers` into the empty directory `tree`, without what `leave_out` names. `progress` is
/// called again and again.
pub fn link_layers(
    tree: &Path,
    layers: &[PathBuf],
    how: How,
    threads: usize,
    leave_out: &dyn Fn(&Path) -> bool,
    progress: &(dyn Fn() + Sync),
) -> Result<Linked, LinkError> {
    let mut groups = Vec::new();
    let mut directories = BTreeSet::new();
    for layer in layers {
        scan(layer, Path::new(""), leave_out, &mut groups, &mut directories).map_err(|e| vanished(layer, e))?;
    }
    for directory in &directories {
        let path = tree.join(directory);
        // Parents come first: a set of paths is in their order.
        fs::create_dir(&path).map_err(|source| classify(source, path))?;
    }
    point("tree.directories").map_err(|source| classify(source, tree.into()))?;
    let work = Work {
        tree,
        groups,
        next: AtomicUsize::new(0),
        files: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        copy: AtomicBool::new(how == How::Copy),
        how,
        progress,
        error: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(work.groups.len()) {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    match work.error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(Linked { files: work.files.into_inner(), copied: work.copied.into_inner() }),
    }
}

fn vanished(layer: &Path, error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::NotFound => LinkError::Vanished { path: layer.into() },
        _ => LinkError::Write { path: layer.into(), source: error },
    }
}

fn classify(source: io::Error, path: PathBuf) -> LinkError {
    match source.kind() {
        io::ErrorKind::AlreadyExists => LinkError::Twice { path },
        _ => LinkError::Write { path, source },
    }
}

/// Lists what is below `relative` in `layer`.
fn scan(
    layer: &Path,
    relative: &Path,
    leave_out: &dyn Fn(&Path) -> bool,
    groups: &mut Vec<Group>,
    directories: &mut BTreeSet<PathBuf>,
) -> io::Result<()> {
    let source = layer.join(relative);
    let mut names = Vec::new();
    for entry in fs::read_dir(&source)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let path = relative.join(&name);
        if leave_out(&path) {
            continue;
        }
        if kind.is_dir() {
            directories.insert(path.clone());
            scan(layer, &path, leave_out, groups, directories)?;
        } else {
            names.push((name, kind.is_symlink()));
        }
    }
    if !names.is_empty() {
        groups.push(Group { source, directory: relative.into(), names });
    }
    Ok(())
}

impl Work<'_> {
    /// Takes groups until there are none, or one failed.
    fn run(&self) {
        while let Some(group) = self.groups.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            (self.progress)();
            if let Err(error) = self.link_group(group) {
                self.next.store(self.groups.len(), Ordering::Relaxed);
                *self.error.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            }
        }
    }

    fn link_group(&self, group: &Group) -> Result<(), LinkError> {
        let target = self.tree.join(&group.directory);
        let from = File::open(&group.source).map_err(|e| vanished(&group.source, e))?;
        let to = File::open(&target).map_err(|source| LinkError::Write { path: target.clone(), source })?;
        for (name, is_link) in &group.names {
            let path = || target.join(name);
            let result = if *is_link {
                fs::read_link(group.source.join(name)).and_then(|text| symlink(text, path()))
            } else {
                self.link_file(&from, &to, &group.source, name, &target)
            };
            result.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => vanished(&group.source, e),
                _ => classify(e, path()),
            })?;
        }
        point("tree.group").map_err(|e| classify(e, target.clone()))?;
        self.files.fetch_add(group.names.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn link_file(&self, from: &File, to: &File, source: &Path, name: &OsString, target: &Path) -> io::Result<()> {
        if !self.copy.load(Ordering::Relaxed) {
            match refuse_link().and_then(|()| linkat(from, name.as_os_str(), to, name.as_os_str(), AtFlags::empty())) {
                Ok(()) => return Ok(()),
                // This file has as many links as it may have; others have not.
                Err(Errno::EMLINK) => {}
                Err(Errno::EXDEV | Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    self.copy.store(true, Ordering::Relaxed);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        self.copied.fetch_add(1, Ordering::Relaxed);
        self.copy_file(&source.join(name), &target.join(name))
    }

    fn copy_file(&self, source: &Path, target: &Path) -> io::Result<()> {
        let mut input = File::open(source)?;
        let executable = input.metadata()?.permissions().mode() & 0o111 != 0;
        let mut output = File::options().write(true).create_new(true).open(target)?;
        io::copy(&mut input, &mut output)?;
        let mode = match (self.how, executable) {
            (How::Copy, true) => 0o755,
            (How::Copy, false) => 0o644,
            (How::Link, true) => 0o555,
            (How::Link, false) => 0o444,
        };
        output.set_permissions(Permissions::from_mode(mode))
    }
}

/// The error with which a test refuses links.
pub(super) fn refuse_link() -> Result<(), Errno> {
    point("linkat").map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn links_share_the_inode_and_copies_may_be_written_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let layer = directory.path().join("layer");
        fs::create_dir_all(layer.join("d/empty")).expect("creates");
        fs::write(layer.join("d/x"), "1").expect("writes");
        fs::set_permissions(layer.join("d/x"), Permissions::from_mode(0o555)).expect("chmod");
        symlink("x", layer.join("d/l")).expect("links");
        for (name, how) in [("linked", How::Link), ("copied", How::Copy)] {
            let tree = directory.path().join(name);
            fs::create_dir(&tree).expect("creates");
            let done = link_layers(&tree, std::slice::from_ref(&layer), how, 2, &|_| false, &|| {}).expect("links");
            assert_eq!(done, Linked { files: 2, copied: u64::from(how == How::Copy) });
            let (own, layers) =
                (fs::metadata(tree.join("d/x")).expect("stat"), fs::metadata(layer.join("d/x")).expect("stat"));
            assert_eq!(own.ino() == layers.ino(), how == How::Link);
            assert_eq!(own.mode() & 0o777, if how == How::Link { 0o555 } else { 0o755 });
            assert!(tree.join("d/empty").is_dir());
            assert_eq!(fs::read_link(tree.join("d/l")).expect("a link"), Path::new("x"));
        }
    }

    #[test]
    fn a_layer_that_vanished_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let gone = directory.path().join("gone");
        let result = link_layers(directory.path(), std::slice::from_ref(&gone), How::Link, 1, &|_| false, &|| {});
        assert!(matches!(result, Err(LinkError::Vanished { path }) if path == gone));
    }
}
