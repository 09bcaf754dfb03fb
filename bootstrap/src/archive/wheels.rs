//! A wheelhouse in a tar: its wheels are unpacked once a node, and started as those of a directory.
//!
//! ```text
//! <cache>/artifacts/<digest of the archive's bytes>/<its name>/   the wheels: renamed into place
//! <cache>/archives/<identity of the archive>/wheels               the name of that directory, relative to `artifacts`
//! ```
//!
//! A later start finds the directory by what `stat` tells of the archive; one of a copy by the digest of its bytes. An environment that
//! was made of the wheels does not need them.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_extract::Limits;
use cpack_node::building::BuildError;
use cpack_node::cache::Cache;
use cpack_node::timing::Timing;
use cpack_pex::keep_youngest;
use cpack_unpack::{Archive, UnpackError};

use super::note;
use crate::attempts::settle;
use crate::error::BootError;
use crate::settings::Settings;

const KEPT: usize = 8;

/// The directory of the archive's wheels. `None` if it is no wheelhouse.
pub(super) fn directory(
    archive: &Archive,
    settings: &Settings,
    timing: &mut Timing,
) -> Result<Option<PathBuf>, BootError> {
    let node = settings.node();
    if let Some(found) = node.caches().find_map(|cache| noted(&cache, archive)) {
        return Ok(Some(found));
    }
    if !archive.holds_wheels()? {
        return Ok(None);
    }
    let name = archive.path.file_name().unwrap_or_default();
    let within = Path::new(&archive.content(settings.threads())?.to_hex()).join(name);
    let limits = Limits { threads: settings.threads(), ..Limits::default() };
    let mut attempts = node.attempts(&[]);
    loop {
        let cache = attempts.next_cache(timing)?;
        if let Some(path) = settle(&mut attempts, lay(archive, &within, &cache, &limits))? {
            return Ok(Some(path));
        }
    }
}

/// The wheels that were noted for an archive, if they are there.
fn noted(cache: &Cache, archive: &Archive) -> Option<PathBuf> {
    let within = note::noted_wheels(cache, &archive.identity)?;
    Some(note::noted_directory(cache, &within)).filter(|path| path.is_dir())
}

/// Unpacks the archive to `within` the artifacts of `cache`, unless it is there.
fn lay(archive: &Archive, within: &Path, cache: &Cache, limits: &Limits) -> Result<PathBuf, BootError> {
    let all = note::artifacts(cache);
    let path = all.join(within);
    let failed = |source| BuildError::Cache { path: all.clone(), source };
    let staging = cache.staging().map_err(failed)?;
    if !path.is_dir() {
        let staged = staging.subdirectory("artifact").map_err(failed)?;
        let into = staged.join(path.file_name().unwrap_or_default());
        fs::create_dir(&into).map_err(failed)?;
        archive.unpack_wheels(&into, limits).map_err(|error| match error {
            UnpackError::Extract(failure) => BuildError::Extract(failure).into(),
            error => BootError::Unpack(error),
        })?;
        archive.require_unchanged()?;
        fs::create_dir_all(&all).map_err(failed)?;
        keep_youngest(&all, KEPT - 1);
        let place = path.parent().unwrap_or(&all);
        match fs::rename(&staged, place) {
            // Another process unpacked it meanwhile, or it was a copy with another name.
            Err(_) if path.is_dir() => {}
            Err(_) if place.is_dir() => fs::rename(&into, &path).map_err(failed)?,
            result => result.map_err(failed)?,
        }
    }
    // If that fails, the next start reads the archive again.
    let _ = note::write_wheels(cache, &staging, &archive.identity, within.as_os_str().as_bytes());
    Ok(path)
}
