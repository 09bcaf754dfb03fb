//! Leases: what a live process uses is not cleaned up.
//!
//! A lease is a shared lock on a file inside what is used: `.cpack/lease` of an environment, `state` of an overlay's
//! layer. It is held on a descriptor that stays open across `exec` and `fork`, so the kernel gives it back when the last
//! process that could use the directory is gone. Clean-up takes the lock exclusively before it renames anything away;
//! whoever gets his lease looks again whether the directory is still in its place.

use std::fs::{self, File, FileTimes, TryLockError};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::flock;
use super::reboot::Mark;
use crate::sys;

/// Descriptors of leases start here: out of the way of programs that expect 3 and the next to be free, within the
/// kernel's first table of 256, and below what `ulimit -n` is anywhere.
const LEAST_DESCRIPTOR: RawFd = 200;

/// How many milliseconds to wait for whoever holds the lock exclusively: to look at it, or to rename its place away.
const PATIENCE: u32 = 100;

/// The time of last use is not written more often than this.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// A shared lock on something in the cache.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

impl Lease {
    /// Takes a lease by the file at `path`, and reads the mark in it. None: it is gone, or going.
    ///
    /// Where the file system refuses locks, or they exclude nobody, the lease protects from nothing, and nobody cleans up
    /// what could be leased.
    pub(super) fn take(path: &Path) -> Option<(Self, io::Result<Mark>)> {
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
        let mark = Mark::read(&file);
        if held.modified().is_ok_and(|used| used.elapsed().is_ok_and(|age| age > USE_RESOLUTION)) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Some((Self { file }, mark))
    }

    /// Lets the lock outlive `exec`: it ends with the last process that inherits the descriptor.
    pub fn keep_across_exec(&self) -> io::Result<RawFd> {
        sys::duplicate_for_exec(&self.file, LEAST_DESCRIPTOR).or_else(|_| sys::duplicate_for_exec(&self.file, 3))
    }
}

/// The lock that whoever cleans up needs. None: somebody has a lease, or locks are refused or prove nothing.
pub(super) fn exclusive(path: &Path) -> Option<File> {
    flock::to_remove(path).ok()
}

/// When it was last used.
pub(super) fn last_used(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::super::BootId;
    use super::*;

    #[test]
    fn a_lease_keeps_the_cleaner_out_even_after_its_file_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lease");
        assert!(Lease::take(&path).is_none());
        let boot = BootId::new("b");
        fs::write(&path, Mark::Boot(boot.clone()).to_bytes()).expect("writes");
        let (lease, mark) = Lease::take(&path).expect("free");
        assert!(mark.expect("a mark").is_trusted_by(&boot));
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
