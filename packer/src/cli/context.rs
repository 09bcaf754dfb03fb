//! [`Context`]: settings, and the environment, store, cache and voice that they select.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cpack_discover::selection::{Selection, merge};
use cpack_discover::system::{self, SystemPackages};
use cpack_discover::{self, ActivePrefix, ActiveVariables, DiscoverOptions, Environment};
use cpack_format::Digest;
use cpack_format::job::{Conda, Start};
use cpack_format::manifest::Manifest;
use cpack_layer::archive::DEFAULT_LEVEL;
use cpack_store::{Key, Store, StoreOptions, StoreUri, Watcher, cluster_properties, open};
use cpack_unpack::{Archive, declared_variables};

use crate::activation::{Activation, activation};
use crate::assemble;
use crate::cache::ClientCache;
use crate::cli::arguments::{Common, JobArguments, SystemSitePackages};
use crate::cli::error::CommandError;
use crate::cli::output::{Voice, bytes, count, seconds};
use crate::cli::report;
use crate::launcher::{self, LauncherError};
use crate::pex;
use crate::publish::{NameRecord, Publisher};
use crate::requirements::{self, Machine};
use crate::submit::{EntryRequest, JobRequest, Submission, submit, total_size};
use crate::unpack_archive::{self, UnpackArchiveError};

/// A variable whose name contains one of these words probably has a secret value.
const SECRET_WORDS: [&str; 6] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY"];

/// The settings of one run of `cluster-pack` or `cpack-bench`.
#[derive(Debug)]
pub struct Context {
    /// The flags that all commands share.
    pub common: Common,
    /// Shows messages and the answer.
    pub voice: Voice,
    /// The client's cache, kept between runs.
    pub cache: ClientCache,
}

impl Context {
    /// Takes the client's cache and the voice from `common`, or from the variables of the process.
    pub(super) fn new(common: Common) -> Result<Self, CommandError> {
        let voice = Voice::new(common.quiet, common.verbose, common.json);
        let cache = match &common.client_cache {
            Some(path) => ClientCache::new(absolute(path)?),
            None => ClientCache::of_user(|name: &str| variable(name).map(PathBuf::from)).ok_or_else(|| {
                CommandError::Usage("no place for the client's cache: set HOME or pass --client-cache PATH".into())
            })?,
        };
        Ok(Self { common, voice, cache })
    }

    /// A context whose environment is that of an archive, PEX or wheelhouse, and a job that starts the PEX's entry point unless
    /// `job` has an entry.
    pub(super) fn of_artifact(&self, path: &Path, job: &JobArguments) -> Result<(Self, JobArguments), CommandError> {
        let Some(archive) = Archive::open(path).map_err(UnpackArchiveError::from)? else {
            return self.of_pex(path, path, job);
        };
        if let Some(wheels) = unpack_archive::unpack_wheels(&archive, &self.cache)? {
            return self.of_pex(&wheels, path, job);
        }
        let name = file_stem(&path.with_extension(""));
        let search = std::env::var_os("PATH");
        let prefix = unpack_archive::unpack(&archive, &name, &self.cache, search.as_deref())?;
        Ok((self.of_prefix(prefix, path), job.clone()))
    }

    /// The same for a PEX or wheelhouse, which was unpacked from `path` if that is a tar.
    fn of_pex(&self, pex: &Path, path: &Path, job: &JobArguments) -> Result<(Self, JobArguments), CommandError> {
        let unpacked = pex::unpack::unpack(pex, &self.cache, std::env::var_os("PATH").as_deref())?;
        if unpacked.has_preamble {
            self.voice.warn(format!(
                "{} has a preamble (--preamble-file), which jobs made of it do not run: start the PEX itself where that matters",
                path.display()
            ));
        }
        let mut job = job.clone();
        if unpacked.has_entry && job.module.is_none() && job.script.is_none() && job.payload.is_none() {
            job.module = Some(pex::unpack::MAIN.into());
        }
        Ok((self.of_prefix(unpacked.prefix, path), job))
    }

    /// A context whose environment is at `prefix` and was made of the file at `path`, whose name it has.
    fn of_prefix(&self, prefix: PathBuf, path: &Path) -> Self {
        let name = self.common.name.clone().unwrap_or_else(|| file_stem(&path.with_extension("")));
        let common = Common { venv: Some(prefix), name: Some(name), ..self.common.clone() };
        Self { common, voice: self.voice, cache: self.cache.clone() }
    }

    /// The store of `--store`, otherwise the one in the client's cache.
    pub fn store(&self) -> Result<Box<dyn Store>, CommandError> {
        match &self.common.store {
            Some(text) => self.open_store(text),
            None => self.own_store(),
        }
    }

    /// Warns if no store is named, since other machines do not see the one in this machine's cache.
    pub fn warn_of_own_store(&self) {
        if self.common.store.is_none() {
            self.voice.warn(
                "no store is named, and other machines do not see the one of this machine's cache: name one that they see by --store or \
                 CPACK_STORE",
            );
        }
    }

    pub(super) fn own_store(&self) -> Result<Box<dyn Store>, CommandError> {
        self.open_store(&self.cache.default_store().to_string_lossy())
    }

    /// Opens the store at `text`, a URI or a directory.
    pub fn open_store(&self, text: &str) -> Result<Box<dyn Store>, CommandError> {
        self.open_uri(text.parse()?)
    }

    pub(super) fn open_uri(&self, uri: StoreUri) -> Result<Box<dyn Store>, CommandError> {
        Ok(open(&self.full_uri(uri)?, &self.store_options())?)
    }

    /// The URI with an absolute path, where it is of a directory.
    pub(super) fn full_uri(&self, uri: StoreUri) -> Result<StoreUri, CommandError> {
        Ok(match uri.as_directory() {
            Some(directory) => StoreUri::directory(&absolute(&directory)?),
            None => uri,
        })
    }

    pub(super) fn store_options(&self) -> StoreOptions {
        let options = StoreOptions::of_process(BTreeMap::new());
        let replication = self.common.replication.map_or(options.replication, |n| Some(n).filter(|n| *n > 0));
        StoreOptions { replication, ..options }
    }

    /// Discovers the environment that the settings name and says its warnings.
    pub fn environment(&self) -> Result<Environment, CommandError> {
        self.environment_of(true)
    }

    /// The same, as what is made of distributions alone can hold it: no conda packages.
    pub(super) fn distributions(&self) -> Result<Environment, CommandError> {
        self.environment_of(false)
    }

    fn environment_of(&self, whole_conda: bool) -> Result<Environment, CommandError> {
        let start = Instant::now();
        let mut environment = self.discovered(whole_conda)?;
        let Common { only, ignore, with_dependencies, .. } = self.common.clone();
        let selection = Selection { only, ignore, with_dependencies };
        selection.apply(&mut environment)?;
        for finding in &environment.warnings {
            self.voice.warn(finding.to_string());
        }
        self.voice.detail(format!(
            "found {} with {} in {} ({})",
            contents(&environment),
            count(environment.files().count(), "file"),
            environment.prefix.display(),
            seconds(start.elapsed()),
        ));
        Ok(environment)
    }

    /// The environment of the requirements files, otherwise the one at the prefix that is named or active, with what
    /// `--add` names merged in.
    fn discovered(&self, whole_conda: bool) -> Result<Environment, CommandError> {
        let _event = cpack_events::span("discover", || "environment".into());
        let machine = Machine {
            path: std::env::var_os("PATH"),
            home: std::env::var_os("HOME").map(PathBuf::from),
            conda: ["MAMBA_EXE", "CONDA_EXE"].into_iter().filter_map(variable).map(PathBuf::from).collect(),
            cache_dir: self.cache.root().to_owned(),
        };
        let request = self.requirements();
        let heard = |line: &str| self.voice.detail(line);
        if !request.files.is_empty() {
            let prepared = requirements::prepare(&request, &machine, &heard)?;
            self.voice.detail(if prepared.reused {
                "requirements resolve to what they did"
            } else {
                "requirements installed"
            });
            let mut environment = prepared.discover(self.cache.root(), whole_conda)?;
            let request = requirements::Request { files: Vec::new(), ..request };
            if prepared.is_conda && !request.requirements.is_empty() {
                self.add(&mut environment, &request, &machine)?;
            }
            return Ok(environment);
        }
        let ActivePrefix { prefix, is_of_project } =
            cpack_discover::active_prefix(self.common.venv.as_deref(), &ActiveVariables::from_env())?;
        if is_of_project {
            self.voice.say(format!("using the project's environment {}", prefix.display()));
        }
        let options = DiscoverOptions { whole_conda, cache_dir: self.cache.root().to_owned(), python: None };
        let mut environment = cpack_discover::discover(&prefix, &options)?;
        system::apply(&mut environment, self.system_packages()?, &options)?;
        if !request.requirements.is_empty() {
            self.add(&mut environment, &request, &machine)?;
        }
        Ok(environment)
    }

    /// Merges in what `request` names and `environment` lacks.
    fn add(
        &self,
        environment: &mut Environment,
        request: &requirements::Request,
        machine: &Machine,
    ) -> Result<(), CommandError> {
        let added = requirements::additions(environment, request, machine, &|line| self.voice.detail(line))?;
        if let Some(added) = added {
            merge(environment, added.discover(self.cache.root(), false)?);
        }
        Ok(())
    }

    /// What becomes of the packages of the base interpreter.
    fn system_packages(&self) -> Result<SystemPackages, CommandError> {
        match self.common.system_site_packages {
            None | Some(SystemSitePackages::Hide) => Ok(SystemPackages::Hide),
            Some(SystemSitePackages::Pack) => Ok(SystemPackages::Pack),
            Some(SystemSitePackages::Node) if self.common.with_python => Err(CommandError::Usage(
                "--system-site-packages node needs the node's Python, and --with-python ships another: choose pack, or \
                 leave --with-python out"
                    .into(),
            )),
            Some(SystemSitePackages::Node) => Ok(SystemPackages::Node),
        }
    }

    fn requirements(&self) -> requirements::Request {
        let resolution = &self.common.resolution;
        let options = requirements::Options {
            index_url: resolution.index_url.clone(),
            extra_index_urls: resolution.extra_index_url.clone(),
            find_links: resolution.find_links.clone(),
            python_version: resolution.python_version.clone(),
            python_platform: resolution.python_platform.clone(),
        };
        requirements::Request {
            files: self.common.requirements.clone(),
            requirements: self.common.add.clone(),
            options,
        }
    }

    /// The name to publish under.
    pub fn name(&self, environment: &Environment) -> Result<String, CommandError> {
        let name = match (&self.common.name, self.common.requirements.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => {
                requirements::environment_name(file).map_or_else(|| file_stem(file), |name| sanitised(&name))
            }
            (None, None) => environment_name(&environment.prefix),
        };
        Key::name(&name, "json").map_err(|e| CommandError::Usage(format!("--name {e}")))?;
        Ok(name)
    }

    /// Publishes `environment` to `store` with a progress bar, and says what was sent.
    pub(super) fn submit(
        &self,
        environment: &Environment,
        store: &dyn Store,
        job: &JobRequest,
        repair: bool,
    ) -> Result<Submission, CommandError> {
        let level = self.common.level.unwrap_or(DEFAULT_LEVEL);
        let bar = self.voice.bar(total_size(environment), "packing");
        let sent = AtomicU64::new(0);
        let sending = |more| {
            let sent = sent.fetch_add(more, Ordering::Relaxed) + more;
            bar.set_message(format!("packing, {} sent", bytes(sent)));
        };
        let publisher = Publisher { store, cache: &self.cache, repair, sending: Watcher(&sending) };
        let options = assemble::Options { with_python: self.common.with_python, level };
        let cluster = cluster_properties(store.uri(), &self.store_options())?;
        let conda = if environment.is_whole_conda() { self.activation(environment) } else { Conda::default() };
        let job = &JobRequest { cluster, conda, ..job.clone() };
        let submission = submit(environment, &publisher, &options, job, &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        let submission = submission?;
        report::say(self.voice, &submission, store.uri(), &environment.prefix);
        Ok(submission)
    }

    /// What activating a conda environment does. Says which scripts a shell must run at each start.
    fn activation(&self, environment: &Environment) -> Conda {
        let name = match self.common.requirements.is_empty() {
            true => environment_name(&environment.prefix),
            false => self.name(environment).unwrap_or_default(),
        };
        let Activation { conda, at_start } = activation(&environment.prefix, name);
        if !at_start.is_empty() {
            self.voice.say(format!("a shell runs the activation scripts at each start: {}", at_start.join(", ")));
        }
        for name in conda.set.keys().filter(|name| is_secret(name)) {
            self.voice.warn(format!(
                "the value of {name}, which activating the environment sets, is written into the job; remove it with `conda env \
                 config vars unset {name}` and pass `--env {name}` to make the executor supply it"
            ));
        }
        conda
    }

    /// Says what is to be known of an archive of a conda environment, of which so many files hold a placeholder of its path.
    pub(super) fn say_of_conda(&self, environment: &Environment, placeholders: usize) {
        if placeholders > 0 {
            self.voice.say(format!(
                "{} of conda packages name the environment's path: bin/conda-unpack writes it where they matter, cpack-boot by itself",
                count(placeholders, "file")
            ));
        }
        for name in declared_variables(&environment.prefix).keys().filter(|name| is_secret(name)) {
            self.voice.warn(format!(
                "the value of {name}, which activating the environment sets, is in the archive; remove it with `conda env config \
                 vars unset {name}`"
            ));
        }
    }

    /// Reads the boot executable and checks that it can open `store`. Called before packing, which may take minutes.
    pub(super) fn boot(&self, store: &dyn Store) -> Result<Vec<u8>, CommandError> {
        let path = self.boot_path()?;
        let boot = launcher::read_boot(&path)?;
        let scheme = store.uri().scheme.name();
        if launcher::opens(&boot, scheme) { Ok(boot) } else { Err(LauncherError::NoStore { path, scheme }.into()) }
    }

    /// The path of that executable.
    pub(super) fn boot_path(&self) -> Result<PathBuf, LauncherError> {
        let program = std::env::current_exe().and_then(|p| p.canonicalize()).ok();
        launcher::find_boot(self.common.boot.as_deref(), program.as_deref())
    }

    pub(super) fn job(&self, arguments: &JobArguments, name: String) -> JobRequest {
        let start = arguments.start.start.map_or(Start::default(), Start::from);
        let mut job = JobRequest { name, no_editable: arguments.no_editable, start, ..JobRequest::default() };
        job.entry = match (&arguments.module, &arguments.script, &arguments.payload) {
            (Some(module), _, _) => EntryRequest::Module(module.clone()),
            (_, Some(script), _) => EntryRequest::Script(script.clone()),
            (_, _, Some(payload)) => EntryRequest::Payload(payload.clone()),
            _ => EntryRequest::Interpreter,
        };
        for assignment in &arguments.environ {
            match assignment.split_once('=') {
                Some((name, value)) => {
                    if is_secret(name) {
                        self.voice.warn(format!(
                            "the value of {name} is written into the job; `--env {name}` alone makes the executor supply it"
                        ));
                    }
                    job.environ.insert(name.to_owned(), value.to_owned());
                }
                None => job.pass.push(assignment.clone()),
            }
        }
        job
    }
}

/// The record under the name of the environment with this manifest; `launcher` is the digest of its job.
pub(super) fn record_of(manifest: &Manifest, environment: Digest, launcher: Option<Digest>) -> NameRecord {
    NameRecord {
        format: 1,
        environment,
        launcher,
        package_installed: crate::manifest::distributions(manifest)
            .map(|l| format!("{}=={}", l.name, l.version))
            .collect(),
        platform: manifest.python.platform.clone(),
        python_version: manifest.python.version.clone(),
    }
}

/// What is installed: `12 conda packages and 3 distributions`.
pub(super) fn contents(environment: &Environment) -> String {
    let distributions = count(environment.distributions.len(), "distribution");
    match environment.packages.len() {
        0 => distributions,
        packages => format!("{} and {distributions}", count(packages, "conda package")),
    }
}

/// Whether the name of a variable is that of a secret.
fn is_secret(name: &str) -> bool {
    SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word))
}

/// A variable of this process, if it is set and not empty.
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Makes `path` absolute against the working directory.
pub fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(CommandError::io("find", path))
}

fn file_stem(path: &Path) -> String {
    sanitised(&path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The name of the environment's directory; for `.venv`, `venv`, `env` and `.env` the name of the project's directory.
fn environment_name(prefix: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let own = name(prefix);
    let generic = matches!(own.as_str(), ".venv" | "venv" | "env" | ".env");
    sanitised(&if generic { prefix.parent().map(name).unwrap_or(own) } else { own })
}

fn sanitised(name: &str) -> String {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-+=@".contains(c) { c } else { '-' }).collect();
    let safe = safe.trim_start_matches('.');
    if safe.is_empty() { "environment".into() } else { safe.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_name_is_that_of_the_project() {
        for (prefix, name) in [("/p/my project/.venv", "my-project"), ("/p/envs/torch", "torch"), ("/", "environment")]
        {
            assert_eq!(environment_name(Path::new(prefix)), name, "{prefix}");
        }
    }
}
