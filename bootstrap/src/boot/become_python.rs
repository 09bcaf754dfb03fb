//! From an environment that is ready to the Python that takes this process.

use std::convert::Infallible;

use cpack_fault::point;
use cpack_format::job::Job;
use cpack_node::timing::Timing;

use super::{Boot, Ready};
use crate::error::BootError;
use crate::exec::Exec;
use crate::message::say;
use crate::settings::Settings;
use crate::sys;

/// Becomes the Python of a job.
pub(crate) fn run(boot: &Boot<'_>, settings: &Settings, mut timing: Timing) -> Result<Infallible, BootError> {
    let prepared = boot.prepare(&mut timing).and_then(|ready| Ok((boot.exec(&ready)?, ready)));
    become_python(prepared, boot.job(), settings, &timing)
}

/// Becomes what was prepared; tells what that cost, or why there is nothing.
pub(crate) fn become_python(
    prepared: Result<(Exec, Ready), BootError>,
    job: &Job,
    settings: &Settings,
    timing: &Timing,
) -> Result<Infallible, BootError> {
    let outcome = prepared.as_ref().map_or_else(|error| format!("{:?}", error.exit()), |_| "started".into());
    if settings.log {
        say(&timing.line());
    }
    if let Some(path) = &settings.metrics {
        // A start does not fail for want of figures.
        let _ = timing.append(path, &job.environment, &job.name, &outcome);
    }
    // Nor for want of a trace.
    let _ = cpack_events::write();
    let (exec, ready) = prepared?;
    // A signal that came after the last look at it must not be lost.
    if let Some(signal) = sys::stop_signal() {
        return Err(BootError::Stopped(format!("signal {signal}")));
    }
    for lease in &ready.leases {
        // Without a lease clean-up goes by what processes map and name.
        let _ = lease.keep_across_exec();
    }
    let program = exec.program.clone();
    point("boot.exec").map_err(|source| BootError::Exec { source, program: program.clone() })?;
    Err(BootError::Exec { source: exec.run(), program })
}
