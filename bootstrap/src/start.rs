//! A start, from the arguments of the process to the Python that takes its place.

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;

use cpack_format::exit::Exit;
use cpack_format::message::with_causes;
use cpack_node::timing::{Phase, Timing};

use crate::boot::{JobStart, run};
use crate::error::BootError;
use crate::message::{record, say};
use crate::settings::Settings;
use crate::{artifact, command, job, sys};

/// The packer searches the file for this text ([`cpack_format::launcher::STORES_MARK`]).
#[used]
static STORES: Stores = Stores {
    always: *b"cpack-boot opens: file ",
    hdfs: if cfg!(feature = "hdfs") { *b"hdfs viewfs " } else { [b' '; 12] },
    s3: if cfg!(feature = "s3") { *b"s3 " } else { [b' '; 3] },
    gs: if cfg!(feature = "gs") { *b"gs " } else { [b' '; 3] },
    azure: if cfg!(feature = "azure") { *b"abfss " } else { [b' '; 6] },
    http: if cfg!(feature = "http") { *b"http https " } else { [b' '; 11] },
    end: *b"\n",
};

/// One line of text. A store that is left out is spaces.
#[repr(C)]
struct Stores {
    always: [u8; 23],
    hdfs: [u8; 12],
    s3: [u8; 3],
    gs: [u8; 3],
    azure: [u8; 6],
    http: [u8; 11],
    end: [u8; 1],
}

/// The whole program. Returns only if Python does not run.
pub fn main() -> ExitCode {
    sys::plain_name_service();
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("internal fault: {panic}; please report it"));
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

/// Says why the start failed. Ends by the signal that stopped it, or else with the error's exit code.
fn fail(error: &BootError) -> ExitCode {
    say(&with_causes(error));
    if let (Exit::Stopped, Some(signal)) = (error.exit(), sys::stop_signal()) {
        sys::die_by(signal);
    }
    ExitCode::from(error.exit().code())
}

/// Replaces this process with the Python of its job or PEX.
fn start(arguments: &[OsString]) -> Result<Infallible, BootError> {
    let mut timing = Timing::start();
    let settings = Settings::from_process()?;
    record(&settings);
    if let Some(artifact) = &settings.artifact
        && settings.job.is_none()
        && job::own()?.is_none()
    {
        return artifact::start(artifact.as_ref(), &settings, arguments, timing);
    }
    let found = job::find(&settings)?;
    timing.mark(Phase::Find);
    run(&JobStart::new(&found, &settings, arguments), &settings, timing)
}
