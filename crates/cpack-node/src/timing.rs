//! Where the time of a start went: one line of JSON per start in `CPACK_METRICS`, one line for people with `CPACK_LOG`,
//! every step of it in `CPACK_TRACE` ([`cpack_events`]).
//!
//! A lazy start has up to three lines: its own before Python runs, with the bytes that were fetched until then; that of what fills
//! behind it, when that ends; that of its server when the job has ended, with all that it fetched.
//!
//! Recording is a few clock readings; nothing is formatted or written unless one of these variables is set.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use cpack_format::Digest;
use cpack_format::metrics::{FILLER, SERVER};
use serde::Serialize;

/// The parts of a start, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Finding and reading the job.
    Find,
    /// Looking for the environment in the node caches.
    Look,
    /// Reading the manifest, asking the interpreter, choosing a cache.
    Plan,
    /// Fetching, verifying, decoding and writing layers.
    Extract,
    /// Waiting for layers and trees that other processes build.
    Wait,
    /// Linking the environment's tree.
    Link,
    /// Renaming it into place.
    Commit,
    /// Cleaning up what is old.
    Clean,
}

/// The names of the phases, in the order of [`Phase`].
const NAMES: [&str; 8] = ["find", "look", "plan", "extract", "wait", "link", "commit", "clean"];

/// What a start did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Bytes of archives that were fetched.
    pub fetched: u64,
    /// Those of them that a server fetched before a program asked for them.
    pub ahead: u64,
    /// Bytes of files that were written.
    pub written: u64,
    /// Bytes of archives that this start needed and did not fetch: their layers were there, or another process built them. A
    /// warm start needs none.
    pub saved: u64,
    /// Files in the tree that this process linked.
    pub files: u64,
    /// Layers that this process built.
    pub built: u64,
    /// Layers that another process built meanwhile.
    pub waited: u64,
    /// Layers that were in the cache.
    pub reused: u64,
    /// Layers that were checked after a reboot.
    pub checked: u64,
}

/// What a process does for a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It becomes Python, in an environment that was built.
    Start,
    /// It becomes Python, in an environment that is served.
    LazyStart,
    /// It serves the environment until the job ends.
    Server,
    /// It builds the environment behind a lazy start.
    Filler,
}

/// The clock of one start.
#[derive(Debug)]
pub struct Timing {
    started: Instant,
    last: Instant,
    spent: [Duration; NAMES.len()],
    /// What the start did.
    pub counts: Counts,
    /// What this process does for the start.
    pub role: Role,
}

impl Timing {
    /// Starts the clock.
    pub fn start() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            spent: [Duration::ZERO; NAMES.len()],
            counts: Counts::default(),
            role: Role::Start,
        }
    }

    /// Adds the time since the last mark to `phase`.
    pub fn mark(&mut self, phase: Phase) {
        cpack_events::ended("boot", || NAMES[phase as usize].into(), self.last);
        let now = Instant::now();
        self.spent[phase as usize] += now - self.last;
        self.last = now;
    }

    /// The time since the start.
    pub fn total(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the metrics call this: `lazy` if the environment is served, `warm` if nothing was built.
    const fn kind(&self) -> &'static str {
        match (self.role, self.counts) {
            (Role::LazyStart, _) => "lazy",
            (Role::Server, _) => SERVER,
            (Role::Filler, _) => FILLER,
            (Role::Start, Counts { built: 0, waited: 0, files: 0, .. }) => "warm",
            (Role::Start, _) => "cold",
        }
    }

    fn phases(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        NAMES.into_iter().zip(self.spent).filter(|(_, spent)| !spent.is_zero())
    }

    /// The line of `CPACK_LOG`.
    pub fn line(&self) -> String {
        let phases: Vec<_> =
            self.phases().map(|(name, spent)| format!("{name} {:.1}", spent.as_secs_f64() * 1e3)).collect();
        let kind = self.kind();
        let Counts { built, waited, reused, .. } = self.counts;
        format!(
            "{kind} start in {:.1} ms ({}), layers: {built} built, {waited} waited for, {reused} there",
            self.total().as_secs_f64() * 1e3,
            phases.join(", "),
        )
    }

    /// Appends one line of JSON to `path`. Lines of processes that write at once do not mix.
    ///
    /// `phases_ms` follow each other; `work_ms` is the time of all threads together within them.
    pub fn append(&self, path: &Path, environment: &Digest, name: &str, outcome: &str) -> std::io::Result<()> {
        let milliseconds = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let phases: serde_json::Map<_, _> =
            self.phases().map(|(name, spent)| (name.to_owned(), milliseconds(spent).into())).collect();
        let sums = cpack_events::sums();
        let work: serde_json::Map<_, _> =
            sums.iter().map(|(name, sum)| ((*name).to_owned(), milliseconds(sum.time).into())).collect();
        let line = serde_json::json!({
            "format": 1,
            "time": time,
            "pid": std::process::id(),
            "environment": environment,
            "name": name,
            "outcome": outcome,
            "start": self.kind(),
            "total_ms": milliseconds(self.total()),
            "phases_ms": phases,
            "work_ms": work,
            "layers": { "built": self.counts.built, "waited": self.counts.waited, "reused": self.counts.reused,
                "checked": self.counts.checked },
            "bytes": { "fetched": self.counts.fetched, "ahead": self.counts.ahead, "written": self.counts.written,
                "saved": self.counts.saved },
            "retries": sums.get("retry").map_or(0, |sum| sum.count),
            "files": self.counts.files,
        });
        File::options().append(true).create(true).open(path)?.write_all(format!("{line}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_one_line_of_json() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("metrics");
        let mut timing = Timing::start();
        timing.mark(Phase::Find);
        timing.append(&path, &Digest::of(b""), "n", "ok").expect("writes");
        timing.counts.built = 2;
        timing.append(&path, &Digest::of(b""), "n", "ok").expect("writes");
        let text = std::fs::read_to_string(&path).expect("reads");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["start"], &lines[1]["start"]), (&"warm".into(), &"cold".into()));
        assert!(lines[0]["phases_ms"]["find"].is_number());
        assert!(timing.line().contains("2 built"));
    }
}
