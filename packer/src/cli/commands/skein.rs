//! `cluster-pack skein spec`: an application as `skein application submit` reads it.
//!
//! The answer is JSON, which is YAML too. The files that it names are in the store and never change, so that a node fetches
//! the executable once for all applications and YARN never finds a changed source.

use serde_json::json;

use super::prepare::NAME;
use crate::cli::arguments::SkeinSpec;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::shell::quoted;
use crate::launcher::BOOT;

pub(in crate::cli) fn spec(context: &Context, arguments: &SkeinSpec) -> Result<(), CommandError> {
    context.warn_of_own_store();
    let mut prepared = context.prepare(&arguments.job)?;
    // Values of variables never go into a store: they are in the application.
    let environ = std::mem::take(&mut prepared.launcher.job.environ);
    let shipped = context.ship(&prepared)?;
    let file = |source: &str, visibility: &str| json!({ "source": source, "type": "file", "visibility": visibility });
    let files = match &shipped.remote {
        Some(remote) => json!({ NAME: file(&remote.launcher, "private"), BOOT: file(&remote.boot, "private") }),
        None => json!({ NAME: file(&shipped.local_uri(), "application") }),
    };
    let words =
        std::iter::once(format!("./{NAME}")).chain(arguments.arguments.iter().map(|word| quoted(word).into_owned()));
    // `exec` makes Python the container's own process, so that a kill reaches it.
    let script = format!("exec {}\n", words.collect::<Vec<_>>().join(" "));
    let application = json!({
        "name": prepared.launcher.job.name,
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
