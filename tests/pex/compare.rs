//! One PEX under both runtimes.

use std::path::Path;
use std::process::{Command, Output};

use cpack_test::programs::{World, boot, text};

use crate::cases::{Case, Run, Way};

/// What became of one start.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The case and start.
    pub(crate) name: String,
    /// What differs from plain Python, and from what the case says.
    pub(crate) faults: Vec<String>,
    /// Why it was handed to plain Python, if it was.
    pub(crate) reason: Option<String>,
}

/// Starts `pex` as `run` says, by plain Python and by the boot, and compares.
pub(crate) fn compare(world: &World, python: &Path, pex: &Path, case: &Case, index: usize) -> Outcome {
    let run = &case.runs[index];
    let name = format!("{} #{index}", case.name);
    let plain = start(world.command(python).arg(pex), world, run);
    let metrics = world.path("metrics");
    let _ = std::fs::remove_file(&metrics);
    let mut command = world.command(boot());
    command.args(["--cpack", "exec"]).arg(pex).env("CPACK_METRICS", &metrics);
    let own = start(&mut command, world, run);
    let mut faults = Vec::new();
    if plain.status.code() != own.status.code() {
        faults.push(format!("exit {:?}, expected {:?}", own.status.code(), plain.status.code()));
    }
    faults.extend(differences(&text(&plain.stdout), &text(&own.stdout)));
    let lines = std::fs::read_to_string(&metrics).unwrap_or_default();
    let stderr = text(&own.stderr);
    let reason =
        stderr.lines().find_map(|line| line.split_once(" runs by plain Python: ")).map(|(_, reason)| reason.to_owned());
    let native = lines.lines().count() == 1 && lines.contains("\"started\"");
    match (run.way, &reason) {
        (Way::Native, None) if native => {}
        (Way::Handed(words), Some(reason)) if reason.contains(words) && lines.is_empty() => {}
        (way, reason) => faults.push(format!("expected {way:?}; native: {native}, handed over: {reason:?}")),
    }
    if !faults.is_empty() {
        faults.push(format!("stderr of the boot: {stderr}"));
        faults.push(format!("stderr of python: {}", text(&plain.stderr)));
    }
    Outcome { name, faults, reason }
}

fn start(command: &mut Command, world: &World, run: &Run) -> Output {
    // Only the two runtimes of this test use this PEX_ROOT.
    command.env("PEX_ROOT", world.path("pex-root")).args(&run.arguments).envs(run.environ.iter().cloned());
    command.output().expect("starts")
}

/// A loose PEX runs modules where they are: named by the path within their distribution.
fn within_distribution(argument: &mut serde_json::Value) {
    if let Some((_, path)) = argument.as_str().and_then(|text| text.split_once("/.deps/")?.1.split_once('/')) {
        *argument = path.into();
    }
}

/// How two outputs differ: by the fields of the report, where both are one.
fn differences(expected: &str, found: &str) -> Vec<String> {
    if expected == found {
        return Vec::new();
    }
    let parse = |text: &str| {
        let mut report = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).ok()?;
        report.get_mut("argv")?.as_array_mut()?.iter_mut().for_each(within_distribution);
        Some(report)
    };
    let (Some(expected_report), Some(found_report)) = (parse(expected), parse(found)) else {
        return vec![format!("stdout {found:?}, expected {expected:?}")];
    };
    let mut all = Vec::new();
    for (field, value) in &expected_report {
        let other = &found_report[field];
        match (value.as_object(), other.as_object()) {
            (Some(a), Some(b)) => {
                let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
                let differ = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
                all.extend(differ.map(|key| format!("{field}.{key}: {:?}, expected {:?}", b.get(key), a.get(key))));
            }
            _ if value != other => all.push(format!("{field}: {other}, expected {value}")),
            _ => {}
        }
    }
    all
}
