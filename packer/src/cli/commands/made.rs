//! A launcher, however it comes about: from an environment that is published, or, inside a booted environment, from the
//! launcher that booted it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::job::Entry;
use cpack_artifact::store::{Key, Scheme, StoreOptions, StoreUri, cluster_properties};

use super::CommandError;
use super::context::Context;
use super::upload::LayerReport;
use crate::cli::arguments::JobArguments;
use crate::launcher::{self, Launcher};
use crate::publish::publish_launcher;
use crate::submit::EntryRequest;

/// The variable in which the boot leaves the launcher's path to the code that it starts.
const LAUNCHER: &str = "CPACK_LAUNCHER";

/// The same for the executable, where the launcher has none in itself.
const LAUNCHER_BOOT: &str = "CPACK_LAUNCHER_BOOT";

/// The name under which executors get the launcher.
pub(super) const NAME: &str = "env-python";

/// A launcher that can be shipped.
#[derive(Debug)]
pub(super) struct Made {
    /// Its parts.
    pub(super) launcher: Launcher,
    /// The interpreter here that has the same distributions: of the virtual environment, or the launcher itself.
    pub(super) python: PathBuf,
    /// What it is made of; nothing, where it was not made from an environment.
    pub(super) layers: Vec<LayerReport>,
    /// Where it came from, where it was not made from an environment.
    forwarded: Option<PathBuf>,
}

impl Context {
    /// The launcher of the environment in which this runs, where that was booted and no other was asked for.
    fn booted(&self) -> Option<PathBuf> {
        if self.common.venv.is_some() || !self.common.requirements.is_empty() {
            return None;
        }
        std::env::var_os(LAUNCHER).filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Publishes what is missing and makes the launcher, or gives the one that booted this environment another job: then
    /// nothing is packed and nothing is sent.
    pub(super) fn made(&self, arguments: &JobArguments) -> Result<Made, CommandError> {
        if let Some(path) = self.booted() {
            return self.forward(arguments, path);
        }
        let store = self.store()?;
        let boot = self.boot(store.as_ref())?;
        let environment = self.environment()?;
        let job = self.job(arguments, self.name(&environment)?);
        let submission = self.submit(&environment, store.as_ref(), &job, false)?;
        let python = environment.prefix.join("bin/python");
        let layers = LayerReport::all(&submission);
        let launcher = Launcher::new(boot, submission.job, &submission.manifest);
        Ok(Made { launcher, python, layers, forwarded: None })
    }

    fn forward(&self, arguments: &JobArguments, path: PathBuf) -> Result<Made, CommandError> {
        let boot = std::env::var_os(LAUNCHER_BOOT).filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut launcher = Launcher::read(&path, boot.as_deref())?;
        let request = self.job(arguments, launcher.job.name.clone());
        let job = &mut launcher.job;
        job.entry = match request.entry {
            EntryRequest::Interpreter => Entry::Interpreter,
            EntryRequest::Module(module) => Entry::Module(module),
            EntryRequest::Script(script) => Entry::Script(script),
            EntryRequest::Payload(_) => {
                return Err(CommandError::Usage(
                    "--payload inside a booted environment: executors never write to the store; ship the file with the \
                     job and load it there, as cluster_pack.skein does"
                        .into(),
                ));
            }
        };
        job.environ.extend(request.environ);
        let passed: Vec<String> = request.pass.into_iter().filter(|name| !job.pass.contains(name)).collect();
        job.pass.extend(passed);
        self.voice.detail(format!("forwarding the environment of {}", path.display()));
        Ok(Made { launcher, python: path.clone(), layers: Vec::new(), forwarded: Some(path) })
    }

    /// Where frameworks can fetch the launcher: what a store on the network keeps of it, else a file of this machine,
    /// which they ship by themselves.
    pub(super) fn shipped(&self, made: &Made) -> Result<Shipped, CommandError> {
        let bytes = made.launcher.whole();
        // The directory is named after what is in it, so that the file never changes while a job reads it.
        let directory = self.cache.root().join("launchers").join(Digest::of(&bytes).to_hex());
        let local = directory.join(NAME);
        launcher::write(&local, &bytes, made.launcher.access())?;
        let place = &made.launcher.job.store;
        let uri: StoreUri = place.parse()?;
        let remote = if uri.scheme == Scheme::File || made.forwarded.is_some() {
            None
        } else {
            let store = self.open_store(place)?;
            let (digest, _) = publish_launcher(store.as_ref(), &made.launcher, false)?;
            Some(Remote::new(store.uri(), digest, &made.launcher)?)
        };
        Ok(Shipped { local, remote })
    }
}

/// Makes the launcher of `shipped` appear in `directory` under the name that executors see, as a link.
///
/// Spark 4 starts the interpreter of executors on the driver, too, to plan data sources and table functions. A file that
/// somebody else put there is left alone: false.
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
    symlink(&shipped.local, &link).map_err(|source| CommandError::Io { verb: "write", path: link, source })?;
    Ok(true)
}

/// Where a launcher is.
#[derive(Debug)]
pub(super) struct Shipped {
    /// Here, under the name that executors shall see.
    pub(super) local: PathBuf,
    /// In the store.
    pub(super) remote: Option<Remote>,
}

/// The files of a store that are a launcher together, as Hadoop's clients name them. Neither ever changes.
#[derive(Debug)]
pub(super) struct Remote {
    /// What is started.
    pub(super) launcher: String,
    /// The executable, which has to lie beside it as [`launcher::BOOT`].
    pub(super) boot: String,
}

impl Remote {
    /// `digest`: of the job, as [`publish_launcher`] gave it.
    pub(super) fn new(store: &StoreUri, digest: Digest, launcher: &Launcher) -> Result<Self, CommandError> {
        let boot = Key::boot(launcher.boot_digest());
        Ok(Self { launcher: qualified(store, &Key::launcher(&digest))?, boot: qualified(store, &boot)? })
    }
}

impl Shipped {
    /// The file's URI.
    pub(super) fn local_uri(&self) -> String {
        file_uri(&self.local)
    }
}

/// The URI of an object as Hadoop's clients take it anywhere: S3 by another scheme, HDFS with its name node, since node
/// managers refuse URIs without.
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

fn file_uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_renewed_and_what_is_not_ours_is_left_alone() {
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
