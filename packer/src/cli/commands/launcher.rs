//! `cluster-pack launcher`.

use serde::Serialize;

use super::CommandError;
use super::context::{Context, absolute};
use crate::cli::arguments::Launcher;
use crate::cli::output::bytes;
use crate::launcher;

/// What `launcher --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    size: u64,
    environment: String,
    store: String,
    changed: bool,
}

/// Publishes what is missing, then writes the launcher.
pub(super) fn launcher(context: &Context, arguments: &Launcher) -> Result<(), CommandError> {
    let output = absolute(&arguments.output)?;
    if output.is_dir() {
        return Err(CommandError::Usage(format!("--output {} is a directory: name a file", output.display())));
    }
    // Found before minutes are spent on packing.
    context.boot()?;
    let store = context.store()?;
    let environment = context.environment()?;
    let job = context.job(&arguments.job, context.name(&environment)?);
    let submission = context.submit(&environment, store.as_ref(), &job, false)?;
    let bytes_out = context.launcher(&submission)?;
    let changed = launcher::write(&output, &bytes_out)?;
    let size = bytes_out.len() as u64;
    let done = if changed { "wrote" } else { "unchanged:" };
    context.voice.say(format!("{done} {} ({})", output.display(), bytes(size)));
    let report = Report {
        path: output.display().to_string(),
        size,
        environment: submission.id.to_hex(),
        store: store.uri().to_string(),
        changed,
    };
    context.voice.answer(if context.voice.json { String::new() } else { output.display().to_string() }, &report);
    Ok(())
}
