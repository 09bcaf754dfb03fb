//! From an archive to its environment in the node cache.
//!
//! Processes that start the same archive at once wait for the first, unless it makes no progress ([`wait_for`]). The note is
//! written after the layer, so that a process that finds the note finds the layer.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use cpack_format::Digest;
use cpack_format::virtual_environment::interpreter_names;
use cpack_node::building::{BuildError, Means, Waited, wait_for};
use cpack_node::cache::{Cache, Staging};
use cpack_node::timing::{Phase, Timing};
use cpack_parallel::with_beat;
use cpack_store::FileStore;
use cpack_unpack::{Archive, Python, UnpackError, Unpacked};

use super::{describe, note};
use crate::attempts::settle;
use crate::boot::{JobStart, Ready};
use crate::error::BootError;
use crate::job::FoundJob;
use crate::local_layer::{BEAT, byte_code_directories, commit, open_byte_code};
use crate::settings::Settings;
use crate::watch::watch;

/// Builds the environment in the best place that can take it.
pub(super) fn build(
    archive: &Archive,
    settings: &Settings,
    arguments: &[OsString],
    timing: &mut Timing,
) -> Result<(FoundJob, Ready), BootError> {
    let (stop, _watching) = watch(arguments);
    let store = FileStore::new(archive.path.parent().unwrap_or(Path::new("/")));
    let means = settings.means(&store, &stop);
    let node = settings.node();
    // Read before it is unpacked, and once, whichever place takes it.
    let bytes = archive.content(settings.threads())?;
    timing.mark(Phase::Find);
    let mut attempts = node.attempts(&[]);
    loop {
        let cache = attempts.next_cache(timing)?;
        let built = laid(archive, &bytes, &cache, &means, timing).and_then(|found| {
            let start = JobStart::new(&found, settings, arguments);
            let plan = start.plan(&store)?;
            timing.mark(Phase::Plan);
            let ready = start.build_in(cache, &plan, &means, timing)?;
            Ok((found, ready))
        });
        if let Some((found, ready)) = settle(&mut attempts, built)? {
            // If that fails, each start compiles the modules again: slower, but right.
            let _ = open_byte_code(&ready.prefix.join("lib"));
            return Ok((found, ready));
        }
    }
}

/// The job that the archive of these `bytes` stands for, with its layer in `cache`.
fn laid(
    archive: &Archive,
    bytes: &Digest,
    cache: &Cache,
    means: &Means<'_>,
    timing: &mut Timing,
) -> Result<FoundJob, BootError> {
    let look = || note::read_whole(cache, bytes, archive);
    let waited = wait_for(cache, &format!("{bytes}.archive"), means, look)?;
    timing.mark(Phase::Wait);
    let claimed = match waited {
        Waited::There(found) => return Ok(noted(archive, bytes, cache, found)),
        Waited::Ours(claimed) => claimed,
    };
    if let Some(found) = look() {
        return Ok(noted(archive, bytes, cache, found));
    }
    let found = with_beat(BEAT, || claimed.progress(), || lay(archive, bytes, cache, means))?;
    timing.mark(Phase::Extract);
    timing.counts.built += 1;
    Ok(found)
}

/// Notes a job that was found by the archive's bytes, so that the next start need not read them. If that fails, it reads them again.
fn noted(archive: &Archive, bytes: &Digest, cache: &Cache, found: FoundJob) -> FoundJob {
    let _ = cache.staging().and_then(|staging| note_both(archive, bytes, cache, &staging, &found));
    found
}

fn note_both(archive: &Archive, bytes: &Digest, cache: &Cache, staging: &Staging, found: &FoundJob) -> io::Result<()> {
    note::write(cache, staging, bytes, found)?;
    note::write(cache, staging, &archive.identity, found)
}

/// Removes the files that each tree has of its own. What they say belongs to the place where the archive was made.
fn remove_own(unpacked: &Unpacked) -> io::Result<()> {
    let names = interpreter_names(&unpacked.version).map(|name| format!("bin/{name}"));
    let names = if unpacked.python == Python::Shipped { &[][..] } else { &names[..] };
    for name in names.iter().map(String::as_str).chain(["pyvenv.cfg"]) {
        match fs::remove_file(unpacked.root.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Unpacks the archive, commits it as a layer, and notes the job.
fn lay(archive: &Archive, bytes: &Digest, cache: &Cache, means: &Means<'_>) -> Result<FoundJob, BootError> {
    let failed = |source| BuildError::Cache { path: cache.root().into(), source };
    let staging = cache.staging().map_err(failed)?;
    let into = staging.subdirectory("archive").map_err(failed)?;
    // Layers are spread over the disk in the same way.
    let _ = File::open(&into).and_then(cpack_node::sys::spread_subdirectories);
    let limits = means.local_limits();
    let unpacked = archive.unpack(&into, &limits, means.stop.flag(), &|| {}).map_err(|error| match error {
        UnpackError::Extract(failure) => BuildError::Extract(failure).into(),
        UnpackError::Write { path, source } => BuildError::Cache { path, source }.into(),
        error => BootError::Unpack(error),
    })?;
    means.check_stop()?;
    archive.require_unchanged()?;
    remove_own(&unpacked).and_then(|()| byte_code_directories(&unpacked.root.join("lib"))).map_err(failed)?;
    let (job, manifest) = describe::describe(archive, &unpacked);
    let content = commit(&unpacked.root, cache, &staging, means).map_err(failed)?;
    let found = describe::with_layer(job, manifest, content, archive);
    note_both(archive, bytes, cache, &staging, &found).map_err(failed)?;
    Ok(found)
}
