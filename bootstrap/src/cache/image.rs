//! Caches that came with a container's image: what is in them can be read, and cannot be moved.
//!
//! On a read-only root file system nothing can be written. In a lower layer of overlayfs files can be changed, by a copy
//! in the upper layer that ends with the container, but a directory cannot be renamed: `EXDEV`, since overlayfs would
//! have to copy all that is below. So here
//!
//! - an environment of another boot id is checked byte by byte where it is, instead of being put up anew, and that it was
//!   found whole is noted, for this boot id, in another cache of this user (`checked/<key>`), where containers of the same
//!   image find it, or else in its own lease. The note names the tree by its path and by when the image was unpacked here
//!   (the change time of its manifest's file, which nobody sets);
//! - what was found damaged on a read-only file system is noted likewise, so that starts pass it over;
//! - what is damaged and can be written to is removed where it is, and built anew. It cannot be taken away in one step: a
//!   layer loses its `state` first and a tree its lease, so that nobody trusts what is left meanwhile;
//! - clean-up leaves it: removing it would free nothing.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::statfs::statfs;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::environments::{lease_path, manifest_path};
use super::staging::unique_name;
use super::{Cache, commit, remove_tree};

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAYFS: u32 = 0x794c_7630;

const CHECKED: &str = "checked";

/// In the place of a boot id: the tree is not to be used under any.
const DAMAGED: &str = "damaged";

impl Cache {
    /// Whether nothing can be written in it.
    pub fn is_read_only(&self) -> bool {
        statvfs(self.root()).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
    }

    /// Whether its directories may be those of an image.
    pub fn is_of_image(&self) -> bool {
        // f_type is a signed word on some architectures: its low 32 bits are what the constant is.
        let overlay = statfs(self.root()).is_ok_and(|stat| stat.filesystem_type().0 as u32 == OVERLAYFS);
        overlay || self.is_read_only()
    }

    /// Notes here whether the environment `key` of `other` was found whole: under this boot, or damaged for good.
    pub fn note_checked(&self, key: &str, other: &Self, whole: bool) -> io::Result<()> {
        let directory = self.directory(CHECKED);
        match fs::create_dir(&directory) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let note = other.note(key, whole).ok_or(io::ErrorKind::NotFound)?;
        // Torn or mixed by two writers it matches nothing, and the environment is checked again.
        fs::write(directory.join(key), note)
    }

    /// Whether it is noted here that the environment `key` of `other` was found whole, or was not.
    pub fn is_noted(&self, key: &str, other: &Self, whole: bool) -> bool {
        let noted = fs::read_to_string(self.directory(CHECKED).join(key)).ok();
        noted.is_some() && noted == other.note(key, whole)
    }

    fn note(&self, key: &str, whole: bool) -> Option<String> {
        let tree = self.environment_path(key);
        let unpacked = fs::metadata(manifest_path(&tree)).ok()?;
        let boot = if whole { self.boot().as_str() } else { DAMAGED };
        Some(format!("{boot}\n{}.{:09}\n{}\n", unpacked.ctime(), unpacked.ctime_nsec(), tree.display()))
    }
}

/// Whether a rename was refused as those of an image's directories are.
pub(super) fn is_immovable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EROFS))
}

/// Removes a layer's directory where it is.
pub(super) fn remove_layer(layer: &Path) -> io::Result<()> {
    remove_unless_gone(&Cache::state_file(layer))?;
    remove_tree(layer, None).map(drop)
}

/// Puts the directory `staged` in the place of a tree that cannot be moved.
///
/// It comes beside that place first: where not even this can be done, nothing is taken away.
pub(super) fn replace_tree(staged: &Path, place: &Path) -> io::Result<()> {
    let beside = place.with_extension(unique_name());
    fs::rename(staged, &beside)?;
    let removed = revoke(&lease_path(place)).and_then(|()| remove_tree(place, None));
    let result = removed.and_then(|_| commit::publish(&beside, place));
    if !matches!(result, Ok(commit::Published::Ours)) {
        // Another process put one up meanwhile, or nobody can.
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
