//! A PEX in a store: fetched once for each version, and kept in the node cache.
//!
//! ```text
//! <cache>/artifacts/<digest of URI, length and time>/<name>   whole: renamed into place
//! ```
//!
//! The newest are kept. An environment that was made of one does not need it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cpack_node::building::BuildError;
use cpack_node::cache::Cache;
use cpack_node::timing::Timing;
use cpack_parallel::try_map;
use cpack_pex::keep_youngest;
use cpack_store::{FileOrObject, Key, Store, StoreOptions, open};

use crate::attempts::settle;
use crate::error::BootError;
use crate::settings::Settings;

/// Bytes that one thread fetches at once.
const RANGE: u64 = 8 << 20;
const KEPT: usize = 8;

/// The local path of an artifact, given by a path or URI.
pub(crate) fn local(artifact: &OsStr, settings: &Settings) -> Result<PathBuf, BootError> {
    let object = match FileOrObject::read(artifact)? {
        FileOrObject::File(path) => return Ok(path),
        FileOrObject::Object(object) => object,
    };
    let store = open(&object.store, &StoreOptions::of_process(BTreeMap::new()))?;
    let missing = || object.not_found("there is no such artifact: check its URI");
    let stat = store.stat(&object.key)?.ok_or_else(missing)?;
    let modified = stat.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let digest = blake3::hash(format!("{object}\n{}\n{modified}", stat.size).as_bytes()).to_hex();
    let fetch = Fetch { store: &*store, key: &object.key, size: stat.size, threads: settings.threads() };
    let (node, mut timing) = (settings.node(), Timing::start());
    let mut attempts = node.attempts(&[]);
    loop {
        let cache = attempts.next_cache(&mut timing)?;
        if let Some(path) = settle(&mut attempts, fetch.copy_into(&cache, &digest[..32]))? {
            return Ok(path);
        }
    }
}
struct Fetch<'a> {
    store: &'a dyn Store,
    key: &'a Key,
    size: u64,
    threads: usize,
}

impl Fetch<'_> {
    /// The file of that name below `artifacts/` of a cache: fetched unless it is there.
    fn copy_into(&self, cache: &Cache, directory: &str) -> Result<PathBuf, BootError> {
        let all = cache.root().join("artifacts");
        let place = all.join(directory);
        let path = place.join(self.key.as_str());
        if path.is_file() {
            return Ok(path);
        }
        let failed = |source| BuildError::Cache { path: all.clone(), source };
        fs::create_dir_all(&all).map_err(failed)?;
        keep_youngest(&all, KEPT - 1);
        let staging = cache.staging().map_err(failed)?;
        let staged = staging.subdirectory("artifact").map_err(failed)?;
        download(self.store, self.key, self.size, &staged.join(self.key.as_str()), self.threads)?;
        match fs::rename(&staged, &place) {
            // Another process fetched it meanwhile.
            Err(_) if path.is_file() => {}
            result => result.map_err(failed)?,
        }
        Ok(path)
    }
}

/// Fetches an object in ranges, several at once.
fn download(store: &dyn Store, key: &Key, size: u64, path: &Path, threads: usize) -> Result<(), BootError> {
    let failed = |source| BuildError::Cache { path: path.into(), source };
    let file = File::create_new(path).map_err(failed)?;
    let offsets: Vec<u64> = (0..size.div_ceil(RANGE)).map(|index| index * RANGE).collect();
    let fetch = |&offset: &u64| -> Result<(), BootError> {
        let mut buffer = vec![0; usize::try_from(RANGE.min(size - offset)).unwrap_or(0)];
        store.read_range(key, offset, &mut buffer)?;
        Ok(file.write_all_at(&buffer, offset).map_err(failed)?)
    };
    try_map(threads, &offsets, fetch).map(drop)
}
