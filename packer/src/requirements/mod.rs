//! Environments from requirements: `-r requirements.txt`, and `--add` to an environment that is there.
//!
//! uv does the work where it is on `PATH`, else the pip of the interpreter. The result is an ordinary virtual environment
//! in the client's cache ([`kept`]), which discovery reads like any other.
//!
//! # When an environment is reused
//!
//! The requirements are resolved each time (`uv pip compile`, or pip's dry run): that is what tells whether something
//! changed, in a requirements file, in one that it includes, or on the index. The environment's key is the digest of the
//! resolution (every project with its version or URL), the tool, the interpreter, the platform, and the options that say
//! where packages come from, credentials left out. With the same key the environment is used as it is, so that its files
//! keep their stat data and nothing is packed again. Where the resolution has the directory of a local project, that project
//! is installed again, in the same environment: neither tool can tell whether its sources changed. A local archive is part
//! of the key, as `stat` tells it.
//!
//! # Another platform
//!
//! With `--python-platform` wheels of that platform are installed into an environment of this machine's interpreter, which
//! compiles byte-code but never runs what was installed. pip takes wheels only; uv builds projects that have none, and what
//! turns out to be built for this machine instead is refused.

mod kept;
mod local;
mod platform;
mod run;
mod tools;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;

use crate::discover::{DiscoverError, DiscoverOptions, Environment, discover, python_info, without_credentials};
use kept::Kept;
use tools::{Task, Tool, behind, interpreter, on_path, write_lines};

pub use platform::Platform;

/// Bump when the same resolution is installed in another way.
const FORMAT: u32 = 1;

/// Where packages come from, and what for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The package index, instead of the tool's own.
    pub index_url: Option<String>,
    /// Further package indexes.
    pub extra_index_urls: Vec<String>,
    /// Directories or pages with wheels.
    pub find_links: Vec<String>,
    /// The version of Python, e.g. `3.11`.
    pub python_version: Option<String>,
    /// The platform, as uv names it; this machine's where none is given.
    pub python_platform: Option<String>,
}

/// What is looked at on this machine, read once by the caller.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The client's cache.
    pub cache_dir: PathBuf,
}

/// What to make an environment of.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Requirements files, and with uv also `pyproject.toml`.
    pub files: Vec<PathBuf>,
    /// Requirements that add to the files, or replace what they say of the same project (with uv).
    pub requirements: Vec<String>,
    /// Where packages come from.
    pub options: Options,
}

/// An environment that was made, or was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// Its prefix.
    pub prefix: PathBuf,
    /// Whether it was there.
    pub reused: bool,
    /// What it is for, if not this machine.
    pub platform: Option<Platform>,
}

/// Why requirements did not become an environment.
#[derive(Debug, thiserror::Error)]
pub enum RequirementsError {
    /// There is no uv, and no interpreter with pip.
    #[error("requirements need uv or a python3 on PATH: install uv, or name an environment with --venv")]
    NoTool,
    /// No interpreter of the version.
    #[error("there is no Python {0} here: install it, or install uv, which downloads it")]
    NoInterpreter(String),
    /// Not a platform that executors have.
    #[error("{0} is no platform to pack for: expected a Linux as uv names it, e.g. x86_64-manylinux_2_28")]
    Platform(String),
    /// A requirements file is not there.
    #[error("cannot read the requirements file {path}: {source}", path = path.display())]
    Requirements {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tool cannot be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{what} failed ({status}):\n{output}")]
    Failed {
        /// What it was to do.
        what: &'static str,
        /// How it ended.
        status: String,
        /// The last lines that it said, without credentials.
        output: String,
    },
    /// A file in the cache cannot be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A project without a wheel for the platform was built for this machine.
    #[error("{name} {version} has no wheel for {platform}: it was built for this machine ({tag})")]
    BuiltHere {
        /// The project.
        name: String,
        /// Its version.
        version: String,
        /// The platform asked for.
        platform: String,
        /// What it was built for.
        tag: String,
    },
    /// The environment that was made cannot be read.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
}

/// Makes the environment of `request`, or finds the one that was made. `heard` gets what the tool says.
pub fn prepare(request: &Request, machine: &Machine, heard: &dyn Fn(&str)) -> Result<Prepared, RequirementsError> {
    for path in &request.files {
        fs::File::open(path).map_err(|source| RequirementsError::Requirements { path: path.clone(), source })?;
    }
    let tool = Tool::find(machine.path.as_deref());
    let python = choose_interpreter(&tool, &request.options, machine)?;
    with_task(request, machine, &tool, &python, heard, |task, kept| {
        let pins = task.resolve()?;
        let key = key(task, &pins);
        let has_paths = pins.iter().any(|pin| local::path(pin).is_some());
        if let Some(prefix) = kept.find(&key) {
            if has_paths {
                task.install(&prefix, &pins)?;
            }
            return Ok(Prepared { prefix, reused: true, platform: task.platform.cloned() });
        }
        let prefix = make(kept, &key, |prefix| task.create(prefix).and_then(|()| task.install(prefix, &pins)))?;
        Ok(Prepared { prefix, reused: false, platform: task.platform.cloned() })
    })
}

/// Makes an environment of what `request`'s requirements need beside what `environment` has; none where it has all.
/// [`crate::discover::selection::merge`] puts the two together.
pub fn additions(
    environment: &Environment,
    request: &Request,
    machine: &Machine,
    heard: &dyn Fn(&str),
) -> Result<Option<Prepared>, RequirementsError> {
    let tool = Tool::find(machine.path.as_deref());
    let python = environment.python.base_executable.as_os_str();
    let additions = with_task(request, machine, &tool, python, heard, |task, _| task.additions(&environment.prefix))?;
    if additions.is_empty() {
        return Ok(None);
    }
    let exact = Request { files: Vec::new(), requirements: additions, options: request.options.clone() };
    with_task(&exact, machine, &tool, python, heard, |task, kept| {
        let key = key(task, &exact.requirements);
        let platform = task.platform.cloned();
        let install = |prefix: &Path| task.install_only(prefix, &exact.requirements);
        if let Some(prefix) = kept.find(&key) {
            if exact.requirements.iter().any(|requirement| local::path(requirement).is_some()) {
                install(&prefix)?;
            }
            return Ok(Some(Prepared { prefix, reused: true, platform }));
        }
        let prefix = make(kept, &key, |prefix| task.create(prefix).and_then(|()| install(prefix)))?;
        Ok(Some(Prepared { prefix, reused: false, platform }))
    })
}

impl Prepared {
    /// Discovers the environment, for the platform that it was made for.
    pub fn discover(&self, cache_dir: &Path) -> Result<Environment, RequirementsError> {
        let mut options = DiscoverOptions { cache_dir: cache_dir.to_owned(), python: None };
        if let Some(platform) = &self.platform {
            options.python = Some(platform.python(&python_info(&self.prefix, cache_dir)?));
        }
        let environment = discover(&self.prefix, &options)?;
        let Some(platform) = &self.platform else { return Ok(environment) };
        let stranger = environment
            .distributions
            .iter()
            .find(|d| !d.tags.is_empty() && !d.tags.iter().any(|tag| platform.accepts(tag)));
        match stranger {
            None => Ok(environment),
            Some(distribution) => Err(RequirementsError::BuiltHere {
                name: distribution.display_name.clone(),
                version: distribution.version.clone(),
                platform: platform.name().to_owned(),
                tag: distribution.tags.first().cloned().unwrap_or_default(),
            }),
        }
    }
}

/// The interpreter to resolve for; for uv it may be a version that it finds itself.
fn choose_interpreter(tool: &Tool, options: &Options, machine: &Machine) -> Result<OsString, RequirementsError> {
    let path = machine.path.as_deref();
    match (&options.python_version, tool) {
        (Some(version), _) => match (interpreter(version, path, machine.home.as_deref()), tool) {
            (Some(python), _) => Ok(python.into()),
            (None, Tool::Uv(_)) => Ok(version.into()),
            (None, Tool::Pip) => Err(RequirementsError::NoInterpreter(version.clone())),
        },
        (None, _) => on_path(path, "python3").map(|p| behind(&p).into()).ok_or(RequirementsError::NoTool),
    }
}

/// Runs `body` with a task and a scratch directory.
fn with_task<T>(
    request: &Request,
    machine: &Machine,
    tool: &Tool,
    python: &OsStr,
    heard: &dyn Fn(&str),
    body: impl FnOnce(&Task<'_>, &Kept) -> Result<T, RequirementsError>,
) -> Result<T, RequirementsError> {
    let failed = |source| RequirementsError::File { path: machine.cache_dir.join("environments"), source };
    let platform = request.options.python_platform.as_deref().map(Platform::parse).transpose()?;
    let kept = Kept::open(&machine.cache_dir).map_err(failed)?;
    let scratch = kept.scratch().map_err(failed)?;
    let extra = scratch.path().join("requirements.txt");
    write_lines(&extra, request.requirements.iter())?;
    let overrides = scratch.path().join("overrides.txt");
    let named = || request.requirements.iter().filter(|requirement| local::is_named(requirement));
    write_lines(&overrides, named())?;
    let task = Task {
        tool,
        interpreter: python,
        options: &request.options,
        platform: platform.as_ref(),
        files: &request.files,
        extra: (!request.requirements.is_empty()).then_some(extra.as_path()),
        overrides: named().next().map(|_| overrides.as_path()),
        scratch: scratch.path(),
        heard,
    };
    body(&task, &kept)
}

/// What makes two environments the same.
fn key(task: &Task<'_>, pins: &[String]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &[u8]| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    add(format!("cluster-pack environment {FORMAT}").as_bytes());
    add(if matches!(task.tool, Tool::Uv(_)) { b"uv" } else { b"pip" });
    let interpreter = fs::canonicalize(task.interpreter).map_or_else(|_| task.interpreter.to_owned(), OsString::from);
    add(interpreter.as_encoded_bytes());
    add(task.platform.map(Platform::name).unwrap_or_default().as_bytes());
    let options = task.options;
    let places = options.index_url.iter().chain(&options.extra_index_urls).chain(&options.find_links);
    for text in places.map(|place| without_credentials(place)).chain(["".to_owned()]) {
        add(text.as_bytes());
    }
    let directory = std::env::current_dir().unwrap_or_default();
    for pin in pins {
        add(pin.as_bytes());
        local::identity(pin, &directory).iter().for_each(|local| add(local.as_bytes()));
    }
    hasher.finalize().into()
}

/// Makes an environment in a directory of its own, which counts once `fill` is through.
fn make(
    kept: &Kept,
    key: &Digest,
    fill: impl FnOnce(&Path) -> Result<(), RequirementsError>,
) -> Result<PathBuf, RequirementsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RequirementsError::File { path, source }
    };
    let directory = kept.begin(key).map_err(failed(Path::new("environments")))?;
    fill(directory.path())?;
    let path = directory.path().to_owned();
    kept.commit(key, directory).map_err(failed(&path))
}

#[cfg(test)]
mod tests;
