//! Makes a packed Python environment appear on a node, and becomes its interpreter.
//!
//! `cpack-boot` stands where an executor expects Python. It finds its job, finds the environment in the node cache or
//! builds it there, merges the path, and executes the environment's interpreter: same process, same descriptors.
//!
//! | module | does |
//! | --- | --- |
//! | [`settings`] | every environment variable, read once |
//! | [`job`] | finds the job |
//! | [`interpreter`] | finds the node's interpreter, by `stat` alone when warm |
//! | [`cache`] | layers and environments that the next container uses too |
//! | [`node`] | all its caches: looking, building where it fits, making room |
//! | [`extract`] | archives to directories |
//! | [`build`] | what is missing in a cache |
//! | [`environment`] | the tree that Python sees |
//! | [`mod@path`], [`entry`], [`exec`] | `PYTHONPATH`, what runs, and running it |
//! | `home` | a place for what programs cache |
//! | [`boot`] | the start as a whole |
//! | [`command`] | `--cpack info`, `status`, `verify` … |
//! | [`pex`] | starting a PEX file |
//! | [`watch`], [`trace`], [`error`] | stopping, time, messages |
//! | [`sys`] | the few unsafe calls |
//! | `foreign` | keeps the static executable safe on nodes with another C library |
//!
//! **Standard output belongs to Python**: nothing is written there before `exec`. Standard error gets one line, and only
//! when something is wrong. Standard input is never read.

pub mod boot;
pub mod build;
pub mod cache;
pub mod command;
pub mod entry;
pub mod environment;
pub mod error;
pub mod exec;
pub mod extract;
#[cfg(all(feature = "hdfs", target_env = "gnu", target_feature = "crt-static"))]
mod foreign;
mod home;
pub mod interpreter;
pub mod job;
pub mod node;
pub mod path;
pub mod pex;
pub mod settings;
pub mod sys;
pub mod trace;
pub mod watch;

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use cpack_artifact::events;
use cpack_artifact::exit::Exit;
use cpack_artifact::fault::point;
use cpack_artifact::job::Job;

use boot::{Boot, Ready};
use error::BootError;
use exec::Exec;
use settings::Settings;
use trace::{Phase, Trace};

/// Found in the file by the packer ([`cpack_artifact::launcher::STORES_MARK`]).
#[used]
static STORES: &str = match (cfg!(feature = "hdfs"), cfg!(feature = "s3")) {
    (true, true) => "cpack-boot opens: file hdfs viewfs s3\n",
    (true, false) => "cpack-boot opens: file hdfs viewfs\n",
    (false, true) => "cpack-boot opens: file s3\n",
    (false, false) => "cpack-boot opens: file\n",
};

/// The whole program. Returns only where Python does not run.
pub fn main() -> ExitCode {
    sys::plain_name_service();
    std::panic::set_hook(Box::new(|panic| {
        say(&error::one_line(&format!("cpack-boot: internal fault: {panic}; please report it")));
    }));
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = std::panic::catch_unwind(|| match arguments.split_first() {
        Some((first, rest)) if first == "--cpack" => command::run(rest),
        _ => start(&arguments).map(|never| match never {}),
    });
    match result {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => fail(&error),
        Err(_) => ExitCode::from(Exit::Internal.code()),
    }
}

/// Says why, and ends as whoever waits expects it.
fn fail(error: &BootError) -> ExitCode {
    say(&error.line());
    if let (Exit::Stopped, Some(signal)) = (error.exit(), sys::stop_signal()) {
        sys::die_by(signal);
    }
    ExitCode::from(error.exit().code())
}

/// Becomes Python.
fn start(arguments: &[OsString]) -> Result<Infallible, BootError> {
    let mut trace = Trace::start();
    let settings = Settings::from_process()?;
    record(&settings);
    if let Some(artifact) = &settings.artifact
        && settings.job.is_none()
        && job::own()?.is_none()
    {
        let path = pex::local(artifact.as_ref(), &settings)?;
        return if pex::is_pex(&path) {
            pex::start(&path, &settings, arguments, trace)
        } else {
            run(&Boot::new(&job::from_path(&path)?, &settings, arguments), &settings, trace)
        };
    }
    let found = job::find(&settings)?;
    trace.mark(Phase::Find);
    run(&Boot::new(&found, &settings, arguments), &settings, trace)
}

/// Becomes the Python of a job.
pub(crate) fn run(boot: &Boot<'_>, settings: &Settings, mut trace: Trace) -> Result<Infallible, BootError> {
    let prepared = boot.prepare(&mut trace).and_then(|ready| Ok((boot.exec(&ready)?, ready)));
    become_python(prepared, boot.job(), settings, &trace)
}

/// Becomes what was prepared; tells what that cost, or why there is nothing.
pub(crate) fn become_python(
    prepared: Result<(Exec, Ready), BootError>,
    job: &Job,
    settings: &Settings,
    trace: &Trace,
) -> Result<Infallible, BootError> {
    let outcome = prepared.as_ref().map_or_else(|error| format!("{:?}", error.exit()), |_| "started".into());
    if settings.log {
        say(&trace.line());
    }
    if let Some(path) = &settings.metrics {
        // A start does not fail for want of figures.
        let _ = trace.append(path, &job.environment, &job.name, &outcome);
    }
    // Nor for want of a trace.
    let _ = events::write();
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

/// Records the events of this process where their file is asked for, or the figures that come of them.
pub(crate) fn record(settings: &Settings) {
    if settings.trace.is_some() || settings.metrics.is_some() {
        events::record("cpack-boot", settings.trace.as_deref());
    }
}

/// Writes one line to standard error.
pub(crate) fn say(line: &str) {
    // Whoever closed it does not want to know.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
