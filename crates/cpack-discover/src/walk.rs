//! A parallel walk of a directory that reads the stat of every file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use cpack_format::SafePath;
use rayon::prelude::*;

use super::model::{FileKind, FileStat, Finding, FindingKind};

#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Files and links, in the byte order of their paths.
    pub(super) files: Vec<FileStat>,
    /// Warnings of directories that cannot be read and of files that are neither file, link nor directory.
    pub(super) findings: Vec<Finding>,
}

/// Walks `root`. The paths of the files start with `at`. Directories whose path `skip` accepts are not entered.
///
/// Files that disappear during the walk are ignored. Links are not followed.
pub(super) fn walk(root: &Path, at: &[u8], skip: &(dyn Fn(&[u8]) -> bool + Sync)) -> io::Result<Walked> {
    let mut walked = visit(root, at, skip)?;
    walked.files.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(walked)
}

/// The files and links below `root`, in the byte order of their paths. Directories whose path `skip` accepts are not entered.
pub fn walk_tree(root: &Path, skip: &(dyn Fn(&[u8]) -> bool + Sync)) -> io::Result<Vec<FileStat>> {
    walk(root, b"", skip).map(|walked| walked.files)
}

fn visit(dir: &Path, at: &[u8], skip: &(dyn Fn(&[u8]) -> bool + Sync)) -> io::Result<Walked> {
    let mut walked = Walked::default();
    let mut subdirectories = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = join(at, entry.file_name().as_bytes());
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if !skip(&path) {
                subdirectories.push((entry.path(), path));
            }
            continue;
        }
        match entry.metadata().and_then(|metadata| stat_of(&path, &metadata, || fs::read_link(entry.path()))) {
            Ok(stat) => walked.files.push(stat),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => walked.findings.push(unreadable(&entry.path(), &e)),
        }
    }
    let below: Vec<Walked> = subdirectories
        .into_par_iter()
        .map(|(dir, path)| match visit(&dir, &path, skip) {
            Ok(walked) => walked,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Walked::default(),
            Err(e) => Walked { files: Vec::new(), findings: vec![unreadable(&dir, &e)] },
        })
        .collect();
    walked.files.reserve(below.iter().map(|w| w.files.len()).sum());
    for mut other in below {
        walked.files.append(&mut other.files);
        walked.findings.append(&mut other.findings);
    }
    Ok(walked)
}

/// The stat of the file or link `source`, with the path `path`.
pub(super) fn stat(source: &Path, path: &[u8]) -> io::Result<FileStat> {
    stat_of(path, &fs::symlink_metadata(source)?, || fs::read_link(source))
}

fn stat_of(
    path: &[u8],
    metadata: &Metadata,
    target: impl FnOnce() -> io::Result<std::path::PathBuf>,
) -> io::Result<FileStat> {
    let kind = if metadata.is_symlink() {
        FileKind::Link(target()?.into_os_string().into_vec().into())
    } else if !metadata.is_file() {
        return Err(io::Error::other("it is neither a file nor a link"));
    } else if metadata.mode() & 0o100 != 0 {
        FileKind::Executable
    } else {
        FileKind::File
    };
    Ok(FileStat {
        path: SafePath::new(path).map_err(io::Error::other)?,
        source: None,
        size: metadata.len(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        ino: metadata.ino(),
        kind,
    })
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// `at/name`, or `name` at the root.
pub(super) fn join(at: &[u8], name: &[u8]) -> Vec<u8> {
    if at.is_empty() { name.to_vec() } else { [at, b"/", name].concat() }
}

fn unreadable(path: &Path, error: &io::Error) -> Finding {
    let message = format!("{} is left out: {error}", path.display());
    Finding::new(FindingKind::Unreadable, message)
}
