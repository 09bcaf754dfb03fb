//! `info`: the job, its environment, and its layers.

use cpack_format::human::bytes;
use cpack_format::job::{Job, Program};
use cpack_format::manifest::{Layer, Manifest};
use serde_json::json;

use super::{Report, manifest_of, table};
use crate::boot::probe_lazy;
use crate::error::BootError;
use crate::job;
use crate::settings::Settings;

pub(super) fn run(settings: &Settings) -> Result<Report, BootError> {
    // It forks, so no other thread may run yet.
    let lazy = probe_lazy();
    let found = job::find(settings)?;
    let manifest = manifest_of(&found, settings)?;
    let job = &found.job;
    let packed: u64 = manifest.layers.iter().map(|layer| layer.archive.size).sum();
    let unpacked: u64 = manifest.layers.iter().map(|layer| layer.archive.unpacked).sum();
    // Names of variables only: values may be secret.
    let mut shown = job.clone();
    shown.environ.values_mut().for_each(|value| *value = "(not shown)".into());
    let json = json!({
        "origin": found.origin.to_string(),
        "job": shown,
        "python": manifest.python,
        "entry_points": manifest.entry_points,
        "layers": manifest.layers.iter().map(summary).collect::<Vec<_>>(),
        "packed": packed,
        "unpacked": unpacked,
        "lazy": { "possible": lazy.is_ok(), "reason": lazy.as_ref().err() },
    });
    let rows: Vec<Vec<String>> = [
        ("job", found.origin.to_string()),
        ("name", job.name.clone()),
        ("environment", job.environment.to_string()),
        ("store", job.store.clone()),
        ("python", python(job, &manifest)),
        ("entry", entry(&job.entry)),
        ("variables", job.environ.keys().chain(&job.pass).cloned().collect::<Vec<_>>().join(", ")),
        ("layers", format!("{}, {} packed, {} unpacked", manifest.layers.len(), bytes(packed), bytes(unpacked))),
        ("start", format!("{:?}", settings.start_of(job)).to_lowercase()),
        ("lazy starts", lazy.map_or_else(|reason| format!("not here: {reason}"), |()| "possible here".into())),
        ("trace", traced(job, &manifest)),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect();
    let mut layers: Vec<&Layer> = manifest.layers.iter().chain(&job.overlays).collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.archive.unpacked));
    let head = ["layer", "kind", "version", "files", "packed", "unpacked"].map(str::to_owned).to_vec();
    let lines = layers.iter().map(|layer| {
        vec![
            layer.name.clone(),
            format!("{:?}", layer.kind).to_lowercase(),
            layer.version.clone(),
            layer.archive.files.to_string(),
            bytes(layer.archive.size),
            bytes(layer.archive.unpacked),
        ]
    });
    let lines: Vec<_> = std::iter::once(head).chain(lines).collect();
    Ok(Report { text: format!("{}\n{}", table(&rows, &[]), table(&lines, &[3, 4, 5])), json })
}

fn summary(layer: &Layer) -> serde_json::Value {
    json!({
        "kind": layer.kind,
        "name": layer.name,
        "version": layer.version,
        "content": layer.content,
        "archive": layer.archive.digest,
        "files": layer.archive.files,
        "packed": layer.archive.size,
        "unpacked": layer.archive.unpacked,
    })
}

/// How much of the environment the job's trace needs.
fn traced(job: &Job, manifest: &Manifest) -> String {
    let needed: u64 = job.trace.iter().map(|piece| piece.size(&manifest.layers)).sum();
    if needed == 0 { String::new() } else { format!("{} packed are needed first", bytes(needed)) }
}

fn python(job: &Job, manifest: &Manifest) -> String {
    let from = if job.interpreter.shipped { "shipped" } else { &job.interpreter.path };
    format!("{} ({}), {from}", manifest.python.version, manifest.python.soabi)
}

fn entry(entry: &Program) -> String {
    match entry {
        Program::Interpreter => "python".into(),
        Program::Module(module) => format!("python -m {module}"),
        Program::Script(script) => script.clone(),
        Program::Payload(content) => format!("payload {content}"),
    }
}
