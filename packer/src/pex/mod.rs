//! PEX files, written straight from an environment, that plain Python runs and upstream's tools read.
//!
//! ```text
//! #!/bin/sh + a few lines for sh (see `start`)          zipapp only
//! .bootstrap/…          upstream's runtime: taken from the user's installed `pex`, never from this repository
//! .deps/<wheel name>/…  each distribution as an installed-wheel chroot (see `chroot`)
//! PEX-INFO  __main__.py  __pex__/__init__.py
//! …                     modules that no distribution owns, and editable projects
//! ```
//!
//! *zipapp*: one zip. *packed*: a directory in which `.bootstrap` and each `.deps/<wheel name>` are zips. *loose*: a directory
//! of plain files. The latter two can be zipped as a whole, `.pex.zip`, to be unpacked before they run.
//!
//! The same environment and the same release of pex give the same bytes. What is written stands beside its place under
//! another name until it is whole, and is then renamed: a kill leaves `.<name>.<pid>.tmp`, never half a PEX.

mod chroot;
mod hash;
mod metadata;
mod output;
mod requirements;
mod runtime;
mod start;
#[cfg(test)]
mod tests;
pub mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use cpack_artifact::pex_info::{InheritPath, PexInfo};
use rayon::prelude::*;

use crate::cache::ClientCache;
use crate::content::compile::Compilers;
use crate::content::pyc::Magic;
use crate::discover::Environment;
use crate::layer::{Codec, LayerError};

use chroot::Files;

/// Deflate level by default. libdeflate's 6 packs scientific packages to 3.25×, zlib's 6, which upstream uses, to 3.22×.
pub const DEFAULT_LEVEL: u32 = 6;

/// Python before 3.13 cannot import from a zip of this size or more.
const MAX_ZIPAPP: u64 = 1 << 32;

/// Python before 3.13 cannot import from a zip of this many entries or more.
const MAX_ENTRIES: usize = 65_535;

/// The form of a PEX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// One zip file.
    #[default]
    Zipapp,
    /// A directory in which the runtime and each distribution are zips.
    Packed,
    /// A directory of plain files.
    Loose,
}

/// Form and compression of a PEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The form.
    pub layout: Layout,
    /// Whether a directory is zipped as a whole: `.pex.zip`.
    pub zipped: bool,
    /// How zips are compressed: deflate or not at all.
    pub codec: Codec,
}

impl Default for Shape {
    fn default() -> Self {
        Self { layout: Layout::Zipapp, zipped: false, codec: Codec::Deflate(DEFAULT_LEVEL) }
    }
}

impl Shape {
    /// The shape that a value of `C_PACK_LAYOUT_OPTIMIZATION` stands for, in any case of letters.
    ///
    /// The names tell the speed of creation, the speed of the first start, and the size.
    pub fn of_optimization(name: &str) -> Option<Self> {
        let (layout, zipped, codec) = match name.to_ascii_uppercase().as_str() {
            "SLOW_FAST_SMALL" => (Layout::Packed, true, Codec::Deflate(DEFAULT_LEVEL)),
            "FAST_MID_BIG" => (Layout::Loose, true, Codec::Store),
            "MID_SLOW_SMALL" => (Layout::Loose, true, Codec::Deflate(1)),
            "DISABLED" => (Layout::Zipapp, false, Codec::Deflate(DEFAULT_LEVEL)),
            _ => return None,
        };
        Some(Self { layout, zipped, codec })
    }
}

/// What a PEX starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// Python, with the arguments.
    #[default]
    Interpreter,
    /// `module` or `module:function`.
    EntryPoint(String),
    /// A script of a distribution.
    Script(String),
}

/// How a PEX is written.
#[derive(Debug, Clone)]
pub struct PexOptions {
    /// Form and compression.
    pub shape: Shape,
    /// What it starts.
    pub start: Start,
    /// Settings of the runtime: inherit-path, interpreter constraints, injected arguments and variables, venv mode. What
    /// follows from the environment (distributions, requirements, hashes, start) is filled in.
    pub settings: PexInfo,
    /// Whether distributions travel without byte-code.
    pub no_byte_code: bool,
}

impl Default for PexOptions {
    fn default() -> Self {
        let (shape, start) = (Shape::default(), Start::default());
        Self { shape, start, settings: PexInfo::new(), no_byte_code: false }
    }
}

/// A PEX that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenPex {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub size: u64,
    /// What it says about itself.
    pub info: PexInfo,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Why a PEX could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PexError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A zip.
    #[error(transparent)]
    Archive(#[from] LayerError),
    /// A PEX that was given.
    #[error(transparent)]
    Given(#[from] cpack_artifact::pex::PexError),
    /// No interpreter for a PEX that was given.
    #[error("no Python can use the distributions of {path}: {reason}", path = path.display())]
    NoPython {
        /// The PEX.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// No upstream runtime.
    #[error(
        "cannot take the PEX runtime from {pex}: {reason}; install pex 2.70 or newer into the environment, or put it on PATH"
    )]
    Runtime {
        /// Which pex was asked.
        pex: String,
        /// What it said.
        reason: String,
    },
    /// A script that no distribution has.
    #[error("no distribution of {environment} has a script {script:?}{hint}", environment = environment.display())]
    NoScript {
        /// The script.
        script: String,
        /// The environment.
        environment: PathBuf,
        /// Those that there are.
        hint: String,
    },
    /// A distribution's own files.
    #[error("cannot pack {distribution}: {reason}")]
    Distribution {
        /// Its name.
        distribution: String,
        /// What is wrong.
        reason: String,
    },
    /// Larger than Python can start.
    #[error(
        "{path} would have {found}, and Python before 3.13 starts no zip file of {limit} or more: write it as \
         --format pex-packed or pex-loose, or with a name that ends in .pex.zip", path = path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large.
        found: String,
        /// Where the limit is.
        limit: &'static str,
    },
    /// Something that is no PEX is in its place.
    #[error("{path} is a directory and no PEX: remove it or write elsewhere", path = .0.display())]
    Occupied(PathBuf),
}

/// Writes `environment` as a PEX to `output`, which is replaced. `progress` is told the bytes of files that are done with.
pub fn write_pex(
    environment: &Environment,
    options: &PexOptions,
    output: &Path,
    cache: &ClientCache,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<WrittenPex, PexError> {
    let python = &environment.python;
    let compilers = Compilers::new(python.executable.clone(), Magic(python.magic), rayon::current_num_threads());
    requirements::check(environment)?;
    let settings = &options.settings;
    let (inherit_path, venv_system_site_packages) = match (settings.inherit_path, environment.sees_system) {
        (InheritPath::False, true) => (InheritPath::Fallback, true),
        (inherit_path, sees_system) => (inherit_path, settings.venv_system_site_packages || sees_system),
    };
    let files = Files::new(environment, (!options.no_byte_code).then(|| compilers.into()));
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
    // Upstream's pex is a program of its own, and takes half a second where it is not known yet.
    let (size, info, said) = std::thread::scope(|scope| {
        let runtime = scope.spawn(|| runtime::find(environment, cache));
        let distributions = environment.distributions.par_iter();
        let chroots: Result<Vec<_>, _> = distributions.map(|d| chroot::of_distribution(&files, d)).collect();
        let mut chroots = chroots?;
        chroots.sort_unstable_by(|a, b| a.wheel.cmp(&b.wheel));
        let strangers: Vec<String> = chroots.iter_mut().flat_map(|c| std::mem::take(&mut c.strangers)).collect();
        let left_out: Vec<String> = chroots.iter_mut().flat_map(|c| std::mem::take(&mut c.left_out)).collect();
        let said = [crate::content::script::warning(&strangers), metadata::warning(&left_out)];
        info.distributions = chroots.iter().map(|c| (c.wheel.clone(), c.fingerprint.clone())).collect();
        let base = Box::new(move || {
            let panicked = |_| PexError::Runtime { pex: "pex".into(), reason: "a thread panicked".into() };
            let runtime = runtime.join().map_err(panicked)??;
            info.build_properties.clone_from(&runtime.info.build_properties);
            info.bootstrap_hash.clone_from(&runtime.info.bootstrap_hash);
            info.pex_hash = Some(hash::of_bytes(&info.to_bytes()));
            Ok(output::Base { runtime, info })
        });
        let parts = output::Parts { chroots, code, python: &python.tag, base };
        output::write(parts, options.shape, output, progress).map(|(size, info)| (size, info, said))
    })?;
    warnings.extend(said.into_iter().flatten());
    Ok(WrittenPex { path: output.to_owned(), size, info, warnings })
}
