//! `cluster-pack launcher`.

use serde::Serialize;

use crate::cli::arguments::Launcher;
use crate::cli::context::{Context, absolute};
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::launcher::{self, Access};

/// What `launcher --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    size: u64,
    environment: String,
    store: String,
    changed: bool,
}

/// Publishes what the store lacks, then writes the launcher.
pub(in crate::cli) fn launcher(context: &Context, arguments: &Launcher) -> Result<(), CommandError> {
    let output = absolute(&arguments.output)?;
    if output.is_dir() {
        return Err(CommandError::Usage(format!("--output {} is a directory: name a file", output.display())));
    }
    let of_artifact =
        arguments.artifact.as_deref().map(|path| context.of_artifact(path, &arguments.job)).transpose()?;
    let (context, job) = of_artifact.as_ref().map_or((context, &arguments.job), |(context, job)| (context, job));
    let prepared = context.prepare(job)?;
    let bytes_of = prepared.launcher.whole();
    let access = prepared.launcher.access();
    let changed = launcher::write(&output, &bytes_of, access)?;
    let size = bytes_of.len() as u64;
    let done = if changed { "wrote" } else { "unchanged:" };
    context.voice.say(format!("{done} {} ({})", output.display(), bytes(size)));
    if changed && access == Access::Owner {
        let names: Vec<&str> = prepared.launcher.job.environ.keys().map(String::as_str).collect();
        context.voice.say(format!(
            "only its owner may start it, since it carries the value of {}: pass --env NAME without a value for executors \
             to supply it, or open it with chmod a+rx {}",
            names.join(", "),
            output.display()
        ));
    }
    let report = Report {
        path: output.display().to_string(),
        size,
        environment: prepared.launcher.job.environment.to_hex(),
        store: prepared.launcher.job.store,
        changed,
    };
    context.voice.answer(if context.voice.json { String::new() } else { output.display().to_string() }, &report);
    Ok(())
}
