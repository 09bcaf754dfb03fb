//! Environments that were made from requirements, kept between runs.
//!
//! ```text
//! <cache>/environments/<key>.json        which directory holds the environment of a resolution
//! <cache>/environments/<key>-<unique>/   a virtual environment, or one of conda (with pixi, in .pixi/envs/default)
//! <cache>/environments/scratch-<unique>/ files for one run of uv or pip
//! ```
//!
//! An environment is made in a directory of its own name and never moved, since its scripts name that directory. It counts once
//! [`Kept::commit`] has renamed its record into place. Two clients may make the same environment at the same time: both are
//! whole, and the record that is written last wins. A directory that no record names was left by a killed client, or is still
//! being made: [`Kept::begin`] deletes it when it is a day old.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cpack_format::Digest;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// Where a pixi project has its default environment.
pub(super) const OF_PIXI: &str = ".pixi/envs/default";

/// A directory without a record is deleted after this time, which is longer than any installation takes.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The directory of environments. Its files may hold credentials of package indexes, so other users may not read it.
#[derive(Debug)]
pub(super) struct Kept {
    root: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    directory: String,
}

impl Kept {
    /// Opens `environments` in the client's cache.
    pub(super) fn open(cache: &Path) -> io::Result<Self> {
        let root = cache.join("environments");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
        Ok(Self { root })
    }

    /// A directory for the files of one run, deleted with the value.
    pub(super) fn scratch(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("scratch-").tempdir_in(&self.root)
    }

    /// The environment that was made for `key`, if it is still there.
    pub(super) fn find(&self, key: &Digest) -> Option<PathBuf> {
        let record: Record = serde_json::from_slice(&fs::read(self.record(key)).ok()?).ok()?;
        let directory = self.root.join(Path::new(&record.directory).file_name()?);
        let places = [directory.join(OF_PIXI), directory];
        places.into_iter().find(|place| place.join("pyvenv.cfg").is_file() || place.join("conda-meta").is_dir())
    }

    /// A new, empty directory for the environment of `key`. It stays if the value is kept ([`TempDir::keep`]).
    pub(super) fn begin(&self, key: &Digest) -> io::Result<TempDir> {
        self.delete_abandoned();
        tempfile::Builder::new().prefix(&format!("{key}-")).tempdir_in(&self.root)
    }

    /// Makes `directory`, from [`Kept::begin`], the environment of `key`.
    pub(super) fn commit(&self, key: &Digest, directory: TempDir) -> io::Result<PathBuf> {
        let name = directory.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        serde_json::to_writer(&mut file, &Record { directory: name })?;
        file.flush()?;
        file.persist(self.record(key)).map_err(|e| e.error)?;
        Ok(directory.keep())
    }

    fn record(&self, key: &Digest) -> PathBuf {
        self.root.join(format!("{key}.json"))
    }

    fn delete_abandoned(&self) {
        let entries: Vec<PathBuf> =
            fs::read_dir(&self.root).into_iter().flatten().flatten().map(|e| e.path()).collect();
        let record = |path: &PathBuf| serde_json::from_slice::<Record>(&fs::read(path).ok()?).ok();
        let records = entries.iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
        let named: BTreeSet<PathBuf> = records.filter_map(record).map(|r| self.root.join(r.directory)).collect();
        let is_old = |path: &PathBuf| {
            let changed = fs::symlink_metadata(path).and_then(|m| m.modified());
            changed.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > ABANDONED_AFTER))
        };
        for directory in entries.iter().filter(|path| path.is_dir() && !named.contains(*path) && is_old(path)) {
            // The next run tries again what cannot be deleted now.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_counts_when_it_was_committed() {
        let cache = tempfile::tempdir().expect("a directory");
        let kept = Kept::open(cache.path()).expect("opens");
        let key = Digest::of(b"resolution");
        assert_eq!(kept.find(&key), None);
        let first = kept.begin(&key).expect("begins");
        fs::write(first.path().join("pyvenv.cfg"), "").expect("writes");
        assert_eq!(kept.find(&key), None);
        let made = kept.commit(&key, first).expect("commits");
        assert_eq!(kept.find(&key), Some(made.clone()));
        assert_eq!(kept.find(&Digest::of(b"other")), None);
        fs::remove_dir_all(made).expect("removes");
        assert_eq!(kept.find(&key), None);
    }

    #[test]
    fn what_a_killed_client_left_is_deleted_after_a_day() {
        let cache = tempfile::tempdir().expect("a directory");
        let kept = Kept::open(cache.path()).expect("opens");
        let key = Digest::of(b"resolution");
        let age = |path: &Path, hours: u64| {
            let time = SystemTime::now() - Duration::from_secs(hours * 3600);
            fs::File::open(path).expect("opens").set_modified(time).expect("sets");
        };
        let make = |name: &str, hours| {
            let path = cache.path().join("environments").join(name);
            fs::create_dir(&path).expect("makes");
            age(&path, hours);
            path
        };
        let (old, young) = (make("old", 25), make("young", 23));
        let used = kept.begin(&key).expect("begins");
        fs::write(used.path().join("pyvenv.cfg"), "").expect("writes");
        let used = kept.commit(&key, used).expect("commits");
        age(&used, 25);
        let old_again = make("old-again", 25);
        drop(kept.begin(&Digest::of(b"next")).expect("begins"));
        assert_eq!([old, old_again, young, used].map(|path| path.exists()), [false, false, true, true]);
    }
}
