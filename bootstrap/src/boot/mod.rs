//! A start, from the job to what is executed.

mod cold;
mod overlays;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use cpack_artifact::job::{Entry, Job};

use crate::build::{Means, Tree};
use crate::cache::{Cache, Environment, Lease};
use crate::entry::command_line;
use crate::error::BootError;
use crate::exec::Exec;
use crate::interpreter::{Identity, Search, environment_key};
use crate::job::{Found, Origin};
use crate::node::Node;
use crate::settings::{Settings, left};
use crate::trace::{Phase, Trace};
use crate::{path, sys};

pub use cold::Materials;

/// One start of one job.
#[derive(Debug)]
pub struct Boot<'a> {
    found: &'a Found,
    settings: &'a Settings,
    arguments: &'a [OsString],
    node: Node,
}

/// An environment that is ready, with what the job adds.
#[derive(Debug)]
pub struct Ready {
    /// Python's prefix.
    pub prefix: PathBuf,
    /// The cache that it is in.
    pub cache: Cache,
    /// Its name there; none for a private copy.
    pub key: Option<String>,
    /// The name of the job prefix that it is; none without overlays.
    pub job: Option<String>,
    /// Where the job's payload is.
    pub payload: Option<PathBuf>,
    /// Keep clean-up away.
    pub leases: Vec<Lease>,
}

impl<'a> Boot<'a> {
    /// A start of the job that was found, with the arguments of the process.
    pub fn new(found: &'a Found, settings: &'a Settings, arguments: &'a [OsString]) -> Self {
        Self { found, settings, arguments, node: Node::new(settings) }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.found.job
    }

    /// The launcher that carries the job, if one does, as it can be found from any directory.
    fn launcher(&self) -> Option<PathBuf> {
        match &self.found.origin {
            Origin::Launcher(path) => std::path::absolute(path).ok(),
            Origin::File(_) | Origin::Store(_) | Origin::Variable => None,
        }
    }

    /// Makes the environment ready: finds it, or builds it.
    pub fn prepare(&self, trace: &mut Trace) -> Result<Ready, BootError> {
        if let Some(name) = self.job().pass.iter().find(|name| std::env::var_os(name).is_none()) {
            return Err(BootError::Variable(name.clone()));
        }
        let found = if self.settings.writable { None } else { self.look() };
        trace.mark(Phase::Look);
        match found {
            Some((cache, key, environment)) => self.add_overlays(cache, Some(key), environment, trace),
            None => self.build(trace),
        }
    }

    /// Looks for the environment in all caches: the warm path. Nothing is created, started or locked but the lease.
    pub fn look(&self) -> Option<(Cache, String, Environment)> {
        let (id, wanted) = (&self.job().environment, &self.job().interpreter);
        let minor = crate::interpreter::minor(&wanted.version);
        let key = |identity: Option<&Identity>| environment_key(id, minor, &wanted.soabi, identity);
        if wanted.shipped {
            return self.node.look([key(None)]);
        }
        // One name for each interpreter that it may have been built for; mostly the first is the one.
        self.node.look(Search::new(self.job(), self.settings).identities().map(|identity| key(Some(&identity))))
    }

    /// What is executed in an environment that is ready.
    pub fn exec(&self, ready: &Ready) -> Result<Exec, BootError> {
        let entry = if self.settings.interpreter { &Entry::Interpreter } else { &self.job().entry };
        let line = command_line(entry, &ready.prefix, ready.payload.as_deref(), self.arguments)?;
        let mut environ: std::collections::BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        // Another Python's home would take the standard library from there.
        environ.remove(OsStr::new("PYTHONHOME"));
        for (name, value) in &self.job().environ {
            environ.insert(name.into(), value.into());
        }
        let current = |name: &str| environ.get(OsStr::new(name)).cloned();
        let kept = path::without(current("PYTHONPATH").as_deref(), current(left::ADDED_PATH).as_deref());
        environ.remove(OsStr::new(left::ADDED_PATH));
        match kept {
            Some(value) => environ.insert("PYTHONPATH".into(), value),
            None => environ.remove(OsStr::new("PYTHONPATH")),
        };
        environ.insert(left::ENVIRONMENT.into(), ready.prefix.clone().into());
        // Said of this start, not of those that it leads to.
        environ.remove(OsStr::new("CPACK_INTERPRETER"));
        let launcher = self.launcher();
        let boot = self.found.boot.clone().filter(|_| launcher.is_some());
        for (name, value) in [(left::LAUNCHER, launcher), (left::BOOT, boot)] {
            match value {
                Some(path) => environ.insert(name.into(), path.into()),
                None => environ.remove(OsStr::new(name)),
            };
        }
        Ok(Exec { program: line.program, arguments: line.arguments, environ, at_start: sys::at_start() })
    }
}
