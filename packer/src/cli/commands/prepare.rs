//! The launcher that a framework's command ships: made of a published environment or, inside a booted environment, of the
//! launcher that booted it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::job::Program;
use cpack_format::trace::Touch;
use cpack_store::{Key, Scheme, StoreOptions, StoreUri, cluster_properties};

use crate::cli::arguments::JobArguments;
use crate::cli::context::{Context, variable};
use crate::cli::error::CommandError;
use crate::cli::report::LayerReport;
use crate::launcher::{self, Launcher};
use crate::publish::publish_launcher;
use crate::submit::EntryRequest;

/// In this variable `cpack-boot` leaves the launcher's path to the code that it starts.
const LAUNCHER: &str = "CPACK_LAUNCHER";

/// The same for the executable, if the launcher does not contain one.
const LAUNCHER_BOOT: &str = "CPACK_LAUNCHER_BOOT";

/// Executors see the launcher under this name.
pub(super) const NAME: &str = "env-python";

#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) launcher: Launcher,
    /// An interpreter on this machine with the same distributions: the virtual environment's, or the launcher itself.
    pub(super) python: PathBuf,
    /// Empty if the launcher is that of a booted environment.
    pub(super) layers: Vec<LayerReport>,
    forwarded: bool,
}

impl Context {
    /// The launcher that booted the environment of this process, unless the user asks for another environment.
    fn booted(&self) -> Option<PathBuf> {
        if self.common.venv.is_some() || !self.common.requirements.is_empty() {
            return None;
        }
        variable(LAUNCHER).map(PathBuf::from)
    }

    /// Publishes what the store lacks and makes a launcher. Inside a booted environment nothing is packed or sent: the
    /// launcher that booted it gets the job of `arguments`.
    pub(super) fn prepare(&self, arguments: &JobArguments) -> Result<Prepared, CommandError> {
        if let Some(path) = self.booted() {
            return self.forward(arguments, path);
        }
        let store = self.store()?;
        let boot = self.boot(store.as_ref())?;
        let environment = self.environment()?;
        let job = self.job(arguments, self.name(&environment)?);
        let traced = trace_of(arguments)?;
        let mut submission = self.submit(&environment, store.as_ref(), &job, false)?;
        if let Some(touches) = traced {
            self.add_trace(&touches, &submission.manifest, &mut submission.job);
        }
        let python = environment.prefix.join("bin/python");
        let layers = LayerReport::all(&submission);
        let launcher = Launcher::new(boot, submission.job, &submission.manifest);
        Ok(Prepared { launcher, python, layers, forwarded: false })
    }

    fn forward(&self, arguments: &JobArguments, path: PathBuf) -> Result<Prepared, CommandError> {
        let boot = variable(LAUNCHER_BOOT).map(PathBuf::from);
        let mut launcher = Launcher::read(&path, boot.as_deref())?;
        let request = self.job(arguments, launcher.job.name.clone());
        let manifest = launcher.manifest().ok().flatten();
        let job = &mut launcher.job;
        job.entry = match request.entry {
            EntryRequest::Interpreter => Program::Interpreter,
            EntryRequest::Module(module) => Program::Module(module),
            EntryRequest::Script(script) => Program::Script(script),
            EntryRequest::Payload(_) => {
                return Err(CommandError::Usage(
                    "--payload inside a booted environment: executors never write to the store; ship the file with the \
                     job and load it there, as cluster_pack.skein does"
                        .into(),
                ));
            }
        };
        job.environ.extend(request.environ);
        if arguments.start.start.is_some() {
            job.start = request.start;
        }
        if let (Some(touches), Some(manifest)) = (trace_of(arguments)?, manifest) {
            self.add_trace(&touches, &manifest, job);
        }
        let passed: Vec<String> = request.pass.into_iter().filter(|name| !job.pass.contains(name)).collect();
        job.pass.extend(passed);
        self.voice.detail(format!("forwarding the environment of {}", path.display()));
        Ok(Prepared { launcher, python: path, layers: Vec::new(), forwarded: true })
    }

    /// Puts the launcher where frameworks can fetch it: into a file of this machine, which they ship themselves, and into
    /// the store if that is on the network.
    pub(super) fn ship(&self, prepared: &Prepared) -> Result<Shipped, CommandError> {
        let bytes = prepared.launcher.whole();
        // The directory's name is the digest of the file, so the file never changes while a job reads it.
        let directory = self.cache.root().join("launchers").join(Digest::of(&bytes).to_hex());
        let local = directory.join(NAME);
        launcher::write(&local, &bytes, prepared.launcher.access())?;
        let store_uri = &prepared.launcher.job.store;
        let remote = if store_uri.parse::<StoreUri>()?.scheme == Scheme::File || prepared.forwarded {
            None
        } else {
            let store = self.open_store(store_uri)?;
            let (digest, _) = publish_launcher(store.as_ref(), &prepared.launcher, false)?;
            Some(Remote::new(store.uri(), digest, &prepared.launcher)?)
        };
        Ok(Shipped { local, remote })
    }
}

/// The trace that the arguments name. It is read before packing, which may take minutes.
pub(super) fn trace_of(arguments: &JobArguments) -> Result<Option<Vec<Touch>>, CommandError> {
    arguments.start.trace_file.as_deref().map(super::trace::read).transpose()
}

/// Links `directory/env-python` to the launcher. Returns false if there is a file that this program did not put there.
///
/// Spark 4 starts the executors' interpreter on the driver too, to plan data sources and table functions.
pub(super) fn link_into(directory: &Path, shipped: &Shipped) -> Result<bool, CommandError> {
    let link = directory.join(NAME);
    let own = shipped.local.parent().and_then(Path::parent);
    match fs::read_link(&link) {
        Ok(target) if target == shipped.local => return Ok(true),
        Ok(target) if own.is_some_and(|own| target.starts_with(own)) => {
            let _ = fs::remove_file(&link);
        }
        Ok(_) => return Ok(false),
        Err(_) if link.exists() => return Ok(false),
        Err(_) => {}
    }
    symlink(&shipped.local, &link).map_err(CommandError::io("write", link))?;
    Ok(true)
}

#[derive(Debug)]
pub(super) struct Shipped {
    /// A file of this machine that is called `env-python`.
    pub(super) local: PathBuf,
    pub(super) remote: Option<Remote>,
}

/// The two files in a store that together are a launcher, as URIs that Hadoop's clients accept. Neither ever changes.
#[derive(Debug)]
pub(super) struct Remote {
    /// The job, which is started.
    pub(super) launcher: String,
    /// The executable, which must lie beside `launcher` as [`launcher::BOOT`].
    pub(super) boot: String,
}

impl Remote {
    /// `digest` is that of the job, as [`publish_launcher`] returned it.
    pub(super) fn new(store: &StoreUri, digest: Digest, launcher: &Launcher) -> Result<Self, CommandError> {
        let boot = Key::boot(launcher.boot_digest());
        Ok(Self { launcher: qualified(store, &Key::launcher(&digest))?, boot: qualified(store, &boot)? })
    }
}

impl Shipped {
    pub(super) fn local_uri(&self) -> String {
        format!("file://{}", self.local.display())
    }
}

/// The URI by which Hadoop's clients find an object: `s3a:` instead of `s3:`, and always with HDFS's name node, because
/// node managers refuse a URI without it.
fn qualified(store: &StoreUri, key: &Key) -> Result<String, CommandError> {
    let plain = store.join(key.as_str());
    if store.scheme == Scheme::S3 {
        return Ok(plain.replacen("s3:", "s3a:", 1));
    }
    if store.scheme == Scheme::File || !store.authority.is_empty() {
        return Ok(plain);
    }
    let options = StoreOptions::of_process(BTreeMap::new());
    let properties = cluster_properties(store, &options)?;
    let default = properties.get("fs.defaultFS").map(|uri| uri.trim_end_matches('/'));
    Ok(default.map_or(plain, |default| format!("{default}{}/{key}", store.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_into_renews_its_own_link_and_keeps_files_of_others() {
        let root = tempfile::tempdir().expect("a directory");
        let shipped =
            |digest: &str| Shipped { local: root.path().join("launchers").join(digest).join(NAME), remote: None };
        let link = root.path().join(NAME);
        for digest in ["a", "b", "b"] {
            assert!(link_into(root.path(), &shipped(digest)).expect("links"));
            assert_eq!(fs::read_link(&link).expect("a link"), shipped(digest).local);
        }
        fs::remove_file(&link).expect("removes");
        fs::write(&link, "mine").expect("writes");
        assert!(!link_into(root.path(), &shipped("a")).expect("looks"));
        assert_eq!(fs::read(&link).expect("reads"), b"mine");
    }
}
