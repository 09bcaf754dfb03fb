//! The job and the manifest that an archive stands for.

use std::path::Path;

use cpack_format::Digest;
use cpack_format::job::{Conda, Interpreter, Job};
use cpack_format::manifest::{self, Layer, LayerKind, Manifest, SYSTEM_SITE_PACKAGES};
use cpack_store::StoreUri;
use cpack_unpack::{Archive, Python, Unpacked, activation_scripts, declared_variables};

use crate::job::{FoundJob, Origin};

/// A job of which nothing is known but where it came from.
pub(super) fn unknown(archive: &Archive) -> Job {
    let name = archive.path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split_once('.').map_or(&*name, |(stem, _)| stem).to_owned();
    let store = StoreUri::directory(archive.path.parent().unwrap_or(Path::new("/"))).to_string();
    Job { name, ..Job::new(archive.identity, store, Interpreter::default()) }
}

/// The job and manifest of what was unpacked. [`with_layer`] completes both.
pub(super) fn describe(archive: &Archive, unpacked: &Unpacked) -> (Job, Manifest) {
    let job = unknown(archive);
    let (home, sees_system) = match &unpacked.python {
        Python::Shipped => (None, false),
        Python::Node { home, sees_system } => (home.clone(), *sees_system),
    };
    let path = home.map(|home| home.join(unpacked.interpreter_name()).display().to_string()).unwrap_or_default();
    let (version, soabi) = (unpacked.version.clone(), unpacked.soabi.clone());
    let shipped = unpacked.python == Python::Shipped;
    let conda = unpacked.is_conda.then(|| activation(&unpacked.root, job.name.clone()));
    let interpreter = Interpreter { path, version: version.clone(), soabi: soabi.clone(), shipped };
    let machine = soabi.split('-').nth(2).map(|machine| format!("linux-{machine}")).unwrap_or_default();
    let layer = Layer {
        prefixes: unpacked.prefixes.clone(),
        ..Layer::new(
            LayerKind::Unowned,
            "archive".into(),
            Digest::of(b""),
            manifest::Archive {
                unpacked: unpacked.stats.unpacked,
                files: unpacked.stats.files,
                ..manifest::Archive::named(Digest::of(b""))
            },
        )
    };
    let manifest = Manifest {
        format: manifest::FORMAT,
        requires: sees_system.then(|| SYSTEM_SITE_PACKAGES.to_owned()).into_iter().collect(),
        python: manifest::Python { version, soabi, platform: machine, least_glibc: None },
        layers: vec![layer],
        entry_points: Vec::new(),
    };
    (Job { interpreter, conda, ..job }, manifest)
}

/// The job of an environment whose one layer has this content.
pub(super) fn with_layer(job: Job, mut manifest: Manifest, content: Digest, archive: &Archive) -> FoundJob {
    for layer in &mut manifest.layers {
        (layer.content, layer.archive.digest) = (content, content);
    }
    let bytes = manifest.to_bytes();
    let job = Job { environment: Digest::of(&bytes), ..job };
    FoundJob { job, manifest: Some(bytes), origin: Origin::File(archive.path.clone()), boot: None }
}

/// What activating a conda environment sets. Its scripts, if it has any, are run by a shell at each start.
fn activation(root: &Path, name: String) -> Conda {
    let mut conda = Conda { name, scripts: !activation_scripts(root).is_empty(), ..Conda::default() };
    for (name, value) in declared_variables(root) {
        match value {
            Some(value) => drop(conda.set.insert(name, value)),
            None => conda.unset.push(name),
        }
    }
    conda
}
