//! Leases: clean-up removes nothing that a live process uses.
//!
//! A lease is a shared lock on a file inside the directory that is used: `.cpack/lease` of an environment, `state` of an
//! overlay's layer. It is held on a descriptor that stays open across `exec` and `fork`, so the kernel gives it back when
//! the last process that could use the directory is gone.
//!
//! [`Lease::take`] locks first, then checks that the file is still in its place. [`mod@super::clean`] takes the exclusive lock
//! first ([`exclusive`]), then renames the directory away. So a start either holds its lease before the rename, which keeps
//! clean-up out, or finds the file gone and takes no lease.

use std::fs::{self, File, FileTimes, TryLockError};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::boot_id::State;
use super::flock;
use crate::sys;

/// Descriptors of leases start here: out of the way of programs that expect 3 and the next to be free, within the
/// kernel's first table of 256, and below what `ulimit -n` is anywhere.
const LEAST_DESCRIPTOR: RawFd = 200;

/// Milliseconds to wait while a clean-up holds the lock exclusively: to look at it, or to rename the directory away.
const PATIENCE: u32 = 100;

/// The time of last use is not written more often than this.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// A shared lock on something in the cache.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

impl Lease {
    /// Takes a lease by locking the file at `path`, and reads the state in it. `None` if the file is gone, or a clean-up holds
    /// it.
    ///
    /// If the file system refuses locks, or its locks exclude no other process, the lease protects nothing; clean-up removes
    /// no environment and no layer there.
    pub(super) fn take(path: &Path) -> Option<(Self, io::Result<State>)> {
        let file = File::open(path).ok()?;
        let mut attempts = PATIENCE;
        while matches!(flock::shared(&file), Err(TryLockError::WouldBlock)) {
            attempts = attempts.checked_sub(1)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        let (held, there) = (file.metadata().ok()?, fs::metadata(path).ok()?);
        if (held.dev(), held.ino()) != (there.dev(), there.ino()) {
            return None;
        }
        let state = State::read(&file);
        if held.modified().is_ok_and(|used| used.elapsed().is_ok_and(|age| age > USE_RESOLUTION)) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Some((Self { file }, state))
    }

    /// Lets the lock outlive `exec`: it ends with the last process that inherits the descriptor.
    pub fn keep_across_exec(&self) -> io::Result<RawFd> {
        sys::duplicate_for_exec(&self.file, LEAST_DESCRIPTOR).or_else(|_| sys::duplicate_for_exec(&self.file, 3))
    }
}

/// Takes the exclusive lock that clean-up needs. `None` if another process holds a lease, or if locks do not work on this
/// file system.
pub(super) fn exclusive(path: &Path) -> Option<File> {
    flock::to_remove(path).ok()
}

/// When the lease file at `path` was last used.
pub(super) fn last_used(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::super::BootId;
    use super::super::boot_id::Mark;
    use super::*;

    #[test]
    fn lease_keeps_the_cleaner_out_even_after_its_file_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lease");
        assert!(Lease::take(&path).is_none());
        let boot = BootId::new("b");
        fs::write(&path, Mark::Boot(boot.clone()).to_bytes()).expect("writes");
        let (lease, state) = Lease::take(&path).expect("free");
        assert!(state.expect("a state").mark.is_trusted_by(&boot));
        assert!(exclusive(&path).is_none());
        let kept = lease.keep_across_exec().expect("duplicates");
        assert!(kept >= LEAST_DESCRIPTOR);
        drop(lease);
        assert!(exclusive(&path).is_none());
        nix::unistd::close(kept).expect("closes");
        let cleaner = exclusive(&path).expect("free");
        assert!(Lease::take(&path).is_none());
        drop(cleaner);
        assert!(Lease::take(&path).is_some());
    }

    #[test]
    fn using_sets_the_time_of_last_use() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let old = SystemTime::now() - Duration::from_secs(3600);
        file.as_file().set_times(FileTimes::new().set_modified(old)).expect("sets");
        assert!(Lease::take(file.path()).is_some());
        assert!(last_used(file.path()).expect("a time") > old + Duration::from_secs(3000));
    }
}
