//! From PEX files to an environment in the node cache.
//!
//! Those who start the same PEX at once wait for the first ([`wait`]), unless it stands still.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpack_artifact::Digest;
use cpack_artifact::job::{self, Interpreter, Job};
use cpack_artifact::manifest::{self, Layer, LayerKind, Manifest};
use cpack_artifact::pex::file::{Archive, Files, Metadata, Root};
use cpack_artifact::pex::finish::finish;
use cpack_artifact::pex::places::{self as placing, Part, Places, console_scripts};
use cpack_artifact::pex::{Pex, PexError};
use cpack_artifact::store::FileStore;
use cpack_artifact::zip::Entry;

use super::SCRIPTS;
use super::python::{self, Chosen};
use super::reason::Reason;
use super::setup::{Inherit, Setup, Variables};
use crate::boot::Ready;
use crate::build::{BuildError, Means, Tree, ensure_tree};
use crate::cache::{
    BootId, Cache, Claim, Claimed, Description, Environment, Found as InCache, Staging, content_of, places,
    seal_directories,
};
use crate::environment::Python;
use crate::error::BootError;
use crate::extract::{FileSource, Limits, ZipTask, extract_zip};
use crate::interpreter::{Identity, environment_key, minor};
use crate::job::{Found, Origin};
use crate::settings::Settings;
use crate::trace::{Phase, Trace};
use crate::watch::Stop;

/// The module that arranges `sys.path`, and what makes Python import it.
const INHERIT: (&str, &str) = ("_cpack_pex.py", include_str!("inherit.py"));
const INHERIT_PTH: (&str, &str) = ("_cpack_pex.pth", "import _cpack_pex\n");

/// Where Python keeps byte-code.
const BYTE_CODE: &str = "__pycache__";

/// How often a claim tells that its holder is alive.
const BEAT: Duration = Duration::from_millis(500);

/// The job that a PEX stands for.
pub(super) fn job(setup: &Setup) -> Found {
    let pex = setup.pex();
    let job = Job {
        format: job::FORMAT,
        requires: Vec::new(),
        name: pex.path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        environment: setup.identity,
        store: format!("file:{}", pex.path.display()),
        interpreter: Interpreter { path: String::new(), version: String::new(), soabi: String::new(), shipped: false },
        overlays: Vec::new(),
        entry: job::Entry::Interpreter,
        environ: BTreeMap::new(),
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

/// The name of the environment for one interpreter.
fn key_for(setup: &Setup, identity: &Identity) -> String {
    environment_key(&setup.identity, "", "", Some(identity))
}

/// Looks for the environment in all caches: the warm path.
pub(super) fn look(setup: &Setup, variables: &Variables, settings: &Settings) -> Option<Ready> {
    let boot = BootId::current();
    let cwd = std::env::current_dir().ok();
    let mut caches: Vec<Cache> =
        places(&settings.places, cwd.as_deref()).iter().filter_map(|place| Cache::open(place, &boot).ok()).collect();
    python::identities(setup, variables, settings).find_map(|identity| {
        let key = key_for(setup, &identity);
        let found = caches.iter().enumerate().find_map(|(at, cache)| match cache.find_environment(&key) {
            InCache::Ready(environment) => Some((at, environment)),
            InCache::Stale | InCache::Missing => None,
        });
        found.map(|(at, environment)| ready(caches.swap_remove(at), key, environment))
    })
}

/// Builds the environment in the first place that can be had; or tells why the PEX is handed over.
pub(super) fn build(
    setup: &Setup,
    variables: &Variables,
    settings: &Settings,
    arguments: &[OsString],
    trace: &mut Trace,
) -> Result<Result<Ready, Reason>, BootError> {
    let cache = cache(settings)?;
    let (stop, _watching) = Stop::watch(arguments);
    let store = FileStore::new(setup.pex().path.parent().unwrap_or(Path::new("/")));
    let means =
        Means { store: &store, threads: settings.threads(), stall_timeout: settings.stall_timeout, stop: &stop };
    let failed = |source| BuildError::Cache { path: cache.root().into(), source };
    let staging = cache.staging().map_err(failed)?;
    let source = Source::open(setup, &staging, &means)?;
    let chosen = match python::choose(setup, &source.metadata, variables, settings) {
        Ok(chosen) => chosen,
        Err(reason) => return Ok(Err(reason)),
    };
    trace.mark(Phase::Plan);
    let key = key_for(setup, &chosen.choice.identity);
    let claimed = match wait(&cache, &key, &means)? {
        Waited::There(environment) => {
            trace.mark(Phase::Wait);
            return Ok(Ok(ready(cache, key, environment)));
        }
        Waited::Ours(claimed) => claimed,
    };
    trace.mark(Phase::Wait);
    let (done, work) = (AtomicBool::new(false), Work { setup, source: &source, chosen: &chosen, cache: &cache });
    let layers = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                claimed.progress();
                std::thread::park_timeout(BEAT);
            }
        });
        let layers = work.layers(&staging, &means);
        done.store(true, Ordering::Relaxed);
        layers
    });
    let layers = match layers? {
        Ok(layers) => layers,
        Err(reason) => return Ok(Err(reason)),
    };
    trace.mark(Phase::Extract);
    trace.counts.built += layers.len() as u64;
    let environment = put_up(setup, &chosen, &key, &cache, layers, &means, trace)?;
    drop(claimed);
    Ok(Ok(ready(cache, key, environment)))
}

pub(super) fn cache(settings: &Settings) -> Result<Cache, BootError> {
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
    usable.ok_or_else(|| BootError::NoPlace(refusals.join("; ")))
}

enum Waited {
    There(Environment),
    Ours(Claimed),
}

/// Waits until the environment is there, or nobody extracts it, or whoever does stands still.
fn wait(cache: &Cache, key: &str, means: &Means<'_>) -> Result<Waited, BuildError> {
    let name = format!("{key}.pex");
    let mut watched = cache.watch(&name);
    loop {
        let claim = cache.claim(&name);
        if let InCache::Ready(environment) = cache.find_environment(key) {
            return Ok(Waited::There(environment));
        }
        if let Claim::Ours(claimed) = claim {
            return Ok(Waited::Ours(claimed));
        }
        if watched.is_stalled(means.stall_timeout) {
            return Ok(Waited::Ours(Claimed::without_lock()));
        }
        if means.stop.is_set() {
            return Err(BuildError::Stopped(means.stop.reason()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The files of all PEX files, nested ones unzipped.
struct Source {
    files: Vec<Files>,
    metadata: Vec<BTreeMap<String, Metadata>>,
}

impl Source {
    fn open(setup: &Setup, staging: &Staging, means: &Means<'_>) -> Result<Self, BootError> {
        let (mut files, mut metadata) = (Vec::new(), Vec::new());
        for (index, pex) in setup.pexes.iter().enumerate() {
            let mut unzipped = None;
            if let (true, Root::Zip(archive)) = (pex.is_nested(), &pex.root) {
                let failed = |source| BuildError::Cache { path: pex.path.clone(), source };
                let outer = staging.subdirectory(&format!("outer-{index}")).map_err(failed)?;
                unzip(archive, &outer, means, &|name| Some(name.to_vec()))?;
                unzipped = Some(outer);
            }
            let found = pex.files(unzipped.as_deref())?;
            metadata.push(found.metadata(pex)?);
            files.push(found);
        }
        Ok(Self { files, metadata })
    }
}

/// One layer that is in the cache: its part, content, and how many files it has.
struct Built {
    part: Part,
    content: Digest,
    files: u64,
}

/// Everything that extraction needs to know.
struct Work<'a> {
    setup: &'a Setup,
    source: &'a Source,
    chosen: &'a Chosen,
    cache: &'a Cache,
}

impl Work<'_> {
    /// Extracts every part, names it by its content and publishes it.
    fn layers(&self, staging: &Staging, means: &Means<'_>) -> Result<Result<Vec<Built>, Reason>, BootError> {
        let failed = |source| BuildError::Cache { path: self.cache.root().into(), source };
        let (pexes, minor) = (&self.setup.pexes, minor(&self.chosen.choice.version));
        let parts = placing::parts(pexes, &self.chosen.active, self.setup.order());
        if let Some(project) = two_versions(&parts) {
            return Ok(Err(Reason::Versions(project)));
        }
        let named = |source| PexError::Name { path: self.setup.pex().path.clone(), source };
        let places = placing::places(pexes, &self.source.files, &parts, minor).map_err(named)?;
        if let (false, Some(name)) = (self.setup.venv, self.shadow(&parts, &places, minor)) {
            return Ok(Err(Reason::Shadows(name)));
        }
        let all = staging.subdirectory("pex").map_err(failed)?;
        for (files, places) in self.source.files.iter().zip(&places) {
            for archive in &files.archives {
                unzip(archive, &all, means, &|name| {
                    let (part, path) = places.get(&*[archive.prefix.as_slice(), name].concat())?;
                    Some([format!("{part}/").as_bytes(), path.as_bytes()].concat())
                })?;
            }
            copy(files, places, &all).map_err(failed)?;
        }
        self.own_files(&all, &parts, minor).map_err(failed)?;
        let mut built = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let root = all.join(index.to_string());
            if !root.is_dir() {
                continue;
            }
            if let Some(wheel) = &part.wheel {
                let is_wheel_file = pexes.get(part.pex).is_some_and(|pex| pex.info.deps_are_wheel_files);
                finish(&root, wheel, is_wheel_file, minor).map_err(failed)?;
            }
            byte_code_directories(&root.join(format!("lib/python{minor}/site-packages"))).map_err(failed)?;
            let files = places.iter().flat_map(|places| places.values()).filter(|(at, _)| *at == index).count() as u64;
            let content = publish(&root, self.cache, staging, means).map_err(failed)?;
            built.push(Built { part, content, files });
        }
        Ok(Ok(built))
    }

    /// The name of a module of the user that hides one of the standard library from Python.
    fn shadow(&self, parts: &[Part], places: &[Places], minor: &str) -> Option<String> {
        let python = &self.chosen.choice.identity.path;
        let library = python.parent()?.parent()?.join(format!("lib/python{minor}"));
        let site = format!("lib/python{minor}/site-packages/");
        let is_code = |part: &usize| parts.get(*part).is_some_and(|part| part.wheel.is_none());
        let code = places.iter().flat_map(|places| places.values()).filter(|(part, _)| is_code(part));
        let names = code.filter_map(|(_, path)| {
            let below = path.as_bytes().strip_prefix(site.as_bytes())?;
            let first = String::from_utf8_lossy(below.split(|b| *b == b'/').next()?).into_owned();
            let is_directory = first.len() < below.len();
            (is_directory || first.ends_with(".py")).then_some(first)
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().find(|name| {
            let module = name.strip_suffix(".py").unwrap_or(name);
            module != "site-packages"
                && (library.join(format!("{module}.py")).exists() || library.join(module).join("__init__.py").exists())
        })
    }

    /// What the environment has beside the files of the PEX: its scripts by name, and what arranges the path.
    fn own_files(&self, all: &Path, parts: &[Part], minor: &str) -> io::Result<()> {
        let code = parts.iter().position(|part| *part == Part { pex: 0, wheel: None });
        let root = all.join(code.unwrap_or(0).to_string());
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o444))
        };
        let mut scripts = BTreeMap::new();
        for (active, metadata) in self.chosen.active.iter().zip(&self.source.metadata) {
            for (name, target) in console_scripts(active.iter().map(String::as_str), metadata) {
                scripts.entry(name).or_insert(target);
            }
        }
        write(root.join(SCRIPTS), &serde_json::to_string(&scripts).unwrap_or_default())?;
        if self.setup.inherit != Inherit::Nothing || self.setup.extra {
            let site = root.join(format!("lib/python{minor}/site-packages"));
            let text = INHERIT.1.replace("@INHERIT@", &format!("{:?}", self.setup.inherit));
            write(site.join(INHERIT.0), &text.replace("@VENV@", &self.setup.venv.to_string()))?;
            write(site.join(INHERIT_PTH.0), INHERIT_PTH.1)?;
        }
        Ok(())
    }
}

/// Gives directories with modules, but without byte-code, a place for it. Upstream's PEX files travel without.
fn byte_code_directories(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut has_modules = false;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            byte_code_directories(&entry.path())?;
        } else {
            has_modules |= entry.path().extension().is_some_and(|extension| extension == "py");
        }
    }
    let cache = directory.join(BYTE_CODE);
    if has_modules && !cache.exists() { fs::create_dir(cache) } else { Ok(()) }
}

/// Lets Python write byte-code into the empty places for it: each file is written beside its place and renamed.
fn open_byte_code(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        if entry.file_name() == BYTE_CODE && fs::read_dir(&path)?.next().is_none() {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        } else {
            open_byte_code(&path)?;
        }
    }
    Ok(())
}

/// A project of which two PEX files have different wheels.
fn two_versions(parts: &[Part]) -> Option<String> {
    let project =
        |wheel: &str| wheel.split('-').next().unwrap_or_default().to_ascii_lowercase().replace(['.', '_'], "-");
    let mut seen = BTreeMap::new();
    parts.iter().filter_map(|part| part.wheel.as_deref()).find_map(|wheel| {
        let name = project(wheel);
        seen.insert(name.clone(), wheel).map(|_| name)
    })
}

/// Extracts those entries of a zip that `select` has a path for.
fn unzip(
    archive: &Archive,
    into: &Path,
    means: &Means<'_>,
    select: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), BuildError> {
    let unreadable = |source| BuildError::Cache { path: archive.path.clone(), source };
    let file = File::open(&archive.path).map_err(unreadable)?;
    let source = FileSource::new(file, archive.path.clone(), archive.start);
    let into = File::open(into).map_err(|source| BuildError::Cache { path: into.into(), source })?;
    let name = archive.path.display().to_string();
    let task = ZipTask { name, source: Box::new(source), size: archive.size, into: OwnedFd::from(into) };
    let limits = Limits { threads: means.threads, ..Limits::default() };
    let select = |entry: &Entry| select(&entry.name).filter(|_| !entry.is_directory());
    let stats = extract_zip(task, &select, &limits, means.stop.flag());
    stats.map(|_| ()).map_err(|failure| BuildError::Extract(Box::new(failure)))
}

/// Copies the plain files of a PEX below `root`.
fn copy(files: &Files, places: &Places, root: &Path) -> io::Result<()> {
    for (name, source) in &files.plain {
        let Some((part, path)) = places.get(name) else { continue };
        let target = root.join(part.to_string()).join(path.as_path());
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        fs::copy(source, &target)?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o100 != 0;
        fs::set_permissions(&target, Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
    }
    Ok(())
}

/// Publishes the files of a layer under the digest of their content.
fn publish(files: &Path, cache: &Cache, staging: &Staging, means: &Means<'_>) -> io::Result<Digest> {
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

/// Puts up the tree of the layers.
fn put_up(
    setup: &Setup,
    chosen: &Chosen,
    key: &str,
    cache: &Cache,
    layers: Vec<Built>,
    means: &Means<'_>,
    trace: &mut Trace,
) -> Result<Environment, BootError> {
    let Found { job, .. } = job(setup);
    let (path, version) = (chosen.choice.identity.path.clone(), chosen.choice.version.clone());
    let manifest = manifest_of(setup, chosen, layers);
    let description = Description {
        format: 1,
        name: job.name,
        environment: setup.identity,
        store: job.store,
        python: path.display().to_string(),
        version: version.clone(),
    };
    let python = Python::Node { path, version };
    let tree = Tree {
        key,
        manifest: &manifest,
        manifest_bytes: &manifest.to_bytes(),
        python: &python,
        description: &description,
        overlays: &[],
    };
    let (environment, is_new) = ensure_tree(cache, &tree, means, trace)?;
    if is_new {
        // Without it modules are compiled at each start, which is slower and no fault.
        let _ = open_byte_code(&environment.path.join("lib"));
    }
    Ok(environment)
}

/// The manifest of what was extracted: its layers have no archives, being in the cache.
fn manifest_of(setup: &Setup, chosen: &Chosen, layers: Vec<Built>) -> Manifest {
    let layer = |built: Built| {
        let (kind, name, version) = match &built.part.wheel {
            None => (LayerKind::Unowned, title(&setup.pexes, built.part.pex), String::new()),
            Some(wheel) => {
                let mut parts = wheel.split('-').map(str::to_owned);
                (LayerKind::Distribution, parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
        };
        let digest = built.content;
        Layer {
            kind,
            name,
            version,
            content: digest,
            archive: manifest::Archive {
                digest,
                size: 0,
                unpacked: 0,
                files: built.files,
                directory: 0,
                pieces: Vec::new(),
            },
            imports: Vec::new(),
            needs: Vec::new(),
            rank: 0,
            first: Vec::new(),
        }
    };
    Manifest {
        format: manifest::FORMAT,
        requires: Vec::new(),
        python: manifest::Python {
            version: chosen.choice.version.clone(),
            soabi: chosen.soabi.clone(),
            platform: format!("linux-{}", std::env::consts::ARCH),
            least_glibc: None,
        },
        layers: layers.into_iter().map(layer).collect(),
        entry_points: Vec::new(),
    }
}

/// What the user's code in a PEX is called.
fn title(pexes: &[Pex], index: usize) -> String {
    let name = pexes.get(index).and_then(|pex| pex.path.file_name());
    name.map(|name| format!("code of {}", name.to_string_lossy())).unwrap_or_default()
}
