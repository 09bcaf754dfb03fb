//! What was measured: the JSON of `cluster-pack bench`, from which the table, the page and the simulation are made.
//!
//! Format 1. Unknown fields are ignored. Times are in seconds, sizes in bytes. Nothing in it names a directory or a host.

use serde::{Deserialize, Serialize};

use super::spread::Spread;
use super::trace::Lane;

/// The version of this format.
pub const FORMAT: u32 = 1;

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this format.
    pub format: u32,
    /// The release that was measured.
    pub version: String,
    /// On what.
    pub machine: Machine,
    /// What was packed.
    pub environment: EnvironmentFacts,
    /// The kind of store: `file`, `s3`, `hdfs`, `viewfs`.
    pub store: String,
    /// The arguments of Python.
    pub command: Vec<String>,
    /// How it was measured.
    pub method: Method,
    /// Making and sending it.
    pub creation: Creation,
    /// Ways to ship it, each a line of the table, layers first.
    pub modes: Vec<Mode>,
    /// The first start on a node.
    pub cold: Starts,
    /// The first start of another container of that node.
    pub second: Starts,
    /// Further starts.
    pub warm: Starts,
    /// Several containers of one node at once, none of which finds anything.
    pub together: Together,
    /// One cold start, step by step: not one of those that are timed.
    pub waterfall: Waterfall,
}

/// What it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Processors that may be used.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Processes that wanted a processor during the last minute, before and after. More than a few: take ratios only.
    pub load: [f64; 2],
}

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Runs of each.
    pub runs: usize,
    /// What `cold` means.
    pub cold: String,
    /// What `warm` means.
    pub warm: String,
    /// Whether directories had to be removed between the runs: on ext4 that makes later runs slower.
    pub removed_between: bool,
}

/// What was packed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvironmentFacts {
    /// The name under which it would be published.
    pub name: String,
    /// The interpreter's version.
    pub python: String,
    /// Files, of all layers.
    pub files: u64,
    /// Bytes of them.
    pub unpacked: u64,
    /// Bytes of the archives.
    pub packed: u64,
    /// Layers, largest first.
    pub layers: Vec<Layer>,
    /// Modules that the command imported, the standard library's included.
    pub modules: u64,
}

/// One layer: what it is, what of it the command imported, and what it cost in the traced start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The distribution.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub unpacked: u64,
    /// Bytes of the archive.
    pub packed: u64,
    /// Modules that were imported.
    pub modules: u64,
    /// Bytes of their files.
    pub imported: u64,
    /// Seconds that their import took, without modules of others.
    pub import_seconds: f64,
    /// Seconds of all threads by what they did: `fetch`, `verify`, `decode`, `write`.
    pub work: Vec<(String, f64)>,
}

/// Making and sending an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Creation {
    /// From nothing to a launcher that can be shipped, everything sent.
    pub seconds: Spread,
    /// The same with nothing changed.
    pub again: Spread,
    /// CPU time from nothing.
    pub cpu: Spread,
    /// Time during which at least one thread did this: `discover`, `pack`, `send`. They overlap.
    pub phases: Vec<(String, Spread)>,
    /// Seconds of all threads by what they did, without overlap: `pack` is reading and hashing.
    pub work: Vec<(String, Spread)>,
    /// Bytes that were sent.
    pub sent: u64,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mode {
    /// What people call it.
    pub name: String,
    /// Making it.
    pub creation: Spread,
    /// From the start of the process to the end of the command, on a node that has nothing.
    pub first: Spread,
    /// Bytes of what is shipped.
    pub size: u64,
}

/// Starts of the same kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Starts {
    /// From the start of the process to the end of the command.
    pub seconds: Spread,
    /// CPU time of all of it.
    pub cpu: Spread,
    /// Until Python is executed.
    pub boot: Spread,
    /// What follows each other: those of the boot, then `interpreter` and `command`.
    pub phases: Vec<(String, Spread)>,
    /// Seconds of all threads within the boot, by what they did.
    pub work: Vec<(String, Spread)>,
    /// Bytes that were fetched.
    pub fetched: u64,
    /// Bytes that were written.
    pub written: u64,
}

/// Containers that start at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// How many.
    pub containers: usize,
    /// Until the last executes Python.
    pub boot: Spread,
    /// Until the first has run its command.
    pub first: Spread,
    /// Until the last has run its command.
    pub last: Spread,
    /// CPU time of all.
    pub cpu: Spread,
    /// Bytes that were fetched by all.
    pub fetched: u64,
}

/// One start, step by step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waterfall {
    /// From the start of the process to the end of the command.
    pub seconds: f64,
    /// The boot, its threads, Python.
    pub lanes: Vec<Lane>,
}

impl Starts {
    /// As if made once, everything at its fastest: what disturbs a start only makes it longer.
    #[must_use]
    pub fn fastest(&self) -> Self {
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

    /// The median of a phase.
    pub fn phase(&self, name: &str) -> f64 {
        self.phases.iter().find(|(found, _)| found == name).map_or(0.0, |(_, spread)| spread.median)
    }

    /// The median of what comes after the boot.
    pub fn python(&self) -> f64 {
        self.phase("interpreter") + self.phase("command")
    }
}
