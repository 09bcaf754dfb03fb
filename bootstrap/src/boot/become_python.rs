//! The last steps of a start: from a ready environment to `exec`.

use std::convert::Infallible;

use cpack_fault::point;
use cpack_format::job::Job;
use cpack_node::timing::Timing;

use super::{JobStart, Ready};
use crate::error::BootError;
use crate::exec::Exec;
use crate::message::say;
use crate::settings::Settings;
use crate::sys;

/// Replaces this process with the Python of a job.
pub(crate) fn run(start: &JobStart<'_>, settings: &Settings, mut timing: Timing) -> Result<Infallible, BootError> {
    let prepared =
        start.prepare(settings.start_of(start.job()), &mut timing).and_then(|ready| Ok((start.exec(&ready)?, ready)));
    become_python(prepared, start.job(), settings, &timing).map_err(|error| start.or_unserved(error))
}

impl JobStart<'_> {
    /// Writes the metrics of a process of this start.
    pub(super) fn note(&self, timing: &Timing, outcome: &str) {
        note(self.settings, self.job(), timing, outcome);
    }
}

fn note(settings: &Settings, job: &Job, timing: &Timing, outcome: &str) {
    if let Some(path) = &settings.metrics {
        // Metrics that cannot be written are no reason to fail.
        let _ = timing.append(path, &job.environment, &job.name, outcome);
    }
}

/// Replaces this process with the prepared program, or returns the error of preparing it. Writes log, metrics and trace.
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
    note(settings, job, timing, &outcome);
    let _ = cpack_events::write();
    let (exec, ready) = prepared?;
    // A signal that came after the watching thread's last check must not be lost.
    if let Some(signal) = sys::stop_signal() {
        return Err(BootError::Stopped(format!("signal {signal}")));
    }
    for lease in &ready.leases {
        // Without a lease clean-up goes by the files that processes map and name.
        let _ = lease.keep_across_exec();
    }
    let program = exec.program.clone();
    point("boot.exec").map_err(|source| BootError::Exec { source, program: program.clone() })?;
    Err(BootError::Exec { source: exec.run(), program })
}
