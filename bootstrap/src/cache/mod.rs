//! The node cache: environments kept on an executor's node for the next container.
//!
//! ```text
//! <place>/cpack-<uid>/                 0700, made and checked by descriptor
//!     layers/<content digest>/files/   a layer's files, read-only; whoever has this directory has all of it
//!     layers/<content digest>/state    under which boot of the node it was written, and its size
//!     environments/<key>/              a tree of hard links, named by environment id and interpreter
//!     environments/<key>/.cpack/       its lease (also: under which boot it was written), manifest and store
//!     jobs/<key>-<digest>/             what a job with overlays starts from: links to a tree, and where its overlays are
//!     private/<unique>/                copies made for CPACK_WRITABLE, gone when their process is
//!     staging/<unique>/                what a process is building, locked by it
//!     locks/                           empty files that save work
//! ```
//!
//! **Complete means renamed into place.** Everything is built under `staging/` and renamed without replacing: whoever
//! loses the race discards its own. A process that is killed at any instruction leaves a staging directory that nobody
//! looks into and whose lock is free, which [`mod@clean`] removes.
//!
//! **Locks only save work**: they never make anything correct. Who waits for another watches its progress and does the
//! work itself when there is none ([`share`]).
//!
//! **After a power loss** a directory that was renamed may hold files whose bytes were never written. The boot id of the
//! node tells ([`reboot`]): what was written under another boot is verified by content once, and nothing is ever synced
//! while somebody waits.

mod clean;
mod commit;
mod content;
mod environments;
mod flock;
mod jobs;
mod layers;
mod lease;
mod named;
mod places;
mod reboot;
mod remove;
mod share;
mod staging;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_artifact::fault::point;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};

pub use clean::{Cleaned, Cleaning, RECENT, clean};
pub use commit::Published;
pub use content::content_of;
pub(crate) use content::file_digest;
pub use environments::{Description, Environment, Found, lease_tree, read_description, read_manifest, write_records};
pub(crate) use environments::{LEASE, RECORDS};
pub(crate) use jobs::{environment_of, write_overlays};
pub use layers::{LayerState, StagedLayer, seal_directories};
pub use lease::Lease;
pub(crate) use places::unusable;
pub use places::{Kind, Place, places};
pub use reboot::BootId;
pub use remove::remove_tree;
pub use share::{Claim, Claimed, Watched};
pub use staging::Staging;
pub(crate) use staging::remove_own_staging;

/// A directory `cpack-<uid>` that is known to be this user's own.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    place: Place,
    boot: BootId,
    /// Keeps the checked directory open.
    _directory: OwnedFd,
}

/// Why a place is not used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be opened or made.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It belongs to somebody else, or others may write to it.
    #[error("{path} {reason}", path = path.display())]
    Refused {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl PlaceError {
    /// Whether there is nothing at this place.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Cache {
    /// The cache that is at `place` already.
    pub fn open(place: &Place, boot: &BootId) -> Result<Self, PlaceError> {
        let name = directory_name();
        let root = place.path.join(&name);
        let parent = File::open(&place.path).map_err(|source| PlaceError::Io { path: place.path.clone(), source })?;
        let directory = open_directory(&parent, &name).map_err(|errno| refusal(&root, errno))?;
        check_owner(&directory, &root)?;
        if let Some(reason) = places::unguarded(place) {
            return Err(PlaceError::Refused { path: root, reason });
        }
        Ok(Self { root, place: place.clone(), boot: boot.clone(), _directory: directory })
    }

    /// The cache at `place`, made if there is none, with all its directories.
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
            match fs::create_dir(cache.root.join(directory)) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io(&cache.root, e)),
                _ => {}
            }
        }
        Ok(cache)
    }

    /// `…/cpack-<uid>`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The place it is at.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The boot of the node that is trusted.
    pub fn boot(&self) -> &BootId {
        &self.boot
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What is in one of the cache's directories. One that is missing is empty: whoever makes a cache may be killed
    /// between two of them.
    fn list(&self, name: &str) -> io::Result<Vec<fs::DirEntry>> {
        match fs::read_dir(self.directory(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => Ok(entries?.flatten().collect()),
        }
    }
}

/// Bytes that this user may still write at `path`, or at what there is above it; as good as endless where nobody tells.
pub(crate) fn free_at(path: &Path) -> u64 {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(path);
    let stat = nix::sys::statvfs::statvfs(existing);
    stat.map_or(u64::MAX, |s| s.blocks_available().saturating_mul(s.fragment_size()))
}

const LAYERS: &str = "layers";
const ENVIRONMENTS: &str = "environments";
const JOBS: &str = "jobs";
const PRIVATE: &str = "private";
const STAGING: &str = "staging";
const LOCKS: &str = "locks";

/// The name of this user's directory.
fn directory_name() -> String {
    format!("cpack-{}", nix::unistd::geteuid())
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

/// Refuses a directory that is not this user's own or that others may write to. One that others may read is closed.
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
        fchmod(directory, Mode::S_IRWXU).map_err(|e| io(e.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn place(path: &Path) -> Place {
        Place { path: path.into(), kind: Kind::Temporary }
    }

    #[test]
    fn a_cache_is_made_once_and_private() {
        let directory = tempfile::tempdir().expect("a directory");
        let boot = BootId::new("b");
        assert!(Cache::open(&place(directory.path()), &boot).expect_err("none").is_missing());
        let cache = Cache::create(&place(directory.path()), &boot).expect("makes it");
        Cache::create(&place(directory.path()), &boot).expect("finds it");
        assert_eq!(fs::metadata(cache.root()).expect("stat").mode() & 0o7777, 0o700);
        assert!(free_at(&cache.root().join("not/yet")) > 0);
    }

    #[test]
    fn what_others_may_write_to_is_refused() {
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
    fn a_link_is_refused_wherever_it_leads() {
        let directory = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir().expect("a directory");
        symlink(elsewhere.path(), directory.path().join(directory_name())).expect("links");
        let refused = Cache::create(&place(directory.path()), &BootId::new("b"));
        assert!(matches!(refused, Err(PlaceError::Refused { .. })), "{refused:?}");
    }
}
