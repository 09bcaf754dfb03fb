//! `flock(2)`. Tests make it refuse or lie as file systems do.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use cpack_fault::{point, value};

use super::places::is_network;

/// Takes the exclusive lock, without waiting.
pub(super) fn exclusive(file: &File) -> Result<(), TryLockError> {
    take(file, File::try_lock)
}

/// Takes the exclusive lock of a file whose directory is to be removed, if that proves that no process uses it.
///
/// A lock that a second descriptor gets too excludes no process. On a network file system it may exclude only processes on
/// this node (`local_lock` of NFS, `localflock` of Lustre). Both are errors as if locks were refused.
pub(super) fn to_remove(path: &Path) -> Result<File, TryLockError> {
    let open = || File::open(path).map_err(TryLockError::Error);
    let file = open()?;
    exclusive(&file)?;
    match shared(&open()?) {
        Err(TryLockError::WouldBlock) if !is_network(path) => Ok(file),
        Err(TryLockError::Error(error)) => Err(TryLockError::Error(error)),
        Ok(()) | Err(TryLockError::WouldBlock) => Err(TryLockError::Error(io::ErrorKind::Unsupported.into())),
    }
}

/// Takes the shared lock, without waiting.
pub(super) fn shared(file: &File) -> Result<(), TryLockError> {
    take(file, File::try_lock_shared)
}

fn take(file: &File, lock: fn(&File) -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    point("flock").map_err(TryLockError::Error)?;
    if value("flock") == Some("lie") { Ok(()) } else { lock(file) }
}
