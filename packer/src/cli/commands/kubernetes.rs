//! `cluster-pack kubernetes job`: a Job whose pods start in the environment.
//!
//! Two ways to bring the boot and the job into a pod, none of which needs an image of the environment. With a directory
//! store on a volume claim the pod runs the launcher there. With a store on the network the image has `cpack-boot`, and
//! the job is a variable.

use cpack_store::{Key, StoreUri};
use serde_json::{Value, json};

use super::made::{Made, NAME};
use crate::cli::arguments::KubernetesJob;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::shell::quoted;
use crate::launcher::BOOT;
use crate::publish::publish_launcher;

/// Where a pod finds what the node keeps.
const CACHE: &str = "/var/cache/cpack";

/// Prints the manifest.
pub(in crate::cli) fn job(context: &Context, arguments: &KubernetesJob) -> Result<(), CommandError> {
    let mut made = context.made(&arguments.job)?;
    // Values never go into a store.
    let environ = std::mem::take(&mut made.launcher.job.environ);
    let mut pod = Pod::default();
    // Kubernetes takes `$(NAME)` for a reference and `$$` for `$`.
    let literal = |(name, value): (String, String)| json!({ "name": name, "value": value.replace('$', "$$") });
    pod.environ.extend(environ.into_iter().map(literal));
    match (&arguments.claim, &arguments.boot_path) {
        (Some(claim), _) => pod.start_from_claim(context, &made, claim)?,
        (None, Some(boot)) => {
            pod.command = vec![boot.clone()];
            pod.environ
                .push(json!({ "name": "CPACK_JOB", "value": String::from_utf8_lossy(&made.launcher.job.to_bytes()) }));
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
    let manifest = pod.job(&made.launcher.job.name, arguments);
    context.voice.answer(serde_json::to_string_pretty(&manifest).unwrap_or_default(), &manifest);
    Ok(())
}

/// What a pod is made of.
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

    fn start_from_claim(&mut self, context: &Context, made: &Made, claim: &str) -> Result<(), CommandError> {
        let place = &made.launcher.job.store;
        let uri: StoreUri = place.parse()?;
        let directory = uri.as_directory().ok_or_else(|| {
            CommandError::Usage(format!("--claim goes with a directory store, and this one is {uri}: use --boot-path"))
        })?;
        let store = context.open_store(place)?;
        let (digest, _) = publish_launcher(store.as_ref(), &made.launcher, false)?;
        let path = |key: &Key| quoted(&directory.join(key.as_str()).to_string_lossy());
        // Volumes may lack the permission to execute; a copy does not.
        let script = format!(
            "t=${{TMPDIR:-/tmp}} && cp {boot} $t/{BOOT} && cp {job} $t/{NAME} && chmod 700 $t/{BOOT} $t/{NAME} && \
             exec $t/{NAME} \"$@\"",
            boot = path(&Key::boot(made.launcher.boot_digest())),
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

/// `name` as Kubernetes wants names (RFC 1123).
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
    fn names_become_labels() {
        for (name, label) in [("My_env.1", "my-env-1"), ("--", "environment"), ("a", "a")] {
            assert_eq!(dns_label(name), label);
        }
        assert_eq!(dns_label(&"x".repeat(90)).len(), 63);
    }
}
