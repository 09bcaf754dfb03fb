//! `cluster-pack skein spec`: an application as `skein application submit` reads it.
//!
//! JSON, which is YAML too. Files of a store never change and are visible to the user: a node fetches the executable once
//! for all applications, and YARN never finds that its source changed.

use serde_json::json;

use super::made::NAME;
use crate::cli::arguments::SkeinSpec;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::shell::quoted;
use crate::launcher::BOOT;

/// Prints the application.
pub(in crate::cli) fn spec(context: &Context, arguments: &SkeinSpec) -> Result<(), CommandError> {
    let mut made = context.made(&arguments.job)?;
    // Values never go into a store.
    let environ = std::mem::take(&mut made.launcher.job.environ);
    let shipped = context.shipped(&made)?;
    let file = |source: &str, visibility: &str| json!({ "source": source, "type": "file", "visibility": visibility });
    let files = match &shipped.remote {
        Some(remote) => json!({ NAME: file(&remote.launcher, "private"), BOOT: file(&remote.boot, "private") }),
        None => json!({ NAME: file(&shipped.local_uri(), "application") }),
    };
    let words = std::iter::once(format!("./{NAME}")).chain(arguments.arguments.iter().map(|word| quoted(word)));
    // The container's own process, so that a kill reaches Python.
    let script = format!("exec {}\n", words.collect::<Vec<_>>().join(" "));
    let application = json!({
        "name": made.launcher.job.name,
        "queue": arguments.queue,
        "file_systems": arguments.file_system,
        "services": { "main": {
            "instances": arguments.instances,
            "resources": { "vcores": arguments.vcores, "memory": arguments.memory },
            "files": files,
            "env": environ,
            "script": script,
        } },
    });
    context.voice.answer(serde_json::to_string_pretty(&application).unwrap_or_default(), &application);
    Ok(())
}
