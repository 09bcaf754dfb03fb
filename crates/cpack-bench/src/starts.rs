//! Starts a launcher as a process: its container is a fresh directory, its node a directory with a node cache.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cluster_pack::cli::{CommandError, PHASES};
use cpack_format::metrics::{FILLER, SERVER};

use crate::child::{self, Cost};
use crate::error::BenchError;
use crate::metrics::{self, Metrics};
use crate::report::{Starts, Together};
use crate::spread::Spread;

/// How long the processes behind a lazy start may take to end after it.
const ENDING: Duration = Duration::from_secs(30);

/// How long what fills may take to end after the server. Killed, it tells nothing.
const FILLER_ENDING: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Shipped {
    pub(crate) launcher: PathBuf,
    /// The arguments of Python.
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Of the whole process.
    pub(crate) cost: Cost,
    pub(crate) metrics: Metrics,
}

impl Sample {
    /// Seconds from `exec` to the end of the process.
    pub(crate) fn python(&self) -> f64 {
        (self.cost.seconds - self.metrics.total_ms / 1e3).max(0.0)
    }
}

impl Shipped {
    /// Copies the launcher into `container`, as a framework does.
    pub(crate) fn localize(&self, container: &Path) -> Result<(), BenchError> {
        let to = container.join("env-python");
        fs::copy(&self.launcher, &to).map_err(CommandError::io("write", to))?;
        Ok(())
    }

    /// The command of a start in `container`, with the node cache in `node`.
    pub(crate) fn command(&self, node: &Path, container: &Path, arguments: &[OsString]) -> Command {
        let mut command = child::command(&container.join("env-python"));
        on_node(&mut command, node, container);
        command.args(arguments);
        command
    }

    /// Runs the launcher in `container`.
    pub(crate) fn start(&self, node: &Path, container: &Path) -> Result<Sample, BenchError> {
        self.start_with(node, container, &self.arguments, |_| {})
    }

    /// Runs the launcher with other arguments and a command that `change` may change.
    pub(crate) fn start_with(
        &self,
        node: &Path,
        container: &Path,
        arguments: &[OsString],
        change: impl FnOnce(&mut Command),
    ) -> Result<Sample, BenchError> {
        let mut command = self.command(node, container, arguments);
        change(&mut command);
        let cost = child::run(&mut command)?;
        let metrics = last_metrics(container)?;
        Ok(Sample { cost, metrics })
    }
}

/// Sets the variables that make `node` the only place where `cpack-boot` looks for an environment.
pub(crate) fn on_node(command: &mut Command, node: &Path, container: &Path) {
    let variables = [("CPACK_CACHE_DIR", node), ("XDG_CACHE_HOME", node), ("TMPDIR", container)];
    command.envs(variables).env("CPACK_METRICS", container.join("metrics")).env("CPACK_INTERPRETER", "1");
    command.current_dir(container);
}

/// What processes in a container have told until now.
fn told(container: &Path) -> Result<Vec<Metrics>, BenchError> {
    let path = container.join("metrics");
    metrics::read(&fs::read_to_string(&path).map_err(CommandError::io("read", path))?)
}

/// The metrics of the last start in a container.
fn last_metrics(container: &Path) -> Result<Metrics, BenchError> {
    let last = told(container)?.into_iter().rfind(Metrics::is_start);
    last.ok_or_else(|| BenchError::Unexpected { what: "CPACK_METRICS", reason: "it has no line".into() })
}

/// Waits until the server of a lazy start has ended. Returns the bytes that it fetched. What fills ends with it, and says nothing
/// if it is not done then.
pub(crate) fn served(container: &Path) -> Result<u64, BenchError> {
    let began = Instant::now();
    loop {
        let told = told(container)?;
        if let Some(server) = told.iter().find(|metrics| metrics.start == SERVER) {
            return Ok(server.bytes.fetched);
        }
        if began.elapsed() > ENDING {
            let reason = "no line of a server".into();
            return Err(BenchError::Unexpected { what: "CPACK_METRICS", reason });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the processes behind a lazy start have ended: the server has told so, and what fills, which it ends, has a moment
/// more.
pub(crate) fn wait_for_those_behind(container: &Path) -> Result<(), BenchError> {
    served(container)?;
    let began = Instant::now();
    while began.elapsed() < FILLER_ENDING && !told(container)?.iter().any(|metrics| metrics.start == FILLER) {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Fails if the start was not `cold` or `warm` as expected.
pub(crate) fn require(sample: &Sample, start: &str) -> Result<(), BenchError> {
    if sample.metrics.start == start {
        return Ok(());
    }
    let reason = format!("a {} start where a {start} one was expected", sample.metrics.start);
    Err(BenchError::Unexpected { what: "the node cache", reason })
}

/// Summarises starts of one kind. `interpreter` is the number of seconds that Python takes to start and end.
pub(crate) fn summary(samples: &[Sample], interpreter: f64) -> Starts {
    let spread = |value: &dyn Fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
    let of = |from: fn(&Metrics) -> &std::collections::BTreeMap<String, f64>, name: &str| {
        spread(&|s| from(&s.metrics).get(name).copied().unwrap_or(0.0) / 1e3)
    };
    let happened = |(_, found): &(String, Spread)| found.max > 0.0;
    let boot = PHASES.iter().map(|name| ((*name).to_owned(), of(|m| &m.phases_ms, name)));
    let python = [
        ("interpreter".to_owned(), spread(&|s| s.python().min(interpreter))),
        ("command".to_owned(), spread(&|s| (s.python() - interpreter).max(0.0))),
    ];
    let work = WORK.iter().map(|name| ((*name).to_owned(), of(|m| &m.work_ms, name)));
    let last = samples.last().map(|s| s.metrics.bytes).unwrap_or_default();
    Starts {
        seconds: spread(&|s| s.cost.seconds),
        cpu: spread(&|s| s.cost.cpu),
        boot: spread(&|s| s.metrics.total_ms / 1e3),
        phases: boot.filter(happened).chain(python).collect(),
        work: work.filter(happened).collect(),
        fetched: last.fetched,
        written: last.written,
    }
}

/// The kinds of work of `cpack-boot`'s threads.
pub(crate) const WORK: &[&str] = &["fetch", "verify", "decode", "write"];

/// Starts of several containers of one node at once.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    seconds: Vec<f64>,
    boots: Vec<f64>,
    cpu: f64,
    fetched: u64,
}

/// Starts all `containers` at once, on a node with an empty cache.
pub(crate) fn crowd(shipped: &Shipped, node: &Path, containers: &[PathBuf]) -> Result<Crowd, BenchError> {
    let commands = containers.iter().map(|container| shipped.command(node, container, &shipped.arguments)).collect();
    let (seconds, cpu) = child::together(commands)?;
    let told = containers.iter().map(|container| last_metrics(container)).collect::<Result<Vec<_>, _>>()?;
    Ok(Crowd {
        seconds,
        boots: told.iter().map(|m| m.total_ms / 1e3).collect(),
        cpu,
        fetched: told.iter().map(|m| m.bytes.fetched).sum(),
    })
}

/// Summarises crowds of the same size.
pub(crate) fn together(containers: usize, crowds: &[Crowd]) -> Together {
    let largest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let smallest = |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min);
    Together {
        containers,
        boot: Spread::of(crowds.iter().map(|crowd| largest(&crowd.boots))),
        first: Spread::of(crowds.iter().map(|crowd| smallest(&crowd.seconds))),
        last: Spread::of(crowds.iter().map(|crowd| largest(&crowd.seconds))),
        cpu: Spread::of(crowds.iter().map(|crowd| crowd.cpu)),
        fetched: crowds.last().map_or(0, |crowd| crowd.fetched),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, boot_ms: f64) -> Sample {
        let text = format!(
            r#"{{"start":"cold","total_ms":{boot_ms},"phases_ms":{{"extract":{boot_ms}}},"work_ms":{{"decode":4}},
            "layers":{{"built":1,"waited":0,"reused":0}},"bytes":{{"fetched":5,"written":6}}}}"#
        );
        let metrics = serde_json::from_str(&text).expect("metrics");
        Sample { cost: Cost { seconds, cpu: seconds, stderr: String::new() }, metrics }
    }

    #[test]
    fn summary_of_starts_counts_the_time_after_exec_as_python() {
        let starts = summary(&[sample(1.0, 400.0), sample(1.2, 500.0), sample(0.9, 300.0)], 0.1);
        let names: Vec<&str> = starts.phases.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["extract", "interpreter", "command"]);
        assert_eq!((starts.boot.median, starts.phase("extract"), starts.phase("interpreter")), (0.4, 0.4, 0.1));
        assert!((starts.phase("command") - 0.5).abs() < 1e-9 && (starts.python() - 0.6).abs() < 1e-9);
        assert_eq!(starts.work, [("decode".to_owned(), Spread::of([0.004; 3]))]);
        assert!(require(&sample(1.0, 1.0), "warm").is_err());
    }

    #[test]
    fn together_takes_the_slowest_of_a_crowd() {
        let crowd = Crowd { seconds: vec![1.0, 3.0, 2.0], boots: vec![0.5, 0.7, 0.6], cpu: 4.0, fetched: 9 };
        let found = together(3, &[crowd]);
        assert_eq!((found.boot.median, found.first.median, found.last.median), (0.7, 1.0, 3.0));
    }
}
