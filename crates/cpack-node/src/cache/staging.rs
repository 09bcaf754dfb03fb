//! The directory in which a process builds, locked while the process lives.

use std::fs::{self, DirBuilder, File, FileTimes};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cpack_fault::point;
use cpack_store::unique_name;

use super::own_directory::{Cache, PRIVATE, STAGING, make_directory};
use super::{flock, remove_tree};
use crate::sys;

/// A directory of this process under `staging/`, removed when the value is dropped.
///
/// Its lock tells other processes that this one lives: process ids say nothing across containers.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// Deadline for removing it.
    until: Option<Instant>,
    _lock: Option<File>,
}

impl Cache {
    /// Makes a directory to build in.
    pub fn staging(&self) -> io::Result<Staging> {
        let (path, lock) = self.new_directory(STAGING)?;
        own().push(path.clone());
        Ok(Staging { path, until: None, _lock: lock })
    }

    /// Makes a directory for trash, which is removed until `deadline`. A later clean-up removes what is left then.
    pub(super) fn trash(&self, deadline: Option<Instant>) -> io::Result<Staging> {
        let mut staging = self.staging()?;
        staging.until = deadline;
        Ok(staging)
    }

    /// Makes a directory for a private copy. The returned lock protects it until the lease in the copy does. The directory
    /// outlives this process: the program after `exec` uses it.
    pub(crate) fn private_directory(&self) -> io::Result<(PathBuf, Option<File>)> {
        self.new_directory(PRIVATE)
    }

    fn new_directory(&self, parent: &str) -> io::Result<(PathBuf, Option<File>)> {
        let path = self.directory(parent).join(unique_name());
        let create = || DirBuilder::new().mode(0o700).create(&path);
        create().or_else(|e| match e.kind() {
            // `Cache::create` of another process may have been killed before it made this directory, or be about to make it.
            io::ErrorKind::NotFound => make_directory(&self.directory(parent)).and_then(|()| create()),
            _ => Err(e),
        })?;
        point(if parent == STAGING { "staging.created" } else { "private.created" })?;
        let lock = File::open(&path)?;
        // It only makes later writes faster.
        let _ = sys::spread_subdirectories(&lock);
        // If locks are refused, `clean` goes by age alone.
        let locked = flock::exclusive(&lock).is_ok();
        Ok((path, locked.then_some(lock)))
    }
}

impl Staging {
    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory inside.
    pub fn subdirectory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Staging directories of this process, for [`remove_own_staging`].
static OWN: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn own() -> MutexGuard<'static, Vec<PathBuf>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process is building, from a thread that ends it while others hang.
pub fn remove_own_staging() {
    let paths = own().clone();
    paths.iter().for_each(|path| remove_in_use(path));
}

/// Removes a staging directory in which threads may still build. Renames it first: what a thread is about to commit is not
/// found from then on, so nothing is committed of which a part was removed.
fn remove_in_use(path: &Path) {
    let aside = path.with_file_name(unique_name());
    if fs::rename(path, &aside).is_err() {
        return;
    }
    // Threads that still write there may get in the way a few times; then a later clean-up removes it.
    for _ in 0..5 {
        if remove_tree(&aside, None).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    disown(&aside);
}

impl Drop for Staging {
    fn drop(&mut self) {
        own().retain(|path| *path != self.path);
        // A later clean-up removes what is left.
        if !matches!(remove_tree(&self.path, self.until), Ok(true)) {
            disown(&self.path);
        }
    }
}

/// Makes a directory look old. Removing half of its files made it look as if a process had just begun to build there, and
/// the next clean-up would spare it.
pub(super) fn disown(path: &Path) {
    let old = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    let _ = File::open(path).and_then(|directory| directory.set_times(old));
}

#[cfg(test)]
mod tests {
    use super::super::{BootId, LayerState, Place, PlaceKind, Wanted, content_of};
    use super::*;

    use nix::sys::statfs::{EXT4_SUPER_MAGIC, statfs};

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: PlaceKind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        (directory, cache)
    }

    #[test]
    fn staging_directory_may_be_missing_for_several_threads_at_once() {
        let (_directory, cache) = cache();
        let together = std::sync::Barrier::new(8);
        for round in 0..200 {
            fs::remove_dir(cache.directory(STAGING)).expect("is empty");
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        together.wait();
                        let staging = cache.staging();
                        together.wait();
                        staging.unwrap_or_else(|e| panic!("round {round}: {e}"));
                    });
                }
            });
        }
    }

    #[test]
    fn layer_that_is_committed_while_its_staging_is_removed_is_whole_or_not_there() {
        let (_directory, cache) = cache();
        let together = std::sync::Barrier::new(2);
        let scratch = tempfile::tempdir().expect("a directory");
        let fill = |place: &Path| {
            for file in 0..200 {
                fs::write(place.join(file.to_string()), "text").expect("writes");
            }
        };
        fill(scratch.path());
        let content = content_of(scratch.path(), 1, &|| {}).expect("reads");
        for round in 0..100 {
            let staging = cache.staging().expect("staging");
            let staged = Cache::stage_layer(&staging, Wanted::with_content(content)).expect("stages");
            fill(staged.files());
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    together.wait();
                    // The removal is anywhere in the middle.
                    std::thread::sleep(Duration::from_micros(20 * round));
                    let _ = cache.commit_layer(&staged, 1);
                });
                together.wait();
                remove_in_use(staging.path());
            });
            if cache.layer_state(Wanted::with_content(content)) != LayerState::Missing {
                assert_eq!(content_of(&cache.layer_files(&content), 1, &|| {}).expect("reads"), content, "{round}");
                cache.discard_layer(&content, &cache.staging().expect("staging")).expect("removes");
            }
        }
    }

    #[test]
    fn on_ext4_what_is_staged_is_spread() {
        let (_directory, cache) = cache();
        let staging = cache.staging().expect("staging");
        let kind = statfs(staging.path()).expect("a file system").filesystem_type();
        let flags = File::open(staging.path()).and_then(sys::inode_flags);
        let spread = flags.is_ok_and(|flags| flags & sys::TOP_OF_HIERARCHY != 0);
        assert!(spread || kind != EXT4_SUPER_MAGIC);
        staging.subdirectory("below").expect("is a directory as any other");
    }
}
