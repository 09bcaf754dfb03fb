//! Merges layers into one tree: hard links, and copies of files that programs copy from their packages ([`super::copies`]).

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cpack_fault::point;
use cpack_format::prefix::TooLong;
use cpack_parallel::try_map;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use super::copies::{Area, LARGEST, Packages};
use super::own_prefix::OwnPrefix;
use crate::listing::list;

/// How files get into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Linked; copied where the file system refuses links.
    Link,
    /// Copied, and writable.
    Copy,
}

/// What [`link_layers`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Files and symbolic links in the tree.
    pub(crate) files: u64,
    /// Those that were to be linked and had to be copied, because the file system refused.
    pub(crate) copied: u64,
}

/// The outcome of [`link_layers`].
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) linked: Linked,
    /// Directories of resources without a linked file, relative to the tree. They stay writable.
    pub(crate) open: HashSet<PathBuf>,
}

/// Why layers cannot be merged. `Vanished`: another process's clean-up removed a layer meanwhile.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum LinkError {
    #[error(
        "two layers carry {path}, or its file system does not tell upper from lower case: pack the environment again",
        path = .path.display()
    )]
    Twice { path: PathBuf },
    #[error("layer {path} vanished", path = .path.display())]
    Vanished { path: PathBuf },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the node cache would make the environment's path {length} bytes long, and binaries of its conda packages have room for \
         {room}: set CPACK_CACHE_DIR to a directory with a shorter path"
    )]
    LongPrefix { length: usize, room: usize },
}

impl From<TooLong> for LinkError {
    fn from(TooLong { length, room }: TooLong) -> Self {
        Self::LongPrefix { length, room }
    }
}

/// One directory of one layer.
#[derive(Debug)]
struct Group {
    source: PathBuf,
    /// Relative to the tree.
    directory: PathBuf,
    /// Which of its files are copied.
    area: Area,
    /// Names of its files, and which are symbolic links.
    names: Vec<(OsString, bool)>,
}

/// What is in a layer.
#[derive(Debug, Default)]
struct Listed {
    groups: Vec<Group>,
    /// All directories, relative to the layer.
    directories: Vec<PathBuf>,
}

/// Which files of layers are not linked as they are.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a> {
    /// Whether the file at a path is left out.
    pub(crate) leave_out: &'a (dyn Fn(&Path) -> bool + Sync),
    /// Those that hold the tree's path.
    pub(crate) own_prefix: &'a OwnPrefix<'a>,
}

struct Work<'a> {
    tree: &'a Path,
    files: AtomicU64,
    copied: AtomicU64,
    /// Set when the file system refused a link: the next ones are copied at once.
    copy: AtomicBool,
    how: How,
    own_prefix: &'a OwnPrefix<'a>,
}

/// Merges the directories `layers` into the empty directory `tree`. Calls `progress` for each directory of a layer.
pub(crate) fn link_layers(
    tree: &Path,
    layers: &[PathBuf],
    how: How,
    threads: usize,
    files: Files<'_>,
    progress: &(dyn Fn() + Sync),
) -> Result<Merged, LinkError> {
    let Files { leave_out, own_prefix } = files;
    let listed = try_map(threads, layers, |layer| {
        let mut listed = Listed::default();
        let scanned = scan(layer, Path::new(""), leave_out, &mut listed);
        scanned.map(|()| listed).map_err(|e| vanished(layer, e))
    })?;
    let mut groups: Vec<Group> = Vec::new();
    let mut directories = BTreeSet::new();
    for layer in listed {
        groups.extend(layer.groups);
        directories.extend(layer.directories);
    }
    let mut packages = Packages::default();
    let names = groups.iter().flat_map(|group| group.names.iter().map(|(name, _)| (&group.directory, name)));
    names.for_each(|(directory, name)| packages.note(directory, name));
    groups.iter_mut().for_each(|group: &mut Group| group.area = packages.area(&group.directory));
    for directory in &directories {
        let path = tree.join(directory);
        // Parents come first: a set of paths is in their order.
        fs::create_dir(&path).map_err(|source| classify(source, path))?;
    }
    point("tree.directories").map_err(|source| classify(source, tree.into()))?;
    let work = Work {
        tree,
        files: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        copy: AtomicBool::new(how == How::Copy),
        how,
        own_prefix,
    };
    let shares = try_map(threads, &groups, |group| {
        progress();
        work.link_group(group)
    })?;
    let shared: HashSet<&PathBuf> =
        groups.iter().zip(shares).filter_map(|(group, shares)| shares.then_some(&group.directory)).collect();
    let is_open = |path: &PathBuf| packages.is_open(path, shared.contains(path));
    Ok(Merged {
        linked: Linked { files: work.files.into_inner(), copied: work.copied.into_inner() },
        open: directories.into_iter().filter(is_open).collect(),
    })
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
fn scan(layer: &Path, relative: &Path, leave_out: &dyn Fn(&Path) -> bool, listed: &mut Listed) -> io::Result<()> {
    let source = layer.join(relative);
    let mut names = Vec::new();
    for (name, kind) in list(&source)? {
        let path = relative.join(&name);
        if leave_out(&path) {
            continue;
        }
        if kind.is_dir() {
            listed.directories.push(path.clone());
            scan(layer, &path, leave_out, listed)?;
        } else {
            names.push((name, kind.is_symlink()));
        }
    }
    if !names.is_empty() {
        listed.groups.push(Group { source, directory: relative.into(), area: Area::Code, names });
    }
    Ok(())
}

impl Work<'_> {
    /// Puts the files of one directory into the tree. Returns whether any of them may be shared with the layer.
    fn link_group(&self, group: &Group) -> Result<bool, LinkError> {
        let target = self.tree.join(&group.directory);
        let from = File::open(&group.source).map_err(|e| vanished(&group.source, e))?;
        let to = File::open(&target).map_err(|source| LinkError::Write { path: target.clone(), source })?;
        let mut shares = false;
        for (name, is_link) in &group.names {
            let path = || target.join(name);
            let result = if *is_link {
                fs::read_link(group.source.join(name)).and_then(|text| symlink(text, path()))
            } else if let Some(held) = self.own_prefix.at(&group.directory.join(name)) {
                let bytes = fs::read(group.source.join(name)).map_err(|e| vanished(&group.source, e))?;
                let mended = held.mend(&bytes).map_err(LinkError::from)?;
                self.write_own(&group.source.join(name), &path(), &mended, group.area.copies(name))
            } else if self.how == How::Link
                && group.area.copies(name)
                && copy_small(&from, &to, name).map_err(|e| self.failed(e, group, path()))?
            {
                Ok(())
            } else {
                shares = true;
                self.link_file(&from, &to, &group.source, name, &target)
            };
            result.map_err(|e| self.failed(e, group, path()))?;
        }
        point("tree.group").map_err(|e| classify(e, target.clone()))?;
        self.files.fetch_add(group.names.len() as u64, Ordering::Relaxed);
        Ok(shares)
    }

    fn failed(&self, error: io::Error, group: &Group, path: PathBuf) -> LinkError {
        match error.kind() {
            io::ErrorKind::NotFound => vanished(&group.source, error),
            _ => classify(error, path),
        }
    }

    fn link_file(&self, from: &File, to: &File, source: &Path, name: &OsString, target: &Path) -> io::Result<()> {
        if !self.copy.load(Ordering::Relaxed) {
            match refuse_link().and_then(|()| linkat(from, name.as_os_str(), to, name.as_os_str(), AtFlags::empty())) {
                Ok(()) => return Ok(()),
                // This file has as many links as it may have; others may have room for more.
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

    /// Writes a file that is this tree's alone.
    fn write_own(&self, source: &Path, target: &Path, bytes: &[u8], is_resource: bool) -> io::Result<()> {
        let executable = fs::metadata(source)?.permissions().mode() & 0o111 != 0;
        let mut output = File::options().write(true).create_new(true).open(target)?;
        output.write_all(bytes)?;
        let open = if self.how == How::Copy || is_resource { 0o200 } else { 0 };
        output.set_permissions(Permissions::from_mode(open | if executable { 0o555 } else { 0o444 }))
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

/// Copies a file that is at most [`LARGEST`] bytes and no native code, writable for its owner. Returns whether it did. A tree has
/// thousands of them: paths are looked up from their directories, and files are read by one call.
fn copy_small(from: &File, to: &File, name: &OsStr) -> io::Result<bool> {
    let mut input = File::from(openat(from, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?);
    let metadata = input.metadata()?;
    if metadata.len() > LARGEST {
        return Ok(false);
    }
    let mut bytes = vec![0; metadata.len() as usize];
    input.read_exact(&mut bytes)?;
    if bytes.starts_with(b"\x7fELF") {
        return Ok(false);
    }
    let mode = if metadata.permissions().mode() & 0o111 != 0 { 0o755 } else { 0o644 };
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut output = File::from(openat(to, name, new, Mode::from_bits_truncate(mode))?);
    output.write_all(&bytes)?;
    // The umask may have taken some of it.
    output.set_permissions(Permissions::from_mode(mode))?;
    Ok(true)
}

/// Fails where a test refuses links.
pub(super) fn refuse_link() -> Result<(), Errno> {
    point("linkat").map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn all<'a>(own_prefix: &'a OwnPrefix<'a>) -> Files<'a> {
        Files { leave_out: &|_| false, own_prefix }
    }

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
            let done = link_layers(&tree, std::slice::from_ref(&layer), how, 2, all(&OwnPrefix::default()), &|| {})
                .expect("links");
            assert_eq!(done.linked, Linked { files: 2, copied: u64::from(how == How::Copy) });
            let (own, layers) =
                (fs::metadata(tree.join("d/x")).expect("stat"), fs::metadata(layer.join("d/x")).expect("stat"));
            assert_eq!(own.ino() == layers.ino(), how == How::Link);
            assert_eq!(own.mode() & 0o777, if how == How::Link { 0o555 } else { 0o755 });
            assert!(tree.join("d/empty").is_dir());
            assert_eq!(fs::read_link(tree.join("d/l")).expect("a link"), Path::new("x"));
        }
    }

    #[test]
    fn link_layers_copies_resources_into_open_directories_and_links_code() {
        let directory = tempfile::tempdir().expect("a directory");
        let (layer, tree) = (directory.path().join("layer"), directory.path().join("tree"));
        let large = vec![7; LARGEST as usize + 1];
        let site = "lib/python3.11/site-packages";
        let files: [(&str, &[u8], bool); 8] = [
            ("pkg/__init__.py", b"", false),
            ("pkg/default.yaml", b"a: 1", true),
            ("pkg/templates/generic/env.py", b"import x", true),
            ("pkg/templates/generic/run.sh", b"#!/bin/sh", true),
            ("pkg/mixed/large.bin", &large, false),
            ("pkg/mixed/small.txt", b"", true),
            ("pkg/mixed/below/x.txt", b"", true),
            ("pkg/tools/native", b"\x7fELF", false),
        ];
        for (path, bytes, _) in files {
            let path = layer.join(site).join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
            fs::write(&path, bytes).expect("writes");
            let mode = if path.ends_with("run.sh") { 0o555 } else { 0o444 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        }
        fs::create_dir(&tree).expect("creates");
        let done = link_layers(&tree, std::slice::from_ref(&layer), How::Link, 2, all(&OwnPrefix::default()), &|| {})
            .expect("links");
        for (path, bytes, copied) in files {
            let stat = |root: &Path| fs::metadata(root.join(site).join(path)).expect("stat");
            let (own, shared) = (stat(&tree), stat(&layer));
            assert_eq!(own.ino() != shared.ino(), copied, "{path}");
            assert_eq!(own.mode() & 0o777, shared.mode() & 0o777 | if copied { 0o200 } else { 0 }, "{path}");
            assert_eq!(fs::read(tree.join(site).join(path)).expect("reads"), bytes, "{path}");
        }
        let open: BTreeSet<&Path> =
            done.open.iter().map(|path| path.strip_prefix(format!("{site}/pkg")).expect("in it")).collect();
        let expected = ["mixed/below", "templates", "templates/generic"].map(Path::new);
        assert_eq!(open, BTreeSet::from(expected));
        assert_eq!(done.linked, Linked { files: 8, copied: 0 });
    }

    #[test]
    fn layer_that_vanished_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let gone = directory.path().join("gone");
        let result = link_layers(
            directory.path(),
            std::slice::from_ref(&gone),
            How::Link,
            1,
            all(&OwnPrefix::default()),
            &|| {},
        );
        assert!(matches!(result, Err(LinkError::Vanished { path }) if path == gone));
    }
}
