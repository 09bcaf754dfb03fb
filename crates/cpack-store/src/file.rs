//! A directory as a store: on a local disk, or a mount that executors share.
//!
//! Objects are written to `<store>/tmp/` and renamed into place, so a reader never sees a part of one, and a writer that
//! is killed leaves nothing but a temporary file, which pruning removes. Renaming replaces: two writers of one key
//! write the same bytes, and whoever is last wins without anybody noticing. A file apart from the layout
//! ([`Key::beside`]) is written as `.cpack-…` in its own directory.

use std::fs::{self, File, FileTimes};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use cpack_fault::point;
use cpack_format::key::TEMPORARY;

use super::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreUri, Written};

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

    /// A new path for a temporary file on the store's file system, its directory made: what is written there can be
    /// put by [`Source::Consume`] without copying.
    pub fn temporary(&self) -> Result<PathBuf, StoreError> {
        self.prepare(format!("{TEMPORARY}/{}", unique()))
    }

    /// The path with its directory made.
    fn prepare(&self, temporary: String) -> Result<PathBuf, StoreError> {
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
            StoreErrorKind::NotFound => "no such object in this store".to_owned(),
            StoreErrorKind::Damaged => "it ends before the length that its manifest names".to_owned(),
            _ => error.to_string(),
        };
        StoreError { kind, operation, location: self.uri.join(object), reason }
    }

    /// Writes `source` to the temporary file `path` and returns its length.
    fn fill(path: &Path, source: Source<'_>) -> io::Result<u64> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        match source {
            Source::Bytes(bytes) => file.write_all(bytes)?,
            Source::File(from) | Source::Consume(from) | Source::Watched(from, _) => {
                io::copy(&mut File::open(from)?, &mut file)?;
            }
        }
        point("store.filled")?;
        Ok(file.metadata()?.len())
    }

    /// Publishes the temporary file `path`, synced first: a name that survives a power loss has its bytes.
    fn publish(path: &Path, place: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()?;
        point("store.synced")?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::rename(path, place)?;
        point("store.renamed")
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let failed = |e: io::Error| self.error("cannot write", key.as_str(), &e);
        let place = self.path(key);
        if let Source::Consume(path) | Source::Watched(path, _) = source {
            let size = fs::metadata(path).map_err(failed)?.len();
            match Self::publish(path, &place) {
                Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
                result => return result.map(|()| Written::Sent(size)).map_err(failed),
            }
        }
        let temporary = self.prepare(key.temporary(&unique()))?;
        let result = Self::fill(&temporary, source).and_then(|size| match put.has_come(self, key, size) {
            true => fs::remove_file(&temporary).map(|()| Written::Kept),
            false => Self::publish(&temporary, &place).map(|()| Written::Sent(size)),
        });
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(failed)
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
            // An object that a prune removes meanwhile is simply not listed.
            if let (Some(key), Ok(metadata)) = (relative, entry.metadata()) {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Listed { key, stat: Stat { size: metadata.len(), modified } });
            }
        }
        Ok(())
    }
}

/// What no other temporary file is called.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{nanos:x}-{count:x}", std::process::id())
}

impl Store for FileStore {
    fn uri(&self) -> &StoreUri {
        &self.uri
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let failed = |e: io::Error| self.error("cannot read", key.as_str(), &e);
        let size = fs::metadata(self.path(key)).map_err(failed)?.len();
        if size > limit {
            let reason = format!("it has {size} bytes, more than the {limit} that it may have");
            let location = self.uri.join(key.as_str());
            return Err(StoreError { kind: StoreErrorKind::Damaged, operation: "cannot read", location, reason });
        }
        fs::read(self.path(key)).map_err(failed)
    }

    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        File::open(self.path(key))
            .and_then(|file| file.read_exact_at(buffer, offset))
            .map_err(|e| self.error("cannot read", key.as_str(), &e))
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        match fs::metadata(self.path(key)) {
            Ok(metadata) => {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                Ok(Some(Stat { size: metadata.len(), modified }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error("cannot read", key.as_str(), &e)),
        }
    }

    fn put(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let size = source.size().map_err(|e| self.error("cannot write", key.as_str(), &e))?;
        if put.keeps(self, key, size)? { Ok(Written::Kept) } else { self.write(key, source, put) }
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        File::open(self.path(key))
            .and_then(|file| file.set_times(FileTimes::new().set_modified(SystemTime::now())))
            .map_err(|e| self.error("cannot refresh", key.as_str(), &e))
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        match self.walk(&self.root.join(directory), &mut found) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("cannot list", directory, &e)),
            _ => {
                found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
                Ok(found)
            }
        }
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match fs::remove_file(self.path(key)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("cannot delete", key.as_str(), &e)),
            _ => Ok(()),
        }
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none_or(|stat| stat.modified >= before) {
            return Ok(false);
        }
        let failed = |e: io::Error| self.error("cannot delete", key.as_str(), &e);
        let (place, aside) = (self.path(key), self.temporary()?);
        match fs::rename(&place, &aside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            result => result.map_err(failed)?,
        }
        let modified = fs::metadata(&aside).and_then(|metadata| metadata.modified()).map_err(failed)?;
        let is_old = modified < before;
        // Whoever wrote it anew meanwhile wrote the same bytes.
        if is_old { fs::remove_file(&aside) } else { fs::rename(&aside, &place) }.map_err(failed)?;
        Ok(is_old)
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        let failed = |e: io::Error| self.error("cannot clean up", TEMPORARY, &e);
        let entries = match fs::read_dir(self.root.join(TEMPORARY)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries.map_err(failed)?,
        };
        let mut swept = 0;
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // Whoever writes it may rename it at any moment.
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|modified| modified < before) && fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn erase(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.root) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("cannot remove", "", &e)),
            _ => Ok(()),
        }
    }

    fn local_path(&self, key: &Key) -> Option<PathBuf> {
        Some(self.path(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

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
    fn a_consumed_file_is_moved_not_copied() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FileStore::new(directory.path());
        let temporary = store.temporary().expect("a path");
        fs::write(&temporary, b"bytes").expect("writes");
        let key = Key::layer(&cpack_format::Digest::of(b"bytes"));
        assert_eq!(store.put(&key, Source::Consume(&temporary), Put::IfAbsent).ok(), Some(Written::Sent(5)));
        assert!(!temporary.exists());
    }
}
