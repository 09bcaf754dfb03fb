//! Starting a PEX file that somebody wrote: from the node cache, as a real virtual environment.
//!
//! | module | does |
//! | --- | --- |
//! | `setup` | its settings, and the variables of upstream's runtime |
//! | `python` | the interpreter, and which distributions are active for it |
//! | `build` | finds the environment, or puts it up |
//! | `layers` | extracts what is missing |
//! | `entry` | what runs: entry point, module, script, interpreter |
//! | `fetch` | a PEX that lies in a store |
//! | `reason` | why a PEX is handed over |
//!
//! What a PEX holds is read by [`cpack_artifact::pex`].
//!
//! **Names.** A PEX tells no digests of content. Its environment is named in the node cache by what identifies the file (path,
//! length, times and inode, as `stat` tells them), its `PEX-INFO`, the PEX files that are merged into it and the settings that
//! change what is found first; its layers by their content, computed from what was extracted, so that they are shared with every
//! other PEX that has the same distributions. A warm start reads the PEX's directory and `PEX-INFO` and extracts nothing.
//!
//! **Handing over.** What cannot be honoured faithfully runs by plain Python and the PEX's own runtime, with one line on
//! standard error that says why.

mod build;
mod entry;
mod fetch;
mod layers;
mod python;
mod reason;
mod setup;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cpack_artifact::pex::{self, Pex};

use crate::boot::Boot;
use crate::error::BootError;
use crate::exec::Exec;
use crate::interpreter::{inspect, minor};
use crate::settings::Settings;
use crate::sys;
use crate::trace::{Phase, Trace};

use reason::Reason;
use setup::{Setup, Variables};

pub use cpack_artifact::pex::is_pex;
pub use fetch::local;

/// The scripts of an environment and what each starts.
const SCRIPTS: &str = "share/cluster-pack/scripts.json";

/// Where Python keeps byte-code.
const BYTE_CODE: &str = "__pycache__";

/// Starts the PEX at `path` with `arguments`. Returns only if that fails.
pub fn start(
    path: &Path,
    settings: &Settings,
    arguments: &[OsString],
    mut trace: Trace,
) -> Result<Infallible, BootError> {
    let pex = pex::open(path)?;
    let variables = Variables::from_process(&pex.path);
    if let Some(reason) = entry::refused(&pex, &variables) {
        return hand_over(&pex, &reason, arguments);
    }
    let setup = match Setup::new(pex, &variables)? {
        Ok(setup) => setup,
        Err((pex, reason)) => return hand_over(&pex, &reason, arguments),
    };
    trace.mark(Phase::Find);
    let found = build::look(&setup, &variables, settings);
    trace.mark(Phase::Look);
    let job = build::job(&setup);
    let ready = match found {
        Some(ready) => Ok(ready),
        None => match build::build(&setup, &variables, settings, arguments, &mut trace) {
            Ok(Err(reason)) => return hand_over(setup.pex(), &reason, arguments),
            Ok(Ok(ready)) => Ok(ready),
            Err(error) => Err(error),
        },
    };
    let prepared = ready.and_then(|ready| {
        let exec = Boot::new(&job, settings, arguments).exec(&ready)?;
        let start = entry::Start { setup: &setup, variables: &variables, arguments, prefix: &ready.prefix };
        Ok((start.adapt(exec)?, ready))
    });
    crate::become_python(prepared, &job.job, settings, &trace)
}

fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// Runs the PEX by plain Python, saying why: by one of the version that it names, else by any.
fn hand_over(pex: &Pex, reason: &Reason, arguments: &[OsString]) -> Result<Infallible, BootError> {
    crate::say(&crate::error::one_line(&format!("cpack-boot: {} runs by plain Python: {reason}", pex.path.display())));
    let names = pex.minor.iter().map(|minor| format!("python{minor}")).chain(["python3".into(), "python".into()]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> =
        names.flat_map(|name| std::env::split_paths(&path).map(move |d| d.join(&name)).collect::<Vec<_>>()).collect();
    let (mut fallback, mut failed) = (None, None);
    let program = candidates.into_iter().filter(|candidate| is_executable(candidate)).find(|candidate| {
        // A shim of a version manager is there and fails where its version is not chosen.
        match inspect(candidate) {
            Ok((choice, _)) if pex.minor.as_deref().is_none_or(|named| named == minor(&choice.version)) => true,
            Ok(_) => {
                fallback.get_or_insert_with(|| candidate.clone());
                false
            }
            Err(why) => {
                failed.get_or_insert_with(|| format!(": {} {why}", candidate.display()));
                false
            }
        }
    });
    let none = || BootError::Usage(format!("no python3 on PATH to run the PEX{}", failed.unwrap_or_default()));
    let program = program.or(fallback).ok_or_else(none)?;
    let own = [program.as_os_str(), pex.path.as_os_str()].map(OsStr::to_owned);
    let exec = Exec {
        arguments: own.into_iter().chain(arguments.iter().cloned()).collect(),
        environ: std::env::vars_os().collect(),
        at_start: sys::at_start(),
        program,
    };
    let program = exec.program.clone();
    Err(BootError::Exec { source: exec.run(), program })
}
