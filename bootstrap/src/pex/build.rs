//! From a PEX to an environment in the node cache.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use cpack_artifact::Digest;
use cpack_artifact::job::{self, Interpreter, Job};
use cpack_artifact::manifest::{self, Layer, LayerKind, Manifest};
use cpack_artifact::store::FileStore;
use cpack_artifact::zip::Entry;

use super::PexError;
use super::file::{self, Archive, Files, Pex, Root};
use super::plan::{self, Places, Plan};
use crate::boot::Ready;
use crate::build::{BuildError, Means, Tree, ensure_tree};
use crate::cache::{BootId, Cache, Description, Environment, Staging, content_of, places, seal_directories};
use crate::environment::Python;
use crate::error::BootError;
use crate::extract::{FileSource, Limits, ZipTask, extract_zip};
use crate::interpreter::{Search, choose, environment_key};
use crate::job::{Found, Origin};
use crate::settings::Settings;
use crate::trace::{Phase, Trace};
use crate::watch::Stop;

/// The job that a PEX stands for.
pub(super) fn job(pex: &Pex, plan: &Plan) -> Found {
    let soabi = format!("cpython-{}-{}-linux-gnu", plan.minor.replace('.', ""), std::env::consts::ARCH);
    let job = Job {
        format: job::FORMAT,
        requires: Vec::new(),
        name: pex.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        environment: pex.identity,
        store: format!("file:{}", pex.path.display()),
        interpreter: Interpreter { path: String::new(), version: plan.minor.clone(), soabi, shipped: false },
        overlays: Vec::new(),
        entry: job::Entry::Interpreter,
        environ: Default::default(),
        pass: Vec::new(),
        cluster: Default::default(),
    };
    Found { job, manifest: None, origin: Origin::File(pex.path.clone()) }
}

/// An environment that was found.
pub(super) fn ready(cache: Cache, key: String, environment: Environment) -> Ready {
    Ready {
        prefix: environment.path,
        cache,
        key: Some(key),
        overlays: Vec::new(),
        payload: None,
        leases: vec![environment.lease],
    }
}

/// Builds the environment in the first place that can be had.
pub(super) fn build(
    pex: &Pex,
    plan: &Plan,
    found: &Found,
    settings: &Settings,
    arguments: &[std::ffi::OsString],
    trace: &mut Trace,
) -> Result<Ready, BootError> {
    let search = Search::new(&found.job, settings);
    let choice = choose(&search)?;
    let key = environment_key(&pex.identity, search.minor, search.soabi, Some(&choice.identity));
    let python = Python::Node { path: choice.identity.path.clone(), version: choice.version.clone() };
    trace.mark(Phase::Plan);
    let cwd = std::env::current_dir().ok();
    let (boot, mut refusals) = (BootId::current(), Vec::new());
    let candidates = places(&settings.places, cwd.as_deref());
    let usable = candidates.iter().find_map(|place| {
        if let Some(reason) = crate::cache::unusable(place) {
            refusals.push(format!("{}: {reason}", place.path.display()));
            return None;
        }
        Cache::create(place, &boot).inspect_err(|error| refusals.push(error.to_string())).ok()
    });
    let Some(cache) = usable else { return Err(BootError::NoPlace(refusals.join("; "))) };
    let (stop, _watching) = Stop::watch(arguments);
    let store = FileStore::new(pex.path.parent().unwrap_or(Path::new("/")));
    let means =
        Means { store: &store, threads: settings.threads(), stall_timeout: settings.stall_timeout, stop: &stop };
    let layers = extract(pex, plan, &cache, &means)?;
    trace.mark(Phase::Extract);
    let manifest = manifest_of(plan, &found.job, layers);
    let description = Description {
        format: 1,
        name: found.job.name.clone(),
        environment: pex.identity,
        store: found.job.store.clone(),
        python: choice.identity.path.display().to_string(),
        version: choice.version,
    };
    let tree = Tree {
        key: &key,
        manifest: &manifest,
        manifest_bytes: &manifest.to_bytes(),
        python: &python,
        description: &description,
        overlays: &[],
    };
    let (environment, _) = ensure_tree(&cache, &tree, &means, trace)?;
    Ok(ready(cache, key, environment))
}

/// Extracts every layer, names it by its content and publishes it. Tells the contents, and how many files each has.
fn extract(pex: &Pex, plan: &Plan, cache: &Cache, means: &Means<'_>) -> Result<Vec<(String, Digest, u64)>, BootError> {
    let failed = |source| BuildError::Cache { path: cache.root().into(), source };
    let staging = cache.staging().map_err(failed)?;
    let outer = staging.subdirectory("outer").map_err(failed)?;
    let all = staging.subdirectory("pex").map_err(failed)?;
    let files = match &pex.root {
        Root::Zip(archive) if pex.is_nested() => {
            unzip(archive, &outer, means, &|name| Some(name.to_vec()))?;
            file::directory_files(&outer, &pex.info)?
        }
        Root::Zip(archive) => Files { archives: vec![archive.clone()], plain: Vec::new() },
        Root::Directory => file::directory_files(&pex.path, &pex.info)?,
    };
    let places = plan::places(&files, plan).map_err(|source| PexError::Name { path: pex.path.clone(), source })?;
    let mut parts = Vec::new();
    for (index, archive) in files.archives.iter().enumerate() {
        let part = all.join(index.to_string());
        fs::create_dir(&part).map_err(failed)?;
        unzip(archive, &part, means, &|name| {
            let (layer, path) = places.get(&*[archive.prefix.as_slice(), name].concat())?;
            Some([format!("{layer}/").as_bytes(), path.as_bytes()].concat())
        })?;
        parts.push(part);
    }
    let part = all.join("plain");
    copy(&files, &places, &part).map_err(failed)?;
    parts.push(part);
    let mut layers = Vec::new();
    for (index, name) in plan.layers.iter().enumerate() {
        let Some(files) = parts.iter().map(|part| part.join(index.to_string())).find(|path| path.is_dir()) else {
            continue;
        };
        let count = places.values().filter(|(layer, _)| *layer == index).count() as u64;
        layers.push((name.clone(), publish(&files, cache, &staging, means).map_err(failed)?, count));
    }
    Ok(layers)
}

/// Extracts those entries of a zip that `select` has a path for.
fn unzip(
    archive: &Archive,
    into: &Path,
    means: &Means<'_>,
    select: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), BuildError> {
    let (source, size) = FileSource::open(&archive.path)?;
    let into = File::open(into).map_err(|source| BuildError::Cache { path: into.into(), source })?;
    let name = archive.path.display().to_string();
    let task = ZipTask { name, source: Box::new(source), size, into: OwnedFd::from(into) };
    let limits = Limits { threads: means.threads, ..Limits::default() };
    let select = |entry: &Entry| select(&entry.name).filter(|_| !entry.is_directory());
    let stats = extract_zip(task, &select, &limits, means.stop.flag());
    stats.map(|_| ()).map_err(|failure| BuildError::Extract(Box::new(failure)))
}

/// Copies the plain files of a PEX below `root`.
fn copy(files: &Files, places: &Places, root: &Path) -> io::Result<()> {
    for (name, source) in &files.plain {
        let Some((layer, path)) = places.get(name) else { continue };
        let target = root.join(layer.to_string()).join(path);
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        fs::copy(source, &target)?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o100 != 0;
        fs::set_permissions(&target, Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
    }
    Ok(())
}

/// Publishes the files of a layer under the digest of their content.
fn publish(files: &Path, cache: &Cache, staging: &Staging, means: &Means<'_>) -> io::Result<Digest> {
    relocate_scripts(files)?;
    let content = content_of(files, means.threads, &|| {})?;
    let staged = Cache::stage_layer(staging, &content)?;
    fs::remove_dir(staged.files())?;
    fs::rename(files, staged.files())?;
    seal_directories(staged.files())?;
    let size = size_of(staged.files())?;
    cache.publish_layer(&staged, size)?;
    Ok(content)
}

/// Bytes of all files below `directory`.
fn size_of(directory: &Path) -> io::Result<u64> {
    let mut size = 0;
    for item in fs::read_dir(directory)? {
        let item = item?;
        let stat = item.metadata()?;
        size += if stat.is_dir() { size_of(&item.path())? } else { stat.len() };
    }
    Ok(size)
}

/// The first lines that make a script run by the Python beside it, wherever it lies.
const RELOCATABLE: &str =
    "#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n";

/// Gives scripts that begin with `#!python`, as wheels have them, a first line that works.
fn relocate_scripts(files: &Path) -> io::Result<()> {
    let bin = files.join("bin");
    if !bin.is_dir() {
        return Ok(());
    }
    for script in fs::read_dir(bin)? {
        let path = script?.path();
        let bytes = fs::read(&path)?;
        let Some(rest) = bytes.strip_prefix(b"#!python") else { continue };
        let body = rest.iter().position(|b| *b == b'\n').and_then(|at| rest.get(at + 1..)).unwrap_or_default();
        fs::remove_file(&path)?;
        fs::write(&path, [RELOCATABLE.as_bytes(), body].concat())?;
        fs::set_permissions(&path, Permissions::from_mode(0o555))?;
    }
    Ok(())
}

/// The manifest of what was extracted: its layers have no archives, being in the cache.
fn manifest_of(plan: &Plan, job: &Job, layers: Vec<(String, Digest, u64)>) -> Manifest {
    let layer = |(name, content, files): (String, Digest, u64)| Layer {
        kind: if plan.layers.last() == Some(&name) { LayerKind::Unowned } else { LayerKind::Distribution },
        name: name.split('-').next().unwrap_or_default().to_owned(),
        version: name.split('-').nth(1).unwrap_or_default().to_owned(),
        content,
        archive: manifest::Archive { digest: content, size: 0, unpacked: 0, files, directory: 0, pieces: Vec::new() },
        imports: Vec::new(),
        needs: Vec::new(),
        rank: 0,
        first: Vec::new(),
    };
    Manifest {
        format: manifest::FORMAT,
        requires: Vec::new(),
        python: manifest::Python {
            version: job.interpreter.version.clone(),
            soabi: job.interpreter.soabi.clone(),
            platform: format!("linux-{}", std::env::consts::ARCH),
            least_glibc: None,
        },
        layers: layers.into_iter().map(layer).collect(),
        entry_points: Vec::new(),
    }
}
