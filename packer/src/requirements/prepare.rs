//! Finds or makes the environment of a request.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use cpack_discover::{Environment, without_credentials};
use cpack_format::Digest;

use super::conda_files;
use super::error::RequirementsError;
use super::hashes::hashes;
use super::kept::Kept;
use super::local;
use super::platform::Platform;
use super::prepared::Prepared;
use super::request::{Machine, Options, Request};
use super::tools::{Task, Tool, behind, interpreter, on_path, write_lines};
use crate::cache::Fingerprint;

/// Bump when the same resolution is installed in another way.
const FORMAT: u32 = 1;

/// Makes the environment of `request`, or finds the one that was made before. Calls `heard` with each line that the tool prints.
pub(crate) fn prepare(
    request: &Request,
    machine: &Machine,
    heard: &dyn Fn(&str),
) -> Result<Prepared, RequirementsError> {
    for path in &request.files {
        fs::File::open(path).map_err(|source| RequirementsError::Requirements { path: path.clone(), source })?;
    }
    if let Some(prepared) = conda_files::prepare(request, machine, heard)? {
        return Ok(prepared);
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
            return Ok(Prepared { prefix, reused: true, platform: task.platform.cloned(), is_conda: false });
        }
        let prefix = make(kept, &key, |prefix| task.create(prefix).and_then(|()| task.install(prefix, &pins)))?;
        Ok(Prepared { prefix, reused: false, platform: task.platform.cloned(), is_conda: false })
    })
}

/// Makes an environment of the distributions that `request`'s requirements need and `environment` lacks. `None` if it has all.
/// [`cpack_discover::selection::merge`] adds them to `environment`.
pub(crate) fn additions(
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
            return Ok(Some(Prepared { prefix, reused: true, platform, is_conda: false }));
        }
        let prefix = make(kept, &key, |prefix| task.create(prefix).and_then(|()| install(prefix)))?;
        Ok(Some(Prepared { prefix, reused: false, platform, is_conda: false }))
    })
}

/// The interpreter to resolve for. For uv it may be a version, whose interpreter uv finds or downloads.
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

fn with_task<T>(
    request: &Request,
    machine: &Machine,
    tool: &Tool,
    python: &OsStr,
    heard: &dyn Fn(&str),
    body: impl FnOnce(&Task<'_>, &Kept) -> Result<T, RequirementsError>,
) -> Result<T, RequirementsError> {
    let failed = || RequirementsError::file(&machine.cache_dir.join("environments"));
    let platform = request.options.python_platform.as_deref().map(Platform::parse).transpose()?;
    let kept = Kept::open(&machine.cache_dir).map_err(failed())?;
    let scratch = kept.scratch().map_err(failed())?;
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

/// The key of an environment: two with the same key are the same.
fn key(task: &Task<'_>, pins: &[String]) -> Digest {
    let mut key = Fingerprint::of(&format!("cluster-pack environment {FORMAT}"));
    key.text(if matches!(task.tool, Tool::Uv(_)) { "uv" } else { "pip" });
    let interpreter = fs::canonicalize(task.interpreter).map_or_else(|_| task.interpreter.to_owned(), OsString::from);
    key.text(interpreter.as_encoded_bytes()).text(task.platform.map(Platform::name).unwrap_or_default());
    let options = task.options;
    for place in options.index_url.iter().chain(&options.extra_index_urls).chain(&options.find_links) {
        key.text(without_credentials(place));
    }
    key.text("");
    // Without any, the key stays what it was.
    for hash in hashes(task.files.iter().map(PathBuf::as_path).chain(task.extra)) {
        key.text(&hash);
    }
    let directory = std::env::current_dir().unwrap_or_default();
    for pin in pins {
        key.text(pin);
        if let Some(local) = local::identity(pin, &directory) {
            key.text(local);
        }
    }
    key.finish()
}

/// Makes an environment in a directory of its own with `fill`. [`Kept`] finds it once `fill` has succeeded.
fn make(
    kept: &Kept,
    key: &Digest,
    fill: impl FnOnce(&Path) -> Result<(), RequirementsError>,
) -> Result<PathBuf, RequirementsError> {
    let directory = kept.begin(key).map_err(RequirementsError::file(Path::new("environments")))?;
    fill(directory.path())?;
    let path = directory.path().to_owned();
    kept.commit(key, directory).map_err(RequirementsError::file(&path))
}
