//! The content digest of a directory, computed from its files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cpack_format::content::{Item, Kind, content_digest};
use cpack_format::{Digest, SafePath};
use cpack_parallel::try_map_with;

use crate::listing::list;

/// Bytes read at once: a multiple of the block that BLAKE3 hashes in parallel, small enough for a core's cache.
const BUFFER: usize = 256 << 10;

/// The content digest of the tree at `root`, hashed by `threads` threads, which call `progress` for each buffer.
pub fn content_of(root: &Path, threads: usize, progress: &(dyn Fn() + Sync)) -> io::Result<Digest> {
    let mut found = Vec::new();
    walk(root, PathBuf::new(), &mut found)?;
    let buffer = || vec![0; BUFFER];
    let item = |buffer: &mut Vec<u8>, (path, kind): &(PathBuf, Kind)| item_at(root, path, *kind, buffer, progress);
    let mut items = try_map_with(threads, &found, buffer, item)?;
    Ok(content_digest(&mut items))
}

/// Kind, length and digest of the regular file at `path`.
pub fn file_digest(path: &Path) -> io::Result<(Kind, u64, Digest)> {
    hash_file(path, &mut vec![0; BUFFER], &|| {})
}

/// Files, links and empty directories below `root`, relative to it.
fn walk(root: &Path, directory: PathBuf, found: &mut Vec<(PathBuf, Kind)>) -> io::Result<()> {
    let entries = list(&root.join(&directory))?;
    let empty = entries.is_empty();
    for (name, kind) in entries {
        let path = directory.join(name);
        if kind.is_dir() {
            walk(root, path, found)?;
        } else if kind.is_symlink() {
            found.push((path, Kind::Link));
        } else {
            // `hash_file` tells whether it is executable.
            found.push((path, Kind::File));
        }
    }
    if empty && !directory.as_os_str().is_empty() {
        found.push((directory, Kind::Directory));
    }
    Ok(())
}

fn item_at(root: &Path, path: &Path, kind: Kind, buffer: &mut [u8], progress: &(dyn Fn() + Sync)) -> io::Result<Item> {
    let safe = SafePath::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let place = root.join(path);
    let (kind, size, digest) = match kind {
        Kind::Directory => (Kind::Directory, 0, Digest::of(b"")),
        Kind::Link => {
            let target = fs::read_link(place)?;
            let target = target.as_os_str().as_bytes();
            (Kind::Link, target.len() as u64, Digest::of(target))
        }
        Kind::File | Kind::Executable => hash_file(&place, buffer, progress)?,
    };
    Ok(Item { path: safe, kind, size, digest })
}

fn hash_file(path: &Path, buffer: &mut [u8], progress: &(dyn Fn() + Sync)) -> io::Result<(Kind, u64, Digest)> {
    let mut file = File::open(path)?;
    let executable = file.metadata()?.mode() & 0o111 != 0;
    let mut hasher = blake3::Hasher::new();
    loop {
        progress();
        match file.read(buffer)? {
            0 => break,
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        };
    }
    let kind = if executable { Kind::Executable } else { Kind::File };
    Ok((kind, hasher.count(), hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn content_digest_of_directory_is_that_of_the_packer() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir_all(root.join("a/empty")).expect("creates");
        fs::write(root.join("a/x"), "1").expect("writes");
        fs::set_permissions(root.join("a/x"), fs::Permissions::from_mode(0o555)).expect("chmod");
        fs::write(root.join("b"), vec![7; 3 * BUFFER + 1]).expect("writes");
        symlink("a/x", root.join("l")).expect("links");
        let item = |path: &str, kind, bytes: &[u8]| {
            let path = SafePath::new(path.as_bytes()).expect("safe");
            Item { path, kind, size: bytes.len() as u64, digest: Digest::of(bytes) }
        };
        let mut expected = [
            item("a/empty", Kind::Directory, b""),
            item("a/x", Kind::Executable, b"1"),
            item("b", Kind::File, &vec![7; 3 * BUFFER + 1]),
            item("l", Kind::Link, b"a/x"),
        ];
        let digest = content_digest(&mut expected);
        for threads in [1, 4] {
            assert_eq!(content_of(root, threads, &|| {}).expect("reads"), digest);
        }
        fs::write(root.join("b"), "other").expect("writes");
        assert_ne!(content_of(root, 2, &|| {}).expect("reads"), digest);
    }
}
