//! What a path or URI names: an archive, a PEX or wheelhouse, or else a launcher or job file.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};

use cpack_node::timing::{Phase, Timing};
use cpack_unpack::Archive;

use crate::boot::{JobStart, run};
use crate::error::BootError;
use crate::settings::Settings;
use crate::{archive, job, pex};

/// Starts what `artifact` names with `arguments`. Returns only if that fails.
pub(crate) fn start(
    artifact: &OsStr,
    settings: &Settings,
    arguments: &[OsString],
    mut timing: Timing,
) -> Result<Infallible, BootError> {
    let path = pex::local(artifact, settings)?;
    if let Some(archive) = Archive::open(&path)? {
        return archive::start(&archive, settings, arguments, timing);
    }
    if pex::is_pex(&path) {
        return pex::start(&path, settings, arguments, timing);
    }
    let found = job::from_path(&path)?;
    timing.mark(Phase::Find);
    run(&JobStart::new(&found, settings, arguments), settings, timing)
}
