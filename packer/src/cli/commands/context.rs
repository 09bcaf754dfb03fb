//! Settings made into the values that commands work with: environment, store, caches, voice.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use cpack_artifact::Digest;
use cpack_artifact::events;
use cpack_artifact::store::{Key, Store, StoreOptions, StoreUri, Watcher, cluster_properties, open};

use super::CommandError;
use crate::assemble;
use crate::cache::ClientCache;
use crate::cli::arguments::{Common, JobArguments, SystemSitePackages};
use crate::cli::output::{Voice, bytes, count, seconds};
use crate::content::{prefix_text, script};
use crate::discover::selection::{Selection, merge};
use crate::discover::system::{self, SystemPackages};
use crate::discover::{self, ActivePrefix, ActiveVariables, DiscoverOptions, Environment};
use crate::launcher::{self, LauncherError};
use crate::layer::DEFAULT_LEVEL;
use crate::pex;
use crate::publish::{NameRecord, Publisher};
use crate::requirements::{self, Machine};
use crate::submit::{EntryRequest, JobRequest, Submission, default_cache, submit, total_size};

/// Variables whose names look as if their values were secret.
const SECRET_WORDS: [&str; 6] = ["SECRET", "TOKEN", "PASSWORD", "PASSWD", "CREDENTIAL", "PRIVATE_KEY"];

/// Settings and what they stand for.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) common: Common,
    pub(super) voice: Voice,
    pub(super) cache: ClientCache,
}

impl Context {
    pub(super) fn new(common: Common) -> Result<Self, CommandError> {
        let voice = Voice::new(common.quiet, common.verbose, common.json);
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = match &common.client_cache {
            Some(path) => ClientCache::new(absolute(path)?),
            None => default_cache(variable).ok_or_else(|| {
                CommandError::Usage("no place for the client's cache: set HOME or pass --client-cache PATH".into())
            })?,
        };
        Ok(Self { common, voice, cache })
    }

    /// The context in which a PEX stands for the environment, and a job that starts what the PEX starts, unless another entry
    /// was asked for.
    pub(super) fn of_pex(&self, path: &Path, job: &JobArguments) -> Result<(Self, JobArguments), CommandError> {
        let search = std::env::var_os("PATH");
        let unpacked = pex::unpack::unpack(path, &self.cache, search.as_deref())?;
        if unpacked.has_preamble {
            self.voice.warn(format!(
                "{} has a preamble (--preamble-file), which jobs made of it do not run: start the PEX itself where that matters",
                path.display()
            ));
        }
        let name = self.common.name.clone().unwrap_or_else(|| file_stem(&path.with_extension("")));
        let common = Common { venv: Some(unpacked.prefix), name: Some(name), ..self.common.clone() };
        let mut job = job.clone();
        if unpacked.has_entry && job.module.is_none() && job.script.is_none() && job.payload.is_none() {
            job.module = Some(pex::unpack::MAIN.into());
        }
        Ok((Self { common, voice: self.voice, cache: self.cache.clone() }, job))
    }

    /// The store that was named, else the one in the client's cache.
    pub(super) fn store(&self) -> Result<Box<dyn Store>, CommandError> {
        match &self.common.store {
            Some(text) => self.open_store(text),
            None => self.own_store(),
        }
    }

    /// The store in the client's cache.
    pub(super) fn own_store(&self) -> Result<Box<dyn Store>, CommandError> {
        self.open_store(&self.cache.default_store().to_string_lossy())
    }

    /// Opens the store at `text`, a URI or a directory.
    pub(super) fn open_store(&self, text: &str) -> Result<Box<dyn Store>, CommandError> {
        self.open_uri(text.parse()?)
    }

    /// Opens the store at `uri`.
    pub(super) fn open_uri(&self, uri: StoreUri) -> Result<Box<dyn Store>, CommandError> {
        let uri = match uri.as_directory() {
            Some(directory) => StoreUri::directory(&absolute(&directory)?),
            None => uri,
        };
        Ok(open(&uri, &self.store_options())?)
    }

    fn store_options(&self) -> StoreOptions {
        let options = StoreOptions::of_process(BTreeMap::new());
        let replication = self.common.replication.map_or(options.replication, |n| Some(n).filter(|n| *n > 0));
        StoreOptions { replication, ..options }
    }

    /// The environment that is asked for, with what should be known about it said.
    pub(super) fn environment(&self) -> Result<Environment, CommandError> {
        let start = Instant::now();
        let mut environment = self.found()?;
        let selection = Selection { only: self.common.only.clone(), ignore: self.common.ignore.clone() };
        selection.apply(&mut environment)?;
        for finding in &environment.warnings {
            self.voice.warn(finding.to_string());
        }
        let files: usize = environment.distributions.iter().map(|d| d.files.len()).sum();
        self.voice.detail(format!(
            "found {} with {} in {} ({})",
            count(environment.distributions.len(), "distribution"),
            count(files + environment.unowned.len(), "file"),
            environment.prefix.display(),
            seconds(start.elapsed()),
        ));
        Ok(environment)
    }

    /// What is installed: made of the requirements files, or at the prefix that is named or active, `--add` included.
    fn found(&self) -> Result<Environment, CommandError> {
        let _event = events::span("discover", || "environment".into());
        let machine = Machine {
            path: std::env::var_os("PATH"),
            home: std::env::var_os("HOME").map(PathBuf::from),
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
            return Ok(prepared.discover(self.cache.root())?);
        }
        let ActivePrefix { prefix, is_of_project } =
            discover::active_prefix(self.common.venv.as_deref(), &ActiveVariables::from_env())?;
        if is_of_project {
            self.voice.say(format!("using the project's environment {}", prefix.display()));
        }
        let options = DiscoverOptions { cache_dir: self.cache.root().to_owned(), python: None };
        let mut environment = discover::discover(&prefix, &options)?;
        system::apply(&mut environment, self.system_packages()?, &options)?;
        if !request.requirements.is_empty()
            && let Some(added) = requirements::additions(&environment, &request, &machine, &heard)?
        {
            merge(&mut environment, added.discover(self.cache.root())?);
        }
        Ok(environment)
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
    pub(super) fn name(&self, environment: &Environment) -> Result<String, CommandError> {
        let name = match (&self.common.name, self.common.requirements.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(file)) => file_stem(file),
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
        let publisher = Publisher { store, cache: &self.cache, level, repair, sending: Watcher(&sending) };
        let options = assemble::Options { with_python: self.common.with_python, level };
        let cluster = cluster_properties(store.uri(), &self.store_options())?;
        let job = &JobRequest { cluster, ..job.clone() };
        let submission = submit(environment, &publisher, &options, job, &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        let submission = submission?;
        self.report(&submission, store, &environment.prefix);
        Ok(submission)
    }

    fn report(&self, submission: &Submission, store: &dyn Store, prefix: &Path) {
        let all = || submission.layers.iter().chain(&submission.overlays);
        for outcome in all() {
            let what = format!("{} {}", outcome.layer.name, outcome.layer.version);
            match outcome.sent {
                Some(sent) => self.voice.detail(format!("  sent {what} ({})", bytes(sent))),
                None if outcome.packed => self.voice.detail(format!("  in the store already {what}")),
                None => {}
            }
            let modified = &outcome.facts.modified;
            if let Some(first) = modified.first() {
                let more = if modified.len() > 1 { format!(" and {} more", modified.len() - 1) } else { String::new() };
                self.voice.warn(format!("{what} was changed after it was installed: {first}{more}; packed as it is"));
            }
            for file in &outcome.facts.left_out {
                self.voice.warn(format!("{what} is packed without {file}"));
            }
            for file in &outcome.facts.not_compiled {
                self.voice.detail(format!("  no byte-code for {file}"));
            }
        }
        let strangers: Vec<String> = all().flat_map(|outcome| &outcome.facts.strangers).cloned().collect();
        let prefixed: Vec<String> = all().flat_map(|outcome| &outcome.facts.prefixed).cloned().collect();
        prefix_text::warning(&prefixed, prefix).iter().for_each(|warning| self.voice.warn(warning));
        script::warning(&strangers).iter().for_each(|warning| self.voice.warn(warning));
        let sent: Vec<u64> = all().filter_map(|o| o.sent).collect();
        let total = submission.layers.len() + submission.overlays.len();
        let kept: u64 = all().filter(|o| o.sent.is_none()).map(|o| o.layer.archive.size).sum();
        self.voice.say(format!(
            "sent {} of {} ({}), {} in {} already ({})",
            sent.len(),
            count(total, "layer"),
            bytes(sent.iter().sum()),
            total - sent.len(),
            store.uri(),
            bytes(kept),
        ));
    }

    /// The boot executable that is shipped, which must be able to open `store`. Read before minutes are spent on packing.
    pub(super) fn boot(&self, store: &dyn Store) -> Result<Vec<u8>, CommandError> {
        let program = std::env::current_exe().and_then(|p| p.canonicalize()).ok();
        let path = launcher::find_boot(self.common.boot.as_deref(), program.as_deref())?;
        let boot = launcher::read_boot(&path)?;
        let scheme = store.uri().scheme.name();
        if launcher::opens(&boot, scheme) { Ok(boot) } else { Err(LauncherError::NoStore { path, scheme }.into()) }
    }

    /// What the job adds, from its flags.
    pub(super) fn job(&self, arguments: &JobArguments, name: String) -> JobRequest {
        let mut job = JobRequest { name, no_editable: arguments.no_editable, ..JobRequest::default() };
        job.entry = match (&arguments.module, &arguments.script, &arguments.payload) {
            (Some(module), _, _) => EntryRequest::Module(module.clone()),
            (_, Some(script), _) => EntryRequest::Script(script.clone()),
            (_, _, Some(payload)) => EntryRequest::Payload(payload.clone()),
            _ => EntryRequest::Interpreter,
        };
        for assignment in &arguments.environ {
            match assignment.split_once('=') {
                Some((name, value)) => {
                    if SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word)) {
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

/// The record for the name of a submission, whose job is kept as `launcher`.
pub(super) fn name_record(submission: &Submission, launcher: Option<Digest>) -> NameRecord {
    let manifest = &submission.manifest;
    NameRecord {
        format: 1,
        environment: submission.id,
        launcher,
        package_installed: crate::manifest::distributions(manifest)
            .map(|l| format!("{}=={}", l.name, l.version))
            .collect(),
        platform: manifest.python.platform.clone(),
        python_version: manifest.python.version.clone(),
    }
}

/// `path` made absolute against the working directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|source| CommandError::Io { verb: "find", path: path.to_owned(), source })
}

fn file_stem(path: &Path) -> String {
    sanitised(&path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default())
}

/// The environment's directory; for one called `.venv`, `venv` or `env` the project's that it is in.
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
    fn names_come_from_the_project() {
        for (prefix, name) in [("/p/my project/.venv", "my-project"), ("/p/envs/torch", "torch"), ("/", "environment")]
        {
            assert_eq!(environment_name(Path::new(prefix)), name, "{prefix}");
        }
    }
}
