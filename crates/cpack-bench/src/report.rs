//! The report of a measurement: what `bench --json` prints, and the input of the table, the page and the simulation.
//!
//! Format 1. Unknown fields are ignored. Times are in seconds, sizes in bytes. No field names a directory or a host.

use std::fs;
use std::path::Path;

use cluster_pack::cli::{CommandError, PHASES};
use serde::{Deserialize, Serialize};

use crate::spread::Spread;
use crate::trace::Lane;

pub(crate) const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// The version of `cpack-bench`.
    pub(crate) version: String,
    pub(crate) machine: Machine,
    pub(crate) environment: EnvironmentFacts,
    /// The kind of store: `file`, `s3`, `hdfs`, `viewfs`.
    pub(crate) store: String,
    /// The arguments of Python.
    pub(crate) command: Vec<String>,
    pub(crate) method: Method,
    pub(crate) creation: Creation,
    /// One for each way to ship the environment, layers first.
    pub(crate) modes: Vec<Mode>,
    /// The first start on a node.
    pub(crate) cold: Starts,
    /// The same with `CPACK_START=lazy`, without the CPU time of the processes behind it; none if this machine allows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lazy: Option<Starts>,
    /// The first start of another container on that node.
    pub(crate) second: Starts,
    /// Further starts.
    pub(crate) warm: Starts,
    /// Several containers that start at once on one node with an empty cache.
    pub(crate) together: Together,
    /// The steps of one cold start, which is not one of the timed starts.
    pub(crate) waterfall: Waterfall,
    /// The same of a lazy start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lazy_waterfall: Option<Waterfall>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    pub(crate) memory: u64,
    /// The load average of the last minute, before and after. If it is high, only ratios are meaningful.
    pub(crate) load: [f64; 2],
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Method {
    pub(crate) runs: usize,
    pub(crate) cold: String,
    pub(crate) warm: String,
    /// Whether directories were removed between the runs, which makes later runs slower on ext4.
    pub(crate) removed_between: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EnvironmentFacts {
    pub(crate) name: String,
    pub(crate) python: String,
    pub(crate) files: u64,
    /// Size of the files.
    pub(crate) unpacked: u64,
    /// Size of the archives.
    pub(crate) packed: u64,
    /// Largest first.
    pub(crate) layers: Vec<Layer>,
    /// The number of modules that the command imported, the standard library's included.
    pub(crate) modules: u64,
}

/// A layer, the part of it that the command imported, and its cost in the traced start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) files: u64,
    /// Size of the files.
    pub(crate) unpacked: u64,
    /// Size of the archive.
    pub(crate) packed: u64,
    /// The number of imported modules.
    pub(crate) modules: u64,
    /// Size of the imported modules' files.
    pub(crate) imported: u64,
    /// Seconds of their import, without modules of other layers.
    pub(crate) import_seconds: f64,
    /// Seconds of all threads by kind of work: `fetch`, `verify`, `decode`, `write`.
    pub(crate) work: Vec<(String, f64)>,
}

/// Packing and sending an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Creation {
    /// From nothing to a launcher that can be shipped, everything sent.
    pub(crate) seconds: Spread,
    /// Again, with nothing changed.
    pub(crate) again: Spread,
    /// CPU time from nothing.
    pub(crate) cpu: Spread,
    /// Time during which at least one thread did `discover`, `pack` or `send`. The three overlap.
    pub(crate) phases: Vec<(String, Spread)>,
    /// Seconds of all threads by kind of work, without overlap: `pack` is reading and hashing.
    pub(crate) work: Vec<(String, Spread)>,
    /// Bytes.
    pub(crate) sent: u64,
}

/// A way to ship the environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mode {
    pub(crate) name: String,
    pub(crate) creation: Spread,
    /// A start on a node with an empty cache, to the end of the command.
    pub(crate) first: Spread,
    /// Size of everything that is shipped.
    pub(crate) size: u64,
}

/// Starts of the same kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Starts {
    /// From the start of the process to the end of the command.
    pub(crate) seconds: Spread,
    pub(crate) cpu: Spread,
    /// Until `exec`.
    pub(crate) boot: Spread,
    /// Phases in order: those of `cpack-boot`, then `interpreter` and `command`.
    pub(crate) phases: Vec<(String, Spread)>,
    /// Seconds of all threads of `cpack-boot`, by kind of work.
    pub(crate) work: Vec<(String, Spread)>,
    /// Bytes, as `written`.
    pub(crate) fetched: u64,
    pub(crate) written: u64,
}

/// Containers that start at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Together {
    pub(crate) containers: usize,
    /// Until the last `exec`.
    pub(crate) boot: Spread,
    /// Until the first command has ended.
    pub(crate) first: Spread,
    /// Until the last command has ended.
    pub(crate) last: Spread,
    /// CPU time of all containers.
    pub(crate) cpu: Spread,
    /// Bytes that all containers fetched.
    pub(crate) fetched: u64,
}

/// The steps of one start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waterfall {
    /// From the start of the process to the end of the command.
    pub(crate) seconds: f64,
    /// Of `cpack-boot`, of its threads, of Python.
    pub(crate) lanes: Vec<Lane>,
}

/// The phases of cold, second and warm starts, in order, with the name that people read.
pub(crate) fn phase_rows(report: &Report) -> Vec<(&str, String, [Option<&Spread>; 3])> {
    let kinds = [&report.cold, &report.second, &report.warm];
    let mut names: Vec<&str> = kinds.iter().flat_map(|k| &k.phases).map(|(name, _)| name.as_str()).collect();
    // Those of Python come last.
    let order = |name: &str| {
        let phase = PHASES.iter().position(|known| *known == name);
        phase.unwrap_or(PHASES.len() + usize::from(name == "command"))
    };
    names.sort_by_key(|name| order(name));
    names.dedup();
    let row = |name| {
        let label = match name {
            "interpreter" => "interpreter start".to_owned(),
            "command" => "command, its imports included".to_owned(),
            _ => format!("boot: {name}"),
        };
        let cells = kinds.map(|k| k.phases.iter().find(|(found, _)| found == name).map(|(_, spread)| spread));
        (name, label, cells)
    };
    names.into_iter().map(row).collect()
}

impl Report {
    /// Reads what `bench --json` printed.
    pub(crate) fn read(path: &Path) -> Result<Self, CommandError> {
        let text = fs::read(path).map_err(CommandError::io("read", path))?;
        serde_json::from_slice(&text)
            .map_err(|e| CommandError::Usage(format!("{} is no report of `bench --json`: {e}", path.display())))
    }
}

impl Starts {
    /// Replaces each spread by its minimum: disturbances only make starts longer.
    #[must_use]
    pub(crate) fn fastest(&self) -> Self {
        let fastest = |spread: &Spread| Spread::of([spread.min]);
        let all = |named: &[(String, Spread)]| named.iter().map(|(name, s)| (name.clone(), fastest(s))).collect();
        Self {
            seconds: fastest(&self.seconds),
            cpu: fastest(&self.cpu),
            boot: fastest(&self.boot),
            phases: all(&self.phases),
            work: all(&self.work),
            ..self.clone()
        }
    }

    /// The median of a phase; zero if it did not happen.
    pub(crate) fn phase(&self, name: &str) -> f64 {
        self.phases.iter().find(|(found, _)| found == name).map_or(0.0, |(_, spread)| spread.median)
    }

    /// The median of the time after `exec`.
    pub(crate) fn python(&self) -> f64 {
        self.phase("interpreter") + self.phase("command")
    }
}
