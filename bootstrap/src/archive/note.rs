//! What a start noted of an archive, so that the next need not read it.
//!
//! ```text
//! <cache>/archives/<digest>/cpack-job.json   the job that it stands for
//! <cache>/archives/<digest>/manifest.json    its environment: one layer
//! ```
//!
//! Of a wheelhouse, `wheels` takes the place of both: see `wheels`.
//!
//! There are two of them, under the archive's identity and under the digest of its bytes: a scheduler gives each container a copy of its
//! own, which has another identity. A start of a copy reads it once, and unpacks nothing.
//!
//! The directory is renamed into place when it is whole. A file that a power loss emptied counts as missing: the archive is
//! unpacked again. The youngest notes are kept.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
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

/// Says where the wheels of a wheelhouse are.
const WHEELS: &str = "wheels";

/// Has the wheels.
const ARTIFACTS: &str = "artifacts";

/// The directory of all wheels that were unpacked.
pub(super) fn artifacts(cache: &Cache) -> PathBuf {
    cache.root().join(ARTIFACTS)
}

/// The directory of wheels that a note names.
pub(super) fn noted_directory(cache: &Cache, within: &[u8]) -> PathBuf {
    artifacts(cache).join(OsStr::from_bytes(within))
}

fn place(cache: &Cache, digest: &Digest) -> PathBuf {
    cache.root().join(NOTES).join(digest.to_hex())
}

/// The job that was noted under `digest`.
pub(super) fn read(cache: &Cache, digest: &Digest, archive: &Archive) -> Option<FoundJob> {
    let bytes = fs::read(place(cache, digest).join(job::FILE_NAME)).ok()?;
    let job = Job::parse(&bytes).ok()?;
    Some(FoundJob { job, manifest: None, origin: Origin::File(archive.path.clone()), boot: None })
}

/// The same with its manifest, if the layer is in the cache as well.
pub(super) fn read_whole(cache: &Cache, digest: &Digest, archive: &Archive) -> Option<FoundJob> {
    let found = read(cache, digest, archive)?;
    let bytes = fs::read(place(cache, digest).join(MANIFEST_NAME)).ok()?;
    let manifest = Manifest::parse(&bytes).ok().filter(|_| Digest::of(&bytes) == found.job.environment)?;
    let is_there = manifest.layers.iter().all(|layer| cache.lease_layer(layer).is_some());
    is_there.then_some(FoundJob { manifest: Some(bytes), ..found })
}

/// Notes the job of an archive whose layer is in `cache`, under `digest`.
pub(super) fn write(cache: &Cache, staging: &Staging, digest: &Digest, found: &FoundJob) -> io::Result<()> {
    let manifest = found.manifest.as_deref().unwrap_or_default();
    put(cache, staging, digest, &[(job::FILE_NAME, &found.job.to_bytes()), (MANIFEST_NAME, manifest)])
}

/// Removes the notes whose layer or wheels are gone. Returns how many there were.
pub(crate) fn remove_stale(cache: &Cache) -> u64 {
    let notes = fs::read_dir(cache.root().join(NOTES)).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_useful = |note: &PathBuf| {
        let manifest = fs::read(note.join(MANIFEST_NAME)).ok().and_then(|bytes| Manifest::parse(&bytes).ok());
        let has_layers = |manifest: Manifest| manifest.layers.iter().all(|layer| cache.lease_layer(layer).is_some());
        let wheels = fs::read(note.join(WHEELS)).is_ok_and(|within| noted_directory(cache, &within).is_dir());
        wheels || manifest.is_some_and(has_layers)
    };
    let stale = notes.filter(|note| !is_useful(note));
    stale.filter(|note| fs::remove_dir_all(note).is_ok()).count() as u64
}

/// Where the wheels of the archive with this identity were unpacked.
pub(super) fn noted_wheels(cache: &Cache, identity: &Digest) -> Option<Vec<u8>> {
    fs::read(place(cache, identity).join(WHEELS)).ok().filter(|within| !within.is_empty())
}

/// Notes that.
pub(super) fn write_wheels(cache: &Cache, staging: &Staging, identity: &Digest, within: &[u8]) -> io::Result<()> {
    put(cache, staging, identity, &[(WHEELS, within)])
}

/// Puts a directory of these files in the place of an older note.
fn put(cache: &Cache, staging: &Staging, digest: &Digest, files: &[(&str, &[u8])]) -> io::Result<()> {
    let staged = staging.subdirectory(&format!("note {digest}"))?;
    for (name, bytes) in files {
        fs::write(staged.join(name), bytes)?;
    }
    let (all, place) = (cache.root().join(NOTES), place(cache, digest));
    fs::create_dir_all(&all)?;
    keep_youngest(&all, KEPT - 1);
    // An older note is of the same archive, and as good unless it was damaged.
    let _ = fs::rename(&place, staging.path().join(format!("older note {digest}")));
    match fs::rename(&staged, &place) {
        // Another process noted it meanwhile.
        Err(_) if place.is_dir() => Ok(()),
        result => result,
    }
}
