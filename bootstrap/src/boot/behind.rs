//! The store of what fills behind a lazy start: it is read when no program of the job waits for it.
//!
//! That holds for a directory, too. The filler has the lowest priority, but a program that waits for the server gives its processor
//! to the filler, and gets it back only when the filler's current copy in the kernel ends. On two cores `import torch` took 4.8 s
//! beside a filler that mapped its archives and never waited, and 3.7 s beside this one.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cpack_lazy::Demand;
use cpack_store::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreUri, Written};

/// A job that reads all the time delays each range of what fills for so long, and no longer.
const MOST: Duration = Duration::from_secs(1);

/// A store whose ranges are read when no program waits for it.
#[derive(Debug)]
pub(super) struct Behind {
    store: Box<dyn Store>,
    demand: &'static Demand,
}

impl Behind {
    pub(super) fn new(store: Box<dyn Store>, demand: &'static Demand) -> Self {
        Self { store, demand }
    }
}

impl Store for Behind {
    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.demand.wait_for_quiet(MOST);
        self.store.read_range(key, offset, buffer)
    }

    fn uri(&self) -> &StoreUri {
        self.store.uri()
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.store.read(key, limit)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        self.store.stat(key)
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        self.store.write(key, source, put)
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        self.store.refresh(key)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(directory)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.store.delete(key)
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        self.store.remove_old(key, before)
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        self.store.sweep(before)
    }

    /// `None`, so that archives are read by ranges: a mapped file would not wait for programs.
    fn local_path(&self, _: &Key) -> Option<PathBuf> {
        None
    }
}
