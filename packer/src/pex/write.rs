//! Writes an environment as a PEX.

use std::path::{Path, PathBuf};

use cpack_discover::Environment;
use cpack_layer::content::compile::Compilers;
use cpack_layer::content::script;
use cpack_pex::info::{InheritPath, PexInfo};
use rayon::prelude::*;

use super::chroot::{Files, Form};
use super::error::PexError;
use super::shape::Shape;
use super::start::Start;
use super::{chroot, hash, metadata, output, requirements, runtime, start};
use crate::cache::ClientCache;

#[derive(Debug, Clone)]
pub(crate) struct PexOptions {
    pub shape: Shape,
    pub start: Start,
    /// Settings of the runtime: inherit-path, interpreter constraints, injected arguments and variables, venv mode.
    /// [`write_pex`] fills in what follows from the environment: distributions, requirements, hashes, start.
    pub settings: PexInfo,
    pub no_byte_code: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenPex {
    pub path: PathBuf,
    pub size: u64,
    pub info: PexInfo,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Writes `environment` as a PEX to `output`, which is replaced. Calls `progress` with the bytes of files that are done.
pub(crate) fn write_pex(
    environment: &Environment,
    options: &PexOptions,
    output: &Path,
    cache: &ClientCache,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<WrittenPex, PexError> {
    let python = &environment.python;
    requirements::check(environment)?;
    let settings = &options.settings;
    let (inherit_path, venv_system_site_packages) = match (settings.inherit_path, environment.sees_system) {
        (InheritPath::False, true) => (InheritPath::Fallback, true),
        (inherit_path, sees_system) => (inherit_path, settings.venv_system_site_packages || sees_system),
    };
    let files = Files::new(environment, (!options.no_byte_code).then(|| Compilers::of(python).into()));
    let (code, mut warnings) = chroot::user_code(&files)?;
    let mut info = PexInfo {
        includes_tools: Some(true),
        code_hash: Some(hash::sha1(&code)?),
        requirements: requirements::of(environment),
        pex_path: Some(options.settings.merged_paths().join(":")),
        pex_hash: None,
        inherit_path,
        venv_system_site_packages,
        // Upstream's runtime installs several at once where their sizes make it pay.
        max_install_jobs: -1,
        ..options.settings.clone()
    };
    start::set(&mut info, environment, &options.start)?;
    if let Some(warning) = requirements::unmet(environment) {
        info.ignore_errors = true;
        warnings.push(warning);
    }
    // Upstream's pex is a program of its own. It takes half a second where the cache does not know its release yet.
    let (size, info, said) = std::thread::scope(|scope| {
        let runtime = scope.spawn(|| runtime::find(environment, cache));
        let distributions = environment.distributions.par_iter();
        let chroots: Result<Vec<_>, _> =
            distributions.map(|d| chroot::of_distribution(&files, d, Form::Chroot)).collect();
        let mut chroots = chroots?;
        chroots.sort_unstable_by(|a, b| a.wheel.cmp(&b.wheel));
        let strangers: Vec<String> = chroots.iter_mut().flat_map(|c| std::mem::take(&mut c.strangers)).collect();
        let left_out: Vec<String> = chroots.iter_mut().flat_map(|c| std::mem::take(&mut c.left_out)).collect();
        let said = [script::warning(&strangers), metadata::warning(&left_out)];
        info.distributions = chroots.iter().map(|c| (c.wheel.clone(), c.fingerprint.clone())).collect();
        let base = output::PendingBase { runtime, info };
        let parts = output::Parts { chroots, code, python: &python.tag, base };
        output::write(parts, options.shape, output, progress).map(|(size, info)| (size, info, said))
    })?;
    warnings.extend(said.into_iter().flatten());
    Ok(WrittenPex { path: output.to_owned(), size, info, warnings })
}
