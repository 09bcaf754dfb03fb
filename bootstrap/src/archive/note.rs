//! What a start noted of an archive, so that the next need not read it.
//!
//! ```text
//! <cache>/archives/<identity of the archive>/cpack-job.json   the job that it stands for
//! <cache>/archives/<identity of the archive>/manifest.json    its environment: one layer
//! ```
//!
//! The directory is renamed into place when it is whole. A file that a power loss emptied counts as missing: the archive is
//! unpacked again. The youngest notes are kept.

use std::fs;
use std::io;
use std::path::PathBuf;

use cpack_format::Digest;
use cpack_format::job::{self, Job, MANIFEST_NAME};
use cpack_format::manifest::Manifest;
use cpack_node::cache::{Cache, Staging};
use cpack_pex::keep_youngest;
use cpack_unpack::Archive;

use crate::job::{FoundJob, Origin};

const NOTES: &str = "archives";
const KEPT: usize = 64;

fn place(cache: &Cache, archive: &Archive) -> PathBuf {
    cache.root().join(NOTES).join(archive.identity.to_hex())
}

/// The job that was noted.
pub(super) fn read(cache: &Cache, archive: &Archive) -> Option<FoundJob> {
    let bytes = fs::read(place(cache, archive).join(job::FILE_NAME)).ok()?;
    let job = Job::parse(&bytes).ok()?;
    Some(FoundJob { job, manifest: None, origin: Origin::File(archive.path.clone()), boot: None })
}

/// The same with its manifest, if the layer is in the cache as well.
pub(super) fn read_whole(cache: &Cache, archive: &Archive) -> Option<FoundJob> {
    let found = read(cache, archive)?;
    let bytes = fs::read(place(cache, archive).join(MANIFEST_NAME)).ok()?;
    let manifest = Manifest::parse(&bytes).ok().filter(|_| Digest::of(&bytes) == found.job.environment)?;
    let is_there = manifest.layers.iter().all(|layer| cache.lease_layer(&layer.content).is_some());
    is_there.then_some(FoundJob { manifest: Some(bytes), ..found })
}

/// Notes the job of an archive whose layer is in `cache`.
pub(super) fn write(cache: &Cache, staging: &Staging, archive: &Archive, found: &FoundJob) -> io::Result<()> {
    let staged = staging.subdirectory("note")?;
    fs::write(staged.join(job::FILE_NAME), found.job.to_bytes())?;
    fs::write(staged.join(MANIFEST_NAME), found.manifest.as_deref().unwrap_or_default())?;
    let (all, place) = (cache.root().join(NOTES), place(cache, archive));
    fs::create_dir_all(&all)?;
    keep_youngest(&all, KEPT - 1);
    // An older note is of the same archive, and as good unless it was damaged.
    let _ = fs::rename(&place, staging.path().join("older note"));
    match fs::rename(&staged, &place) {
        // Another process noted it meanwhile.
        Err(_) if place.is_dir() => Ok(()),
        result => result,
    }
}
