//! `cluster-pack prune`.

use cpack_store::Listed;
use serde::Serialize;

use crate::cli::arguments::Prune;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::output::{bytes, count, table};
use crate::prune::{self, Pruned, SAFE_GRACE};

/// What `prune --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    store: String,
    /// Whether the objects were removed. False without `--delete`.
    deleted: bool,
    grace_seconds: u64,
    removed_objects: usize,
    removed_bytes: u64,
    kept_objects: usize,
    kept_bytes: u64,
    /// The number of removed unfinished uploads and temporary files.
    swept: usize,
    removed: Vec<String>,
}

pub(in crate::cli) fn prune(context: &Context, arguments: &Prune) -> Result<(), CommandError> {
    if arguments.grace < SAFE_GRACE {
        let days = SAFE_GRACE.as_secs() / 86_400;
        context.voice.warn(format!(
            "with a grace period under {days} days, no client may publish to this store while prune runs"
        ));
    }
    let store = context.store()?;
    let pruned = prune::prune(store.as_ref(), arguments.grace, arguments.delete)?;
    let report = report(&pruned, arguments, store.uri().to_string());
    for removed in &report.removed {
        context.voice.detail(format!("  {removed}"));
    }
    let done = if arguments.delete { "removed" } else { "would remove" };
    context.voice.say(format!(
        "{done} {} ({}) from {}, {} ({}) stay",
        count(report.removed_objects, "object"),
        bytes(report.removed_bytes),
        report.store,
        report.kept_objects,
        bytes(report.kept_bytes),
    ));
    if !arguments.delete && report.removed_objects > 0 {
        context.voice.say("nothing was removed: pass --delete to do it");
    }
    context.voice.answer(summary(&pruned.removed), &report);
    Ok(())
}

fn report(pruned: &Pruned, arguments: &Prune, store: String) -> Report {
    Report {
        store,
        deleted: arguments.delete,
        grace_seconds: arguments.grace.as_secs(),
        removed_objects: pruned.removed.len(),
        removed_bytes: pruned.removed.iter().map(|listed| listed.stat.size).sum(),
        kept_objects: pruned.kept,
        kept_bytes: pruned.kept_bytes,
        swept: pruned.swept,
        removed: pruned.removed.iter().map(|listed| listed.key.to_string()).collect(),
    }
}

/// The number and the size of removed objects in each directory of the store.
fn summary(removed: &[Listed]) -> String {
    let directory = |listed: &Listed| listed.key.as_str().split('/').next().unwrap_or_default().to_owned();
    let mut rows: Vec<(String, usize, u64)> = Vec::new();
    for listed in removed {
        let name = directory(listed);
        match rows.iter_mut().find(|(known, ..)| *known == name) {
            Some((_, number, size)) => (*number, *size) = (*number + 1, *size + listed.stat.size),
            None => rows.push((name, 1, listed.stat.size)),
        }
    }
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(n, c, s)| vec![n, c.to_string(), bytes(s)]).collect();
    table(&rows, &[1, 2])
}
