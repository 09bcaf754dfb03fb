//! `cluster-pack kubernetes job`: a Job whose pods start in the environment.
//!
//! A pod gets `cpack-boot` and the job in one of two ways, and neither needs an image of the environment. If the store is
//! a directory on a volume claim, the pod copies the launcher from there. If the store is on the network, the image has
//! `cpack-boot` and the job is in a variable.

use cpack_store::{Key, StoreUri};
use serde_json::{Value, json};

use super::prepare::{NAME, Prepared};
use crate::cli::arguments::KubernetesJob;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::shell::quoted;
use crate::launcher::BOOT;
use crate::publish::publish_launcher;

/// A pod sees the directory of `--node-cache` here.
const CACHE: &str = "/var/cache/cpack";

pub(in crate::cli) fn job(context: &Context, arguments: &KubernetesJob) -> Result<(), CommandError> {
    context.warn_of_own_store();
    let mut prepared = context.prepare(&arguments.job)?;
    // Values of variables never go into a store: they are in the manifest.
    let environ = std::mem::take(&mut prepared.launcher.job.environ);
    let mut pod = Pod::default();
    // Kubernetes takes `$(NAME)` for a reference and `$$` for `$`.
    let literal = |(name, value): (String, String)| json!({ "name": name, "value": value.replace('$', "$$") });
    pod.environ.extend(environ.into_iter().map(literal));
    match (&arguments.claim, &arguments.boot_path) {
        (Some(claim), _) => pod.start_from_claim(context, &prepared, claim)?,
        (None, Some(boot)) => {
            pod.command = vec![boot.clone()];
            pod.environ.push(
                json!({ "name": "CPACK_JOB", "value": String::from_utf8_lossy(&prepared.launcher.job.to_bytes()) }),
            );
        }
        (None, None) => {
            return Err(CommandError::Usage(
                "name what brings the launcher into the pod: --claim CLAIM (the volume of a directory store) or \
                 --boot-path PATH (cpack-boot in the image)"
                    .into(),
            ));
        }
    }
    if let Some(path) = &arguments.node_cache {
        pod.mount("node-cache", CACHE, false, json!({ "hostPath": { "path": path, "type": "DirectoryOrCreate" } }));
        pod.environ.push(json!({ "name": "CPACK_CACHE_DIR", "value": CACHE }));
    }
    let manifest = pod.job(&prepared.launcher.job.name, arguments);
    context.voice.answer(serde_json::to_string_pretty(&manifest).unwrap_or_default(), &manifest);
    Ok(())
}

#[derive(Debug, Default)]
struct Pod {
    command: Vec<String>,
    environ: Vec<Value>,
    mounts: Vec<Value>,
    volumes: Vec<Value>,
}

impl Pod {
    fn mount(&mut self, name: &str, path: &str, read_only: bool, mut source: Value) {
        self.mounts.push(json!({ "name": name, "mountPath": path, "readOnly": read_only }));
        if let Some(volume) = source.as_object_mut() {
            volume.insert("name".into(), name.into());
        }
        self.volumes.push(source);
    }

    fn start_from_claim(&mut self, context: &Context, prepared: &Prepared, claim: &str) -> Result<(), CommandError> {
        let place = &prepared.launcher.job.store;
        let uri: StoreUri = place.parse()?;
        let directory = uri.as_directory().ok_or_else(|| {
            CommandError::Usage(format!("--claim goes with a directory store, and this one is {uri}: use --boot-path"))
        })?;
        let store = context.open_store(place)?;
        let (digest, _) = publish_launcher(store.as_ref(), &prepared.launcher, false)?;
        let path = |key: &Key| quoted(&directory.join(key.as_str()).to_string_lossy()).into_owned();
        // Files of a volume may lack the permission to execute: the pod starts copies.
        let script = format!(
            "t=${{TMPDIR:-/tmp}} && cp {boot} $t/{BOOT} && cp {job} $t/{NAME} && chmod 700 $t/{BOOT} $t/{NAME} && \
             exec $t/{NAME} \"$@\"",
            boot = path(&Key::boot(prepared.launcher.boot_digest())),
            job = path(&Key::launcher(&digest)),
        );
        self.command = ["/bin/sh", "-c", &script, NAME].map(str::to_owned).into();
        let source = json!({ "persistentVolumeClaim": { "claimName": claim, "readOnly": true } });
        self.mount("store", &directory.display().to_string(), true, source);
        Ok(())
    }

    fn job(self, name: &str, arguments: &KubernetesJob) -> Value {
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": dns_label(name) },
            "spec": {
                "parallelism": arguments.parallelism,
                "completions": arguments.parallelism,
                "template": { "spec": {
                    "restartPolicy": "Never",
                    "containers": [{
                        "name": "main",
                        "image": arguments.image,
                        "command": self.command,
                        "args": arguments.arguments,
                        "env": self.environ,
                        "volumeMounts": self.mounts,
                    }],
                    "volumes": self.volumes,
                } },
            },
        })
    }
}

/// Makes `name` a label of RFC 1123, which Kubernetes requires.
fn dns_label(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let label: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "environment".into() } else { label.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_label_makes_labels_of_names() {
        for (name, label) in [("My_env.1", "my-env-1"), ("--", "environment"), ("a", "a")] {
            assert_eq!(dns_label(name), label);
        }
        assert_eq!(dns_label(&"x".repeat(90)).len(), 63);
    }
}
