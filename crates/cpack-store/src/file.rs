//! A directory as a store: on a local disk, or a mount that executors share.
//!
//! A write fills a file in `<store>/tmp/` and renames it into place: a reader never sees a part of an object, and a killed
//! writer leaves nothing but a temporary file, which pruning removes. Renaming replaces. Two writers of one key write the
//! same bytes, so it does not matter which is last. A write of a file outside the layout ([`Key::beside`]) fills `.cpack-…`
//! in the file's own directory.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_fault::point;
use cpack_format::key::TEMPORARY;

use crate::error::{NO_OBJECT, if_found};
use crate::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreUri, Written, unique_name};

/// A directory store.
#[derive(Debug)]
pub struct FileStore {
    uri: StoreUri,
    root: PathBuf,
}

impl FileStore {
    /// The store in the directory `root`, which need not exist yet.
    pub fn new(root: &Path) -> Self {
        Self { uri: StoreUri::directory(root), root: root.to_owned() }
    }

    /// A new path for a temporary file on the store's file system, in a directory that exists. [`Source::Watched`] with this
    /// path is renamed and not copied.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        self.prepare(&format!("{TEMPORARY}/{}", unique_name()))
    }

    /// Makes the directory of a temporary file, and returns the file's path.
    fn prepare(&self, temporary: &str) -> Result<PathBuf, StoreError> {
        let path = self.root.join(temporary);
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory).map_err(|e| self.error("cannot create", TEMPORARY, &e))?;
        Ok(path)
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn error(&self, operation: &'static str, object: &str, error: &io::Error) -> StoreError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => StoreErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::Full,
            io::ErrorKind::UnexpectedEof => StoreErrorKind::Damaged,
            _ => StoreErrorKind::Other,
        };
        let reason = match kind {
            StoreErrorKind::NotFound => NO_OBJECT.to_owned(),
            StoreErrorKind::Damaged => "it ends before the length that its manifest names".to_owned(),
            _ => error.to_string(),
        };
        StoreError { kind, operation, location: self.uri.join(object), reason }
    }

    /// Writes what `content` gives to the temporary file `path` and returns its length.
    fn fill(path: &Path, mut content: impl io::Read) -> io::Result<u64> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        io::copy(&mut content, &mut file)?;
        point("store.filled")?;
        Ok(file.metadata()?.len())
    }

    /// Syncs the temporary file `path` and renames it: a name that survives a power loss has its bytes.
    fn publish(path: &Path, place: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        point("store.synced")?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(path, place)?;
        point("store.renamed")
    }

    fn walk(&self, directory: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.walk(&entry.path(), found)?;
                continue;
            }
            let path = entry.path();
            let relative = path.strip_prefix(&self.root).ok().and_then(Path::to_str).and_then(Key::from_listing);
            // An object that a prune removed since `read_dir` is not listed.
            if let (Some(key), Ok(metadata)) = (relative, entry.metadata()) {
                found.push(Listed { key, stat: stat(&metadata) });
            }
        }
        Ok(())
    }
}

fn stat(metadata: &fs::Metadata) -> Stat {
    Stat { size: metadata.len(), modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH) }
}

impl Store for FileStore {
    fn uri(&self) -> &StoreUri {
        &self.uri
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let failed = |e: io::Error| self.error("cannot read", key.as_str(), &e);
        let size = fs::metadata(self.path(key)).map_err(failed)?.len();
        if size > limit {
            return Err(StoreError::too_large(self.uri.join(key.as_str()), size, limit));
        }
        fs::read(self.path(key)).map_err(failed)
    }

    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        File::open(self.path(key))
            .and_then(|file| file.read_exact_at(buffer, offset))
            .map_err(|e| self.error("cannot read", key.as_str(), &e))
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        let found = fs::metadata(self.path(key)).map_err(|e| self.error("cannot read", key.as_str(), &e));
        Ok(if_found(found)?.as_ref().map(stat))
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let failed = |e: io::Error| self.error("cannot write", key.as_str(), &e);
        let place = self.path(key);
        if let Source::Watched(path, _) = source {
            let size = fs::metadata(path).map_err(failed)?.len();
            match Self::publish(path, &place) {
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
                result => return result.map(|()| Written::Sent(size)).map_err(failed),
            }
        }
        let (bytes, file) = match source {
            Source::Bytes(bytes) => (bytes, None),
            Source::File(from) | Source::Watched(from, _) => {
                let unread = |error| StoreError::unread(self.uri.join(key.as_str()), &error);
                (&[][..], Some(File::open(from).map_err(unread)?))
            }
        };
        let temporary = self.prepare(&key.temporary(&unique_name()))?;
        let filled = match file {
            None => Self::fill(&temporary, bytes),
            Some(file) => Self::fill(&temporary, file),
        };
        let result = filled.and_then(|size| match put.has_come(self, key, size) {
            true => fs::remove_file(&temporary).map(|()| Written::Kept),
            false => Self::publish(&temporary, &place).map(|()| Written::Sent(size)),
        });
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(failed)
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        File::open(self.path(key))
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())))
            .map_err(|e| self.error("cannot refresh", key.as_str(), &e))
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        let walked = self.walk(&self.root.join(directory), &mut found);
        if_found(walked.map_err(|e| self.error("cannot list", directory, &e)))?;
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let removed = fs::remove_file(self.path(key)).map_err(|e| self.error("cannot delete", key.as_str(), &e));
        if_found(removed).map(drop)
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none_or(|stat| stat.modified >= before) {
            return Ok(false);
        }
        let failed = |e: io::Error| self.error("cannot delete", key.as_str(), &e);
        let (place, aside) = (self.path(key), self.temporary()?);
        if if_found(fs::rename(&place, &aside).map_err(failed))?.is_none() {
            return Ok(false);
        }
        let modified = fs::metadata(&aside).and_then(|metadata| metadata.modified()).map_err(failed)?;
        let is_old = modified < before;
        // A client that wrote it anew meanwhile wrote the same bytes.
        if is_old { fs::remove_file(&aside) } else { fs::rename(&aside, &place) }.map_err(failed)?;
        Ok(is_old)
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        let failed = |e: io::Error| self.error("cannot clean up", TEMPORARY, &e);
        let entries = if_found(fs::read_dir(self.root.join(TEMPORARY)).map_err(failed))?;
        let mut swept = 0;
        for entry in entries.into_iter().flatten() {
            let entry = entry.map_err(failed)?;
            // Its writer may rename it at any moment.
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified < before) && fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn erase(&self) -> Result<(), StoreError> {
        if_found(fs::remove_dir_all(&self.root).map_err(|e| self.error("cannot remove", "", &e))).map(drop)
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Watcher, conformance};

    #[test]
    fn keeps_the_contract() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("store");
        conformance::check(&FileStore::new(&place));
        assert!(!place.exists(), "the store was erased");
    }

    #[test]
    fn put_leaves_nothing_but_the_file_apart_from_the_layout() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(&directory.path().join("envs"));
        let key = Key::beside("my.pex").expect("a name");
        for put in [Put::Replace, Put::Once] {
            store.put(&key, Source::Bytes(b"1"), put).expect("writes");
            let names: Vec<_> = fs::read_dir(&store.root).expect("lists").flatten().map(|e| e.file_name()).collect();
            assert_eq!(names, ["my.pex"]);
        }
    }

    #[test]
    fn sweeping_takes_what_is_old() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(directory.path());
        let temporary = store.temporary().expect("a path");
        fs::write(&temporary, b"left").expect("writes");
        let hour = std::time::Duration::from_secs(3600);
        assert_eq!(store.sweep(SystemTime::now() - hour).ok(), Some(0));
        assert_eq!(store.sweep(SystemTime::now() + hour).ok(), Some(1));
        assert!(!temporary.exists());
    }

    #[test]
    fn put_of_a_watched_file_moves_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(directory.path());
        let temporary = store.temporary().expect("a path");
        fs::write(&temporary, b"bytes").expect("writes");
        let key = Key::layer(&cpack_format::Digest::of(b"bytes"));
        assert_eq!(
            store.put(&key, Source::Watched(&temporary, Watcher(&|_| ())), Put::IfAbsent).ok(),
            Some(Written::Sent(5))
        );
        assert!(!temporary.exists());
    }
}
