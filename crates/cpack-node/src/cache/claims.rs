//! Claims: containers that start together share the work, each builds what no other process builds.
//!
//! A builder holds a lock on a file of `locks/` ([`Cache::claim`]) and sets the file's time whenever a piece of its work is
//! done ([`Claimed::progress`]). A waiting process reads that time: if it stands still for long ([`Watched::is_stalled`]),
//! the holder is stopped, hangs, or runs on another machine whose locks this one does not see, and the waiting process does
//! the work itself. A commit never replaces, so only work is lost then.

use std::fs::{File, FileTimes, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::flock;
use super::own_directory::{Cache, LOCKS};

/// The right to build something, for as long as this value lives.
#[derive(Debug)]
pub struct Claimed {
    /// `None` if the file system refuses locks: then all processes build, and one commits.
    file: Option<File>,
    taken: Instant,
    /// When progress was last noted, in milliseconds since `taken`.
    told: AtomicU64,
}

/// Milliseconds between two notes of progress: pieces land every few.
const TELL_EVERY: u64 = 100;

impl Cache {
    /// Asks for the right to build `name`, which this process has until the value is dropped. `None` if another process has
    /// it. Never waits.
    pub fn claim(&self, name: &str) -> Option<Claimed> {
        match try_claim(&self.lock_path(name)) {
            Ok(claimed) => Some(claimed),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(_)) => Some(Claimed::without_lock()),
        }
    }

    pub(super) fn lock_path(&self, name: &str) -> PathBuf {
        self.directory(LOCKS).join(name)
    }

    /// Starts to watch another builder's progress.
    pub fn watch(&self, name: &str) -> Watched {
        Watched { path: self.lock_path(name), seen: None, since: Instant::now() }
    }
}

fn try_claim(path: &Path) -> Result<Claimed, TryLockError> {
    let file = File::options().write(true).create(true).truncate(false).open(path).map_err(TryLockError::Error)?;
    flock::exclusive(&file)?;
    let claimed = Claimed { file: Some(file), ..Claimed::without_lock() };
    claimed.tell();
    Ok(claimed)
}

impl Claimed {
    /// A claim without a lock: to build although another process holds the lock, or where locks are refused.
    pub fn without_lock() -> Self {
        Self { file: None, taken: Instant::now(), told: AtomicU64::new(0) }
    }

    /// Tells waiting processes that work was done.
    pub fn progress(&self) {
        let now = u64::try_from(self.taken.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now >= self.told.load(Ordering::Relaxed) + TELL_EVERY {
            self.told.store(now, Ordering::Relaxed);
            self.tell();
        }
    }

    fn tell(&self) {
        if let Some(file) = &self.file {
            // A waiting process that does not see it builds too.
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
    }
}

/// The progress of the process that holds a claim.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    seen: Option<SystemTime>,
    /// When `seen` last changed, by this process's own clock: clocks of nodes that share a disk differ.
    since: Instant,
}

impl Watched {
    /// Whether the holder noted no progress for `timeout`.
    pub fn is_stalled(&mut self, timeout: Duration) -> bool {
        let now = modified(&self.path).ok();
        if now != self.seen {
            self.seen = now;
            self.since = Instant::now();
        }
        self.since.elapsed() >= timeout
    }
}

fn modified(path: &Path) -> io::Result<SystemTime> {
    path.metadata()?.modified()
}

#[cfg(test)]
mod tests {
    use super::super::{BootId, Place, PlaceKind};
    use super::*;

    fn cache(directory: &Path) -> Cache {
        let place = Place { path: directory.into(), kind: PlaceKind::Temporary };
        Cache::create(&place, &BootId::new("b")).expect("a cache")
    }

    #[test]
    fn claim_is_free_again_after_its_holder() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let first = cache.claim("x");
        assert!(first.is_some() && cache.claim("x").is_none() && cache.claim("y").is_some());
        drop(first);
        assert!(cache.claim("x").is_some());
    }

    #[test]
    fn progress_of_the_holder_resets_the_patience_of_waiting_processes() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let claimed = cache.claim("x").expect("no other claim");
        let mut watched = cache.watch("x");
        assert!(!watched.is_stalled(Duration::from_secs(60)));
        assert!(watched.is_stalled(Duration::ZERO));
        watched.since = Instant::now().checked_sub(Duration::from_secs(100)).expect("a time");
        assert!(watched.is_stalled(Duration::from_secs(60)));
        std::thread::sleep(Duration::from_millis(20));
        claimed.tell();
        assert!(!watched.is_stalled(Duration::from_secs(60)));
    }

    #[test]
    fn claim_is_given_to_every_process_without_a_place_for_locks() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        std::fs::remove_dir(cache.directory(LOCKS)).expect("removes");
        for _ in 0..2 {
            assert!(matches!(cache.claim("x"), Some(Claimed { file: None, .. })));
        }
    }
}
