//! Starts an archive of an environment that conda-pack, venv-pack2, `cluster-pack pack` or `tar` wrote.
//!
//! | module | does |
//! | --- | --- |
//! | `build` | unpacks the archive into a layer, and builds its environment |
//! | `describe` | the job and manifest that an archive stands for |
//! | `note` | keeps both for the next start |
//! | `wheels` | unpacks one that is a wheelhouse, for [`crate::pex`] |
//!
//! [`cpack_unpack`] reads archives and mends what is in them.
//!
//! **Once a node.** The first start unpacks the archive into one layer of the node cache, under the digest of its content, and notes
//! the job that it stands for. All that follows is the start of that job: trees, interpreters and prefixes are as in any other. A
//! later start finds the note by what `stat` tells of the archive, whose bytes it does not read; one of a copy by the digest of its bytes.

mod build;
mod describe;
mod note;
mod wheels;

pub(crate) use note::remove_stale;

use std::convert::Infallible;
use std::ffi::OsString;

use cpack_node::timing::{Phase, Timing};
use cpack_unpack::Archive;

use crate::boot::{JobStart, Ready};
use crate::error::BootError;
use crate::job::FoundJob;
use crate::settings::Settings;

/// Starts the archive with `arguments`. Returns only if that fails.
pub(crate) fn start(
    archive: &Archive,
    settings: &Settings,
    arguments: &[OsString],
    mut timing: Timing,
) -> Result<Infallible, BootError> {
    let noted = settings.node().caches().find_map(|cache| note::read(&cache, &archive.identity, archive));
    timing.mark(Phase::Find);
    let warm = noted.and_then(|found| Some((look(&found, settings, arguments)?, found)));
    timing.mark(Phase::Look);
    if warm.is_none()
        && let Some(directory) = wheels::directory(archive, settings, &mut timing)?
    {
        return crate::pex::start(&directory, settings, arguments, timing);
    }
    let ready = match warm {
        Some((ready, found)) => Ok((found, ready)),
        None => build::build(archive, settings, arguments, &mut timing),
    };
    // An error needs no more of a job than its name.
    let job = ready.as_ref().map_or_else(|_| describe::unknown(archive), |(found, _)| found.job.clone());
    let prepared =
        ready.and_then(|(found, ready)| Ok((JobStart::new(&found, settings, arguments).exec(&ready)?, ready)));
    crate::boot::become_python(prepared, &job, settings, &timing)
}

/// Looks for the environment of a job that was noted: the warm path.
fn look(found: &FoundJob, settings: &Settings, arguments: &[OsString]) -> Option<Ready> {
    let (cache, key, environment) = JobStart::new(found, settings, arguments).look().filter(|_| !settings.writable)?;
    Some(Ready::of(cache, Some(key), environment))
}
