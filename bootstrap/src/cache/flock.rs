//! `flock(2)`, which tests make refuse or lie as file systems do.

use std::fs::{File, TryLockError};

use cpack_artifact::fault::{point, value};

/// Takes the lock that nobody else may have, without waiting.
pub(super) fn exclusive(file: &File) -> Result<(), TryLockError> {
    take(file, File::try_lock)
}

/// Takes a lock that others may share, without waiting.
pub(super) fn shared(file: &File) -> Result<(), TryLockError> {
    take(file, File::try_lock_shared)
}

fn take(file: &File, lock: fn(&File) -> Result<(), TryLockError>) -> Result<(), TryLockError> {
    point("flock").map_err(TryLockError::Error)?;
    if value("flock") == Some("lie") { Ok(()) } else { lock(file) }
}
