//! Caches that came with a container's image: they can be read, but their directories cannot be moved.
//!
//! Nothing can be written on a read-only root file system. In a lower layer of overlayfs a file can be changed, as a copy in
//! the upper layer that ends with the container, but renaming a directory fails with `EXDEV`: overlayfs would have to copy
//! everything below it. Therefore:
//!
//! - A start checks an environment of another boot id byte by byte where it is, instead of building it again. If it is whole,
//!   [`Cache::note_checked`] notes this for the current boot id in another cache of the user (`checked/<key>`), where
//!   containers of the same image find it, or else in its own lease. The note names the tree by its path and by the time at
//!   which the image was unpacked here: the change time of the manifest's file, which no program can set.
//! - `verify` notes a damaged environment on a read-only file system in the same place, and starts do not use it.
//! - A damaged layer or tree that can be written to is removed in place and built again. This takes many steps, so
//!   [`remove_layer`] removes the `state` first and [`replace_tree`] the lease: without these no process uses what is left.
//! - Clean-up leaves it, because removing it would free no space.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cpack_store::unique_name;
use nix::sys::statfs::statfs;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::own_directory::{Cache, make_directory};
use super::records::{lease_path, manifest_path};
use super::{commit, remove_tree};

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAYFS: u32 = 0x794c_7630;

const CHECKED: &str = "checked";

/// Stands for the boot id in the note of a damaged tree, which is not used under any boot.
const DAMAGED: &str = "damaged";

/// The outcome of checking an environment byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was whole under this boot.
    Whole,
    /// It is damaged for good, since it cannot be written to.
    Damaged,
}

impl Cache {
    /// Whether it is on a read-only file system.
    pub fn is_read_only(&self) -> bool {
        statvfs(self.root()).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
    }

    /// Whether it may have come with an image: it is on overlayfs, or read-only.
    pub fn is_of_image(&self) -> bool {
        // f_type is a signed word on some architectures: the constant is its low 32 bits.
        let overlay = statfs(self.root()).is_ok_and(|stat| stat.filesystem_type().0 as u32 == OVERLAYFS);
        overlay || self.is_read_only()
    }

    /// Notes in this cache the outcome of checking the environment `key` of `other`.
    pub fn note_checked(&self, key: &str, other: &Self, verdict: Verdict) -> io::Result<()> {
        let directory = self.directory(CHECKED);
        make_directory(&directory)?;
        let note = other.note(key, verdict).ok_or(io::ErrorKind::NotFound)?;
        // A note that was torn or mixed by two writers matches nothing: the environment is checked again.
        fs::write(directory.join(key), note)
    }

    /// Whether this cache has this note of the environment `key` of `other`.
    pub fn is_noted(&self, key: &str, other: &Self, verdict: Verdict) -> bool {
        let noted = fs::read_to_string(self.directory(CHECKED).join(key)).ok();
        noted.is_some() && noted == other.note(key, verdict)
    }

    fn note(&self, key: &str, verdict: Verdict) -> Option<String> {
        let tree = self.environment_path(key);
        let unpacked = fs::metadata(manifest_path(&tree)).ok()?;
        let boot = match verdict {
            Verdict::Whole => self.boot().as_str(),
            Verdict::Damaged => DAMAGED,
        };
        Some(format!("{boot}\n{}.{:09}\n{}\n", unpacked.ctime(), unpacked.ctime_nsec(), tree.display()))
    }
}

/// Whether a rename failed as it does for the directories of an image.
pub(super) fn is_immovable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EROFS))
}

/// Removes a layer in place.
pub(super) fn remove_layer(layer: &Path) -> io::Result<()> {
    remove_unless_gone(&Cache::state_file(layer))?;
    remove_tree(layer, None).map(drop)
}

/// Removes a prefix of Python in place, its lease first: from then on no start takes it for one.
pub(super) fn remove_prefix(place: &Path) -> io::Result<()> {
    revoke(&lease_path(place))?;
    remove_tree(place, None).map(drop)
}

/// Puts the directory `staged` in the place of a tree that cannot be moved.
///
/// Moves it beside that place first: if this fails, the tree there stays as it is.
pub(super) fn replace_tree(staged: &Path, place: &Path) -> io::Result<()> {
    let beside = place.with_extension(unique_name());
    fs::rename(staged, &beside)?;
    let result = remove_prefix(place).and_then(|()| commit::commit(&beside, place));
    if !matches!(result, Ok(commit::Committed::Ours)) {
        // Another process committed one meanwhile, or no process can.
        let _ = remove_tree(&beside, None);
    }
    result.map(drop)
}

/// Removes a lease's file from its read-only directory.
fn revoke(lease: &Path) -> io::Result<()> {
    if let Some(records) = lease.parent().filter(|records| records.is_dir()) {
        fs::set_permissions(records, Permissions::from_mode(0o700))?;
    }
    remove_unless_gone(lease)
}

fn remove_unless_gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(e),
        _ => Ok(()),
    }
}
