//! Starting a PEX file that somebody wrote: from the node cache, as a real virtual environment.
//!
//! | module | does |
//! | --- | --- |
//! | `file` | reads `PEX-INFO`, and which files a zipapp, packed or loose PEX has |
//! | `plan` | decides which entry of the PEX becomes which file of which layer, and what is handed over |
//! | `build` | extracts what is missing and puts up the environment |
//! | `entry` | what runs: entry point, module, script, interpreter |
//!
//! **Names.** A PEX tells no digests of content. Its environment is named in the node cache by what identifies the file (path,
//! length, times and inode, as `stat` tells them) and its `pex_hash`; its layers by their content, computed from what was
//! extracted, so that they are shared with every other PEX that has the same distributions. A warm start reads the
//! PEX's directory and `PEX-INFO` and extracts nothing.
//!
//! **Handing over.** What cannot be honoured faithfully runs by plain Python and the PEX's own runtime, with one line on
//! standard error that says why (`plan::Reason`).

mod build;
mod entry;
mod file;
mod plan;

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cpack_artifact::exit::Exit;
use cpack_artifact::path::PathError;
use cpack_artifact::pex_info::PexInfoError;
use cpack_artifact::zip::ZipError;

use crate::boot::Boot;
use crate::error::BootError;
use crate::exec::Exec;
use crate::settings::Settings;
use crate::sys;
use crate::trace::{Phase, Trace};

pub use file::is_pex;

/// Why a PEX cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum PexError {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The PEX.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no zip, or a damaged one.
    #[error("{path} cannot be used", path = path.display())]
    Zip {
        /// The PEX.
        path: PathBuf,
        /// How.
        source: ZipError,
    },
    /// Its `PEX-INFO`.
    #[error("{path} cannot be used", path = path.display())]
    Info {
        /// The PEX.
        path: PathBuf,
        /// How.
        source: PexInfoError,
    },
    /// A name in it that leads elsewhere.
    #[error("{path} cannot be used", path = path.display())]
    Name {
        /// The PEX.
        path: PathBuf,
        /// Which.
        source: PathError,
    },
    /// Something is missing in it.
    #[error("{path} has no {what}: it is damaged, or no PEX", path = path.display())]
    Missing {
        /// The PEX.
        path: PathBuf,
        /// What.
        what: String,
    },
}

impl PexError {
    /// The exit code that fits.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::NotFound,
            _ => Exit::Artifact,
        }
    }
}

/// Starts the PEX at `path` with `arguments`. Returns only if that fails.
pub fn start(
    path: &Path,
    settings: &Settings,
    arguments: &[OsString],
    mut trace: Trace,
) -> Result<Infallible, BootError> {
    let pex = file::open(path)?;
    let variables = entry::Variables::from_process();
    trace.mark(Phase::Find);
    let plan = match plan::plan(&pex, &variables) {
        Ok(plan) => plan,
        Err(reason) => return hand_over(&pex, &reason, arguments),
    };
    let found = build::job(&pex, &plan);
    let boot = Boot::new(&found, settings, arguments);
    let ready = match boot.look() {
        Some((cache, key, environment)) => {
            trace.mark(Phase::Look);
            build::ready(cache, key, environment)
        }
        None => match build::build(&pex, &plan, &found, settings, arguments, &mut trace) {
            Err(BootError::Interpreter(error)) => {
                return hand_over(&pex, &plan::Reason::Python(error.to_string()), arguments);
            }
            result => result?,
        },
    };
    let exec = entry::adapt(boot.exec(&ready)?, &pex, &variables, arguments, &ready.prefix)?;
    if settings.log {
        crate::say(&trace.line());
    }
    if let Some(metrics) = &settings.metrics {
        // A start does not fail for want of figures.
        let _ = trace.append(metrics, &found.job.environment, &found.job.name, "started");
    }
    for lease in &ready.leases {
        let _ = lease.keep_across_exec();
    }
    let program = exec.program.clone();
    Err(BootError::Exec { source: exec.run(), program })
}

/// Runs the PEX by plain Python, saying why.
fn hand_over(pex: &file::Pex, reason: &plan::Reason, arguments: &[OsString]) -> Result<Infallible, BootError> {
    crate::say(&crate::error::one_line(&format!("cpack-boot: {} runs by plain Python: {reason}", pex.path.display())));
    let names = pex.minor.iter().map(|minor| format!("python{minor}")).chain(["python3".into(), "python".into()]);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = names
        .flat_map(|name| std::env::split_paths(&path).map(move |directory| directory.join(&name)).collect::<Vec<_>>())
        .find(|candidate| nix::unistd::access(candidate, nix::unistd::AccessFlags::X_OK).is_ok() && candidate.is_file())
        .ok_or_else(|| BootError::Usage("no python3 on PATH to run the PEX".into()))?;
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

#[cfg(test)]
mod tests;
