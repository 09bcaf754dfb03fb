//! `cluster-pack run`: pack, boot and run here, as an executor would.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use cpack_format::metrics::is_start;

use super::child::exit_of;
use super::prepare::trace_of;
use crate::cli::arguments::Run;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::output::{seconds, table};
use crate::launcher::{self, Launcher};

/// Runs the launcher as a child process, to show the time of each phase after it ended.
pub(in crate::cli) fn run(context: &Context, arguments: &Run) -> Result<u8, CommandError> {
    let start = Instant::now();
    let store = context.store()?;
    let boot = context.boot(store.as_ref())?;
    let environment = context.environment()?;
    let discovered = start.elapsed();
    let job = context.job(&arguments.job, context.name(&environment)?);
    let traced = trace_of(&arguments.job)?;
    let mut submission = context.submit(&environment, store.as_ref(), &job, false)?;
    if wants_tokens(&submission.job.cluster) {
        context.voice.say(
            "this machine has Kerberos and no delegation tokens, executors the reverse: starting from a copy here",
        );
        submission = context.submit(&environment, context.own_store()?.as_ref(), &job, false)?;
    }
    let packed = start.elapsed();
    let directory = tempfile::tempdir().map_err(CommandError::io("write", std::env::temp_dir()))?;
    let path = directory.path().join("env-python");
    let metrics = directory.path().join("metrics.json");
    if let Some(touches) = traced {
        context.add_trace(&touches, &submission.manifest, &mut submission.job);
    }
    let made = Launcher::new(boot, submission.job, &submission.manifest);
    launcher::write(&path, &made.whole(), made.access())?;
    let booting = start.elapsed();
    let mut command = Command::new(&path);
    command.args(&arguments.arguments).env("CPACK_METRICS", &metrics);
    let status = command.status().map_err(CommandError::io("run", &path))?;
    let finished = start.elapsed();
    if !arguments.no_timings {
        let boot = boot_phases(&fs::read_to_string(&metrics).unwrap_or_default());
        let own = [("discover", discovered), ("pack and publish", packed - discovered), ("launcher", booting - packed)];
        let boot_total: Duration = boot.iter().map(|(_, t)| *t).sum();
        let python = (finished - booting).saturating_sub(boot_total);
        let mut rows: Vec<Vec<String>> = own.iter().map(|(n, t)| vec![(*n).to_owned(), seconds(*t)]).collect();
        rows.extend(boot.iter().map(|(n, t)| vec![format!("boot: {n}"), seconds(*t)]));
        rows.push(vec!["python".into(), seconds(python)]);
        rows.push(vec!["total".into(), seconds(finished)]);
        context.voice.say(table(&rows, &[1]));
    }
    Ok(exit_of(status))
}

/// Whether `cpack-boot`, which has no Kerberos, needs delegation tokens to read the store and there are none.
fn wants_tokens(cluster: &BTreeMap<String, String>) -> bool {
    let is_secure = cluster.get("hadoop.security.authentication").is_some_and(|value| value == "kerberos");
    is_secure && std::env::var_os("HADOOP_TOKEN_FILE_LOCATION").is_none()
}

/// The phases of a start, in their order, as `CPACK_METRICS` names them.
pub const PHASES: [&str; 8] = ["find", "look", "plan", "extract", "wait", "link", "commit", "clean"];

/// The phases of a start in their order, read from `phases_ms` in the last line of `CPACK_METRICS`, but for those of the server
/// of a lazy start and of what fills.
fn boot_phases(text: &str) -> Vec<(String, Duration)> {
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    // Without a word it is of an older release, which had starts alone.
    let is_of_start = |line: &serde_json::Value| line.get("start").and_then(|word| word.as_str()).is_none_or(is_start);
    let parsed = lines.rev().find(is_of_start);
    let phases = parsed.as_ref().and_then(|v| v.get("phases_ms")?.as_object().cloned()).unwrap_or_default();
    let mut named: Vec<(String, Duration)> = phases
        .iter()
        .filter_map(|(name, ms)| Some((name.clone(), Duration::try_from_secs_f64(ms.as_f64()? / 1000.0).ok()?)))
        .collect();
    named.sort_by_key(|(name, _)| PHASES.iter().position(|known| known == name).unwrap_or(PHASES.len()));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_phases_come_in_the_order_of_a_start() {
        let text = "{\"phases_ms\":{\"commit\":2.5,\"extract\":10,\"find\":1,\"later\":3}}\n";
        let names: Vec<String> = boot_phases(text).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["find", "extract", "commit", "later"]);
        let behind = format!("{text}{{\"start\":\"server\",\"phases_ms\":{{}}}}\n");
        assert_eq!(boot_phases(&behind), boot_phases(text));
        assert!(boot_phases("").is_empty());
    }
}
