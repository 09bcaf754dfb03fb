//! Starts any PEX file or wheelhouse from the node cache, as a real virtual environment.
//!
//! | module | does |
//! | --- | --- |
//! | `setup` | its settings, and the variables of upstream's runtime |
//! | `python` | the interpreter, and which distributions are active for it |
//! | `build` | finds the environment, or builds it |
//! | `pex_layers` | extracts what is missing |
//! | `entry` | what runs: entry point, module, script, interpreter |
//! | `templates` | injected arguments that name variables |
//! | `fetch` | a PEX that lies in a store |
//! | `reason` | why a PEX is handed over |
//!
//! [`cpack_pex`] reads PEX files.
//!
//! **Names.** The key of a PEX's environment in the node cache is a digest of its `PEX-INFO`, of what the zip's directory says
//! (names, lengths, CRC-32), of the PEX files that are merged into it, and of the settings that change which module is found
//! first: copies that containers get share one environment. Of a PEX that is a directory, path and `stat` of its files stand
//! for the zip's directory. The key of a layer is the digest of its content, computed from the extracted files, so that
//! every PEX with the same distributions shares it. A warm start reads the PEX's directory and `PEX-INFO` and extracts nothing.
//!
//! **Handing over.** A PEX with a setting that cannot be honoured faithfully runs by plain Python and its own runtime, with
//! one line on standard error that says why. A wheelhouse starts as the PEX that it stands for, without the variables of
//! upstream's runtime; it has no runtime of its own, so that such a setting ends its start.

mod build;
mod entry;
mod fetch;
mod pex_layers;
mod python;
mod reason;
mod setup;
mod templates;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cpack_format::exit::Exit;
use cpack_format::job::minor;
use cpack_node::timing::{Phase, Timing};
use cpack_pex::Pex;

use crate::boot::JobStart;
use crate::error::BootError;
use crate::exec::Exec;
use crate::interpreter::inspect;
use crate::message::say;
use crate::settings::Settings;
use crate::sys;

use reason::Reason;
use setup::{Setup, Variables};

pub(crate) use cpack_pex::is_pex;
pub(crate) use fetch::local;

/// The scripts of an environment and what each starts.
const SCRIPTS: &str = "share/cluster-pack/scripts.json";

/// Starts the PEX or wheelhouse at `path` with `arguments`. Returns only if that fails.
pub(crate) fn start(
    path: &Path,
    settings: &Settings,
    arguments: &[OsString],
    mut timing: Timing,
) -> Result<Infallible, BootError> {
    let pex = cpack_pex::open(path)?;
    let is_pex = pex.wheelhouse.is_none();
    let variables = if is_pex { Variables::from_process(&pex.path) } else { Variables::default() };
    if let Some(reason) = entry::refused(&pex, &variables) {
        return hand_over(&pex, &reason, arguments);
    }
    let setup = match Setup::new(pex, &variables)? {
        Ok(setup) => setup,
        Err((pex, reason)) => return hand_over(&pex, &reason, arguments),
    };
    timing.mark(Phase::Find);
    let found = build::look(&setup, &variables, settings);
    timing.mark(Phase::Look);
    let job = build::job(&setup);
    let ready = match found {
        Some(ready) => Ok(ready),
        None => match build::build(&setup, &variables, settings, arguments, &mut timing) {
            Ok(Err(reason)) => return hand_over(setup.pex(), &reason, arguments),
            Ok(Ok(ready)) => Ok(ready),
            Err(error) => Err(error),
        },
    };
    let prepared = ready.and_then(|ready| {
        let exec = JobStart::new(&job, settings, arguments).exec(&ready)?;
        let start = entry::Start { setup: &setup, variables: &variables, arguments, prefix: &ready.prefix };
        Ok((start.adapt(exec)?, ready))
    });
    crate::boot::become_python(prepared, &job.job, settings, &timing)
}

fn is_executable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok() && path.is_file()
}

/// Runs the PEX by plain Python, saying why: by one of the version that it names, else by any.
fn hand_over(pex: &Pex, reason: &Reason, arguments: &[OsString]) -> Result<Infallible, BootError> {
    if pex.wheelhouse.is_some() {
        let exit = if matches!(reason, Reason::Python(_)) { Exit::Interpreter } else { Exit::Artifact };
        return Err(BootError::Wheelhouse { path: pex.path.clone(), reason: reason.to_string(), exit });
    }
    say(&format!("{} runs by plain Python: {reason}", pex.path.display()));
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
