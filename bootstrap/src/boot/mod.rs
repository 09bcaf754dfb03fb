//! A start of a job, from the job to the program that replaces this process.

mod adopt;
mod become_python;
mod behind;
mod cold;
mod conda;
mod guard;
mod lazy;
mod overlays;
mod server;
mod trace;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::OnceLock;

use cpack_format::job::{self, Job, Program, Start};
use cpack_node::building::{Means, TreeInputs};
use cpack_node::cache::{Cache, Environment, Lease};
use cpack_node::node::Node;
use cpack_node::timing::{Phase, Timing};

use crate::entry::command_line;
use crate::error::BootError;
use crate::exec::Exec;
use crate::interpreter::{Identity, Search, environment_key};
use crate::job::{FoundJob, Origin};
use crate::settings::{Settings, exported};
use crate::{home, path, sys};

pub(crate) use become_python::{become_python, run};
pub(crate) use lazy::probe as probe_lazy;

/// One start of one job.
#[derive(Debug)]
pub(crate) struct JobStart<'a> {
    found: &'a FoundJob,
    settings: &'a Settings,
    arguments: &'a [OsString],
    node: Node,
    /// Where the environment is served, of a lazy start.
    served: OnceLock<PathBuf>,
}

/// An environment that is ready, with what the job adds.
#[derive(Debug)]
pub(crate) struct Ready {
    /// Python's prefix.
    pub(crate) prefix: PathBuf,
    /// The cache that it is in.
    pub(crate) cache: Cache,
    /// Its name there; `None` for a private copy.
    pub(crate) key: Option<String>,
    /// The name of the job prefix in the same cache; `None` without overlays.
    pub(crate) job: Option<String>,
    /// Directory of the job's payload.
    pub(crate) payload: Option<PathBuf>,
    /// Keep clean-up from removing the environment and its overlays.
    pub(crate) leases: Vec<Lease>,
}

impl Ready {
    /// An environment to which the job adds nothing.
    pub(crate) fn of(cache: Cache, key: Option<String>, environment: Environment) -> Self {
        Self { prefix: environment.path, cache, key, job: None, payload: None, leases: vec![environment.lease] }
    }
}

impl<'a> JobStart<'a> {
    /// A start of the job that was found, with the arguments of the process.
    pub(crate) fn new(found: &'a FoundJob, settings: &'a Settings, arguments: &'a [OsString]) -> Self {
        Self { found, settings, arguments, node: settings.node(), served: OnceLock::new() }
    }

    pub(crate) fn job(&self) -> &Job {
        &self.found.job
    }

    /// The absolute path of the launcher that carries the job.
    fn launcher(&self) -> Option<PathBuf> {
        match &self.found.origin {
            Origin::Launcher(path) => std::path::absolute(path).ok(),
            Origin::File(_) | Origin::Store(_) | Origin::Variable => None,
        }
    }

    /// Finds the environment, or builds it, or has it served if `when` says so and the node allows it.
    pub(crate) fn prepare(&self, when: Start, timing: &mut Timing) -> Result<Ready, BootError> {
        if let Some(name) = self.job().pass.iter().find(|name| std::env::var_os(name).is_none()) {
            return Err(BootError::Variable(name.clone()));
        }
        // What is read from a plain tree cannot be recorded.
        let is_recorded = when == Start::Lazy && self.settings.record.is_some();
        let found = if self.settings.writable || is_recorded { None } else { self.look() };
        timing.mark(Phase::Look);
        let ready = match found {
            Some((cache, key, environment)) => self.add_overlays(cache, Some(key), environment, timing),
            None => match self.serve(when, timing) {
                Some((cache, key, environment)) => self.add_overlays(cache, Some(key), environment, timing),
                None => self.build(timing),
            },
        };
        ready.map_err(|error| error.of_store(&self.job().store))
    }

    /// Looks for the environment in all caches: the warm path. Creates and starts nothing, and locks only the lease.
    pub(crate) fn look(&self) -> Option<(Cache, String, Environment)> {
        let (id, wanted) = (&self.job().environment, &self.job().interpreter);
        let minor = job::minor(&wanted.version);
        let key = |identity: Option<&Identity>| environment_key(id, minor, &wanted.soabi, identity);
        if wanted.shipped {
            let key = key(None);
            return self.node.look_by(|cache| self.key_in(&key, cache));
        }
        // The environment may have been built for any of these interpreters, mostly for the first.
        self.node.look(Search::new(self.job(), self.settings).identities().map(|identity| key(Some(&identity))))
    }

    /// The program that runs in a ready environment.
    pub(crate) fn exec(&self, ready: &Ready) -> Result<Exec, BootError> {
        let entry = if self.settings.interpreter { &Program::Interpreter } else { &self.job().entry };
        let line = command_line(entry, &ready.prefix, ready.payload.as_deref(), self.arguments)?;
        let mut environ: std::collections::BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        // Python would take its standard library from there.
        environ.remove(OsStr::new("PYTHONHOME"));
        if let Some(conda) = &self.job().conda {
            conda::set_variables(conda, &ready.prefix, &mut environ);
        }
        for (name, value) in &self.job().environ {
            environ.insert(name.into(), value.into());
        }
        let current = |name: &str| environ.get(OsStr::new(name)).cloned();
        let kept = path::without(current("PYTHONPATH").as_deref(), current(exported::ADDED_PATH).as_deref());
        environ.remove(OsStr::new(exported::ADDED_PATH));
        match kept {
            Some(value) => environ.insert("PYTHONPATH".into(), value),
            None => environ.remove(OsStr::new("PYTHONPATH")),
        };
        environ.insert(exported::ENVIRONMENT.into(), ready.prefix.clone().into());
        home::give_cache(&mut environ, &ready.cache, self.node.usable_caches());
        // It concerns this start, not a launcher that is started inside.
        environ.remove(OsStr::new("CPACK_INTERPRETER"));
        let launcher = self.launcher();
        let boot = self.found.boot.clone().filter(|_| launcher.is_some());
        for (name, value) in [(exported::LAUNCHER, launcher), (exported::BOOT, boot)] {
            match value {
                Some(path) => environ.insert(name.into(), path.into()),
                None => environ.remove(OsStr::new(name)),
            };
        }
        let exec = Exec { program: line.program, arguments: line.arguments, environ, at_start: sys::at_start() };
        Ok(match &self.job().conda {
            Some(conda) => conda::through_shell(conda, &ready.prefix, exec),
            None => exec,
        })
    }
}
