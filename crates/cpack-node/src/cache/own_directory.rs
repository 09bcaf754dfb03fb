//! The directory of a cache: opened or made at a place, and refused unless it is this user's own.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_fault::point;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

use super::places::{USER, directory_name, unguarded};
use super::{BootId, Place};

pub(super) const LAYERS: &str = "layers";
pub(super) const ENVIRONMENTS: &str = "environments";
pub(super) const JOBS: &str = "jobs";
pub(super) const PRIVATE: &str = "private";
pub(super) const STAGING: &str = "staging";
pub(super) const LOCKS: &str = "locks";
pub(super) const PIECES: &str = "pieces";
const SERVED: &str = "served";

/// A directory `cpack-<uid>` that was checked to be this user's own.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    boot: BootId,
    /// Keeps the checked directory open.
    _directory: OwnedFd,
}

/// Why a place is not used. `Refused`: another user owns it or may write to it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum PlaceError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} {reason}", path = path.display())]
    Refused { path: PathBuf, reason: String },
}

impl Cache {
    /// Opens the cache at `place`.
    pub fn open(place: &Place, boot: &BootId) -> Result<Self, PlaceError> {
        let name = directory_name();
        let root = place.path.join(&name);
        let parent = File::open(&place.path).map_err(|source| PlaceError::Io { path: place.path.clone(), source })?;
        let directory = open_directory(&parent, &name).map_err(|errno| refusal(&root, errno))?;
        check_owner(&directory, &root)?;
        if let Some(reason) = unguarded(place) {
            return Err(PlaceError::Refused { path: root, reason });
        }
        Ok(Self { root, boot: boot.clone(), _directory: directory })
    }

    /// Opens the cache at `place`. Makes it, and those of its directories that are missing.
    pub fn create(place: &Place, boot: &BootId) -> Result<Self, PlaceError> {
        let io = |path: &Path, source| PlaceError::Io { path: path.into(), source };
        if place.kind.may_be_created() {
            let mut directories = fs::DirBuilder::new();
            directories.recursive(true).mode(0o700).create(&place.path).map_err(|e| io(&place.path, e))?;
        }
        let parent = File::open(&place.path).map_err(|e| io(&place.path, e))?;
        match mkdirat(&parent, directory_name().as_str(), Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(io(&place.path, errno.into())),
        }
        let cache = Self::open(place, boot)?;
        point("cache.created").map_err(|e| io(&cache.root, e))?;
        for directory in [LAYERS, ENVIRONMENTS, JOBS, PRIVATE, STAGING, LOCKS] {
            make_directory(&cache.root.join(directory)).map_err(|e| io(&cache.root, e))?;
        }
        Ok(cache)
    }

    /// The directory `cpack-<uid>`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The boot of the node whose writes are trusted.
    pub(super) fn boot(&self) -> &BootId {
        &self.boot
    }

    pub(super) fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The directory for the caches of programs, made if it is missing.
    pub fn user_directory(&self) -> io::Result<PathBuf> {
        let path = self.directory(USER);
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            // An existing one may be on a file system that is read-only by now.
            Err(_) if self.is_read_only() => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            _ => Ok(path),
        }
    }

    /// The empty directory at which the environment `key` is served before it is built, made if it is missing. It is as deep
    /// as the environment's own place, which has to stay free for the finished tree.
    pub fn served_place(&self, key: &str) -> io::Result<PathBuf> {
        let directory = self.directory(SERVED);
        make_directory(&directory)?;
        let place = directory.join(key);
        make_directory(&place)?;
        Ok(place)
    }

    /// The entries of one of the cache's directories. A missing one counts as empty: [`Cache::create`] may be killed between
    /// two of them.
    pub(super) fn list(&self, name: &str) -> io::Result<Vec<fs::DirEntry>> {
        match fs::read_dir(self.directory(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => Ok(entries?.flatten().collect()),
        }
    }

    /// The names of the entries of one of the cache's directories.
    pub(super) fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let entries = self.list(directory)?;
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }
}

/// Makes a directory, which another process may make at the same time.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write at `path`, or at the nearest directory above it that exists; `u64::MAX` if the file
/// system does not tell.
pub fn free_at(path: &Path) -> u64 {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let stat = nix::sys::statvfs::statvfs(existing);
    stat.map_or(u64::MAX, |s| s.blocks_available().saturating_mul(s.fragment_size()))
}

fn open_directory(parent: &File, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

fn refusal(root: &Path, errno: Errno) -> PlaceError {
    match errno {
        Errno::ELOOP | Errno::ENOTDIR => PlaceError::Refused {
            path: root.into(),
            reason: "is a link or a file, not a directory of this user".into(),
        },
        errno => PlaceError::Io { path: root.into(), source: errno.into() },
    }
}

/// Refuses a directory that another user owns or may write to. Takes the permission to read from other users.
fn check_owner(directory: &OwnedFd, root: &Path) -> Result<(), PlaceError> {
    let io = |source| PlaceError::Io { path: root.into(), source };
    let refused = |reason| PlaceError::Refused { path: root.into(), reason };
    let file = File::from(directory.try_clone().map_err(io)?);
    let metadata = file.metadata().map_err(io)?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refused(format!("belongs to uid {}: it is not used", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused(format!(
            "may be written to by others (mode {:o}): it is not used",
            metadata.mode() & 0o7777
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        match fchmod(directory, Mode::S_IRWXU) {
            // In a read-only image other users can read the files anyway.
            Ok(()) | Err(Errno::EROFS) => {}
            Err(errno) => return Err(io(errno.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::PlaceKind;
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn place(path: &Path) -> Place {
        Place { path: path.into(), kind: PlaceKind::Temporary }
    }

    #[test]
    fn cache_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let boot = BootId::new("b");
        assert!(
            Cache::open(&place(directory.path()), &boot)
                .is_err_and(|e| matches!(e, PlaceError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound))
        );
        let cache = Cache::create(&place(directory.path()), &boot).expect("makes it");
        Cache::create(&place(directory.path()), &boot).expect("finds it");
        assert_eq!(fs::metadata(cache.root()).expect("stat").mode() & 0o7777, 0o700);
        assert!(free_at(&cache.root().join("not/yet")) > 0);
    }

    #[test]
    fn cache_that_other_users_may_write_to_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join(directory_name());
        let boot = BootId::new("b");
        fs::create_dir(&root).expect("makes it");
        for (mode, accepted) in [(0o777, false), (0o770, false), (0o755, true), (0o700, true)] {
            fs::set_permissions(&root, fs::Permissions::from_mode(mode)).expect("chmod");
            assert_eq!(Cache::create(&place(directory.path()), &boot).is_ok(), accepted, "{mode:o}");
        }
        assert_eq!(fs::metadata(&root).expect("stat").mode() & 0o7777, 0o700);
    }

    #[test]
    fn link_is_refused_wherever_it_leads() {
        let directory = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        symlink(elsewhere.path(), directory.path().join(directory_name())).expect("links");
        let refused = Cache::create(&place(directory.path()), &BootId::new("b"));
        assert!(matches!(refused, Err(PlaceError::Refused { .. })), "{refused:?}");
    }
}
