//! From an environment to the layers it should become: a plan, in which nothing has been read yet.
//!
//! One layer for each distribution, one for the files that nobody owns, one for the interpreter if it is shipped; an
//! overlay for each editable project. Each has a fingerprint of the stat data of its files, by which the client
//! recognises it later, and a closure that makes its entries if it must be packed.

mod entries;
mod interpreter;

use std::path::PathBuf;

use cpack_artifact::Digest;
use cpack_artifact::manifest::LayerKind;

use crate::cache::Fingerprint;
use crate::content::compile::Compilers;
use crate::content::pyc::Magic;
use crate::discover::{Distribution, Editable, Environment, FileKind, FileStat};
use crate::publish::Planned;

pub use entries::Packer;

/// The name of the layer of files that no distribution owns.
pub const UNOWNED: &str = "unowned";

/// The name of the interpreter's layer.
pub const INTERPRETER: &str = "python";

/// How layers are made.
#[derive(Debug, Clone)]
pub struct Options {
    /// Ship the interpreter as a layer.
    pub with_python: bool,
    /// zstd level.
    pub level: i32,
}

/// The layers of an environment, not yet packed.
#[derive(Debug)]
pub struct Assembled<'a> {
    /// Layers of the environment.
    pub layers: Vec<Planned<'a>>,
    /// Overlays of its editable projects.
    pub overlays: Vec<Planned<'a>>,
}

/// Why layers could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The interpreter cannot be shipped.
    #[error(
        "--with-python: {python} is not relocatable: make the environment with a uv-managed Python, or leave the option out",
        python = .0.display()
    )]
    NotRelocatable(PathBuf),
    /// A directory of the interpreter cannot be read.
    #[error("cannot read the interpreter's {path}: {source}", path = path.display())]
    Interpreter {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Plans the layers of `environment`, to be made by `packer`.
pub fn assemble<'a>(packer: &'a Packer<'a>, options: &Options) -> Result<Assembled<'a>, AssembleError> {
    let environment = packer.environment;
    let mut layers: Vec<_> = environment.distributions.iter().map(|d| distribution(packer, d, options.level)).collect();
    if !environment.unowned.is_empty() {
        layers.push(unowned(packer, options.level));
    }
    if options.with_python {
        layers.push(interpreter::layer(packer, options.level)?);
    }
    let overlays = environment.editables_in_turn().into_iter().map(|e| overlay(packer, e, options.level)).collect();
    Ok(Assembled { layers, overlays })
}

fn distribution<'a>(packer: &'a Packer<'a>, distribution: &'a Distribution, level: i32) -> Planned<'a> {
    let mut fingerprint = start(packer.environment, level);
    fingerprint.text("distribution").text(&distribution.name).text(&distribution.version);
    let shared = packer.shared_files(distribution);
    if !shared.is_empty() {
        let shared: Vec<FileStat> = shared.into_iter().cloned().collect();
        fingerprint.text(files(Fingerprint::new(level), &shared).to_hex().as_bytes());
    }
    Planned {
        kind: LayerKind::Distribution,
        name: distribution.name.clone(),
        version: distribution.version.clone(),
        imports: distribution.import_names.clone(),
        fingerprint: Some(files(fingerprint, &distribution.files)),
        size: distribution.files.iter().map(|f| f.size).sum(),
        entries: Box::new(move || packer.distribution(distribution)),
    }
}

fn unowned<'a>(packer: &'a Packer<'a>, level: i32) -> Planned<'a> {
    let mut fingerprint = start(packer.environment, level);
    fingerprint.text("unowned");
    Planned {
        kind: LayerKind::Unowned,
        name: UNOWNED.into(),
        version: String::new(),
        imports: Vec::new(),
        fingerprint: Some(files(fingerprint, &packer.environment.unowned)),
        size: packer.environment.unowned.iter().map(|f| f.size).sum(),
        entries: Box::new(|| packer.files(&packer.environment.unowned)),
    }
}

fn overlay<'a>(packer: &'a Packer<'a>, editable: &'a Editable, level: i32) -> Planned<'a> {
    let mut fingerprint = start(packer.environment, level);
    fingerprint.text("overlay 2").text(&editable.name).text(&editable.version);
    Planned {
        kind: LayerKind::Overlay,
        name: editable.name.clone(),
        version: editable.version.clone(),
        imports: editable.sources.iter().map(|s| s.name.clone()).collect(),
        fingerprint: Some(files(fingerprint, &editable.files)),
        size: editable.files.iter().map(|f| f.size).sum(),
        entries: Box::new(move || packer.overlay(editable)),
    }
}

/// What every layer of an environment depends on: the byte-code of its interpreter, and where it is, since scripts and
/// `RECORD` may name it.
fn start(environment: &Environment, level: i32) -> Fingerprint {
    let python = &environment.python;
    let mut fingerprint = Fingerprint::new(level);
    fingerprint.text(python.magic).text(&python.cache_tag).text(&python.lib_name);
    fingerprint.text(environment.prefix.as_os_str().as_encoded_bytes());
    fingerprint
}

fn files(mut fingerprint: Fingerprint, files: &[FileStat]) -> Digest {
    for file in files {
        let (kind, target) = match &file.kind {
            FileKind::File => (0, None),
            FileKind::Executable => (1, None),
            FileKind::Link(target) => (2, Some(target)),
        };
        fingerprint.text(file.path.as_bytes());
        if let Some(source) = &file.source {
            fingerprint.text(source.as_os_str().as_encoded_bytes());
        }
        let times = [file.mtime_ns, file.ctime_ns].map(i64::cast_unsigned);
        fingerprint.numbers(&[kind, file.size, times[0], times[1], file.ino]);
        if let Some(target) = target {
            fingerprint.text(target);
        }
    }
    fingerprint.finish()
}

/// Byte-code compilers for `environment`, one for each thread.
pub fn compilers(environment: &Environment) -> Compilers {
    Compilers::new(&environment.python.executable, Magic(environment.python.magic), rayon::current_num_threads())
}
