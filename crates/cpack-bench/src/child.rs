//! Runs and measures processes: wall time from before the start to after the end, CPU time as the kernel counts it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use cluster_pack::cli::CommandError;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::error::BenchError;

/// Prefixes of variables that change what the measured programs, or Python, do. [`command`] removes these variables.
const STEERING: &[&str] =
    &["CPACK_", "PYTHON", "PEX", "LOCAL_DIRS", "LOCAL_USER_DIRS", "SPARK_LOCAL_DIRS", "VIRTUAL_ENV"];

#[derive(Debug, Clone, Default)]
pub(crate) struct Cost {
    /// Wall time.
    pub(crate) seconds: f64,
    /// User and system seconds of the process and of the children that it waited for.
    pub(crate) cpu: f64,
    pub(crate) stderr: String,
}

/// A command with empty standard input and the variables of this process without those of [`STEERING`].
pub(crate) fn command(program: &Path) -> Command {
    let steering = |name: &OsStr| name.to_str().is_some_and(|name| STEERING.iter().any(|s| name.starts_with(s)));
    let kept = std::env::vars_os().filter(|(name, _)| !steering(name));
    let mut command = Command::new(program);
    command.env_clear().envs(kept).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Result<Cost, BenchError> {
    let (before, start) = (children_cpu(), Instant::now());
    let output = command.output().map_err(CommandError::io("run", command.get_program()))?;
    let seconds = start.elapsed().as_secs_f64();
    let stderr = checked(command.get_program(), &output)?;
    Ok(Cost { seconds, cpu: children_cpu() - before, stderr })
}

/// Starts all commands at once and waits for each. Returns their wall times, in the order given, and their CPU time together.
pub(crate) fn together(commands: Vec<Command>) -> Result<(Vec<f64>, f64), BenchError> {
    let before = children_cpu();
    let results: Vec<Result<f64, BenchError>> = std::thread::scope(|scope| {
        let run = |mut command: Command| {
            let start = Instant::now();
            let output = command.output().map_err(CommandError::io("run", command.get_program()))?;
            let seconds = start.elapsed().as_secs_f64();
            checked(command.get_program(), &output).map(|_| seconds)
        };
        let threads: Vec<_> = commands.into_iter().map(|command| scope.spawn(move || run(command))).collect();
        let panicked = || BenchError::Unexpected { what: "a start", reason: "its thread panicked".into() };
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    Ok((results.into_iter().collect::<Result<_, _>>()?, children_cpu() - before))
}

/// CPU seconds of all children that have ended.
fn children_cpu() -> f64 {
    let seconds = |usage: nix::sys::resource::Usage| {
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
    };
    getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0.0, seconds)
}

fn checked(program: &OsStr, output: &Output) -> Result<String, BenchError> {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok(stderr);
    }
    let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
    let said = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join(" / ");
    let program = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(BenchError::Failed { program, status: output.status.to_string(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_that_fails_is_quoted() {
        let mut command = command(Path::new("/bin/sh"));
        let error = run(command.args(["-c", "echo a >&2; echo why >&2; exit 3"])).expect_err("fails");
        assert!(error.to_string().contains("a / why") && error.to_string().contains('3'), "{error}");
    }

    #[test]
    fn children_are_all_started_before_any_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        let shell = |script: &str| {
            let mut command = command(Path::new("/bin/sh"));
            command.args(["-c", script]).env("F", &fifo);
            command
        };
        // Neither ends without the other.
        let (times, _) = together(vec![shell("cat $F"), shell("echo x > $F")]).expect("both end");
        assert_eq!(times.len(), 2);
    }
}
