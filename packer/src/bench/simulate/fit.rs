//! From reports to costs, and from costs to what an environment demands.

use super::cluster::{Cluster, simulate};
use super::least_squares::solve;
use super::stores::Store;
use crate::bench::BenchError;
use crate::bench::report::{Layer, Report};
use crate::bench::starts::WORK;

/// What things cost on the machine that was measured, in seconds of one core unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Costs {
    /// Of a file, an unpacked byte and a packed byte that are extracted.
    pub extraction: [f64; 3],
    /// What an extraction takes, times the cores there are, over its work: how well cores are used.
    pub idleness: f64,
    /// Of a boot that builds, beside the extraction: elapsed; and of a file that is linked: core seconds.
    pub boot: [f64; 2],
    /// Python's part right after a boot that built, over the same when warm.
    pub first_import: f64,
}

/// What one environment demands of a node.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Demand {
    /// Seconds of one core, of each container.
    pub fixed: f64,
    /// Core seconds of the extraction and of linking the tree.
    pub extraction: f64,
    /// Bytes that are fetched.
    pub packed: f64,
    /// Bytes that are written.
    pub unpacked: f64,
    /// Seconds of one core of Python, per container.
    pub python: f64,
    /// Seconds that Python waits without a core, per container.
    pub waiting: f64,
}

/// Costs from reports of several environments: of one alone nobody could tell files from bytes.
pub fn fit(reports: &[Report]) -> Result<Costs, BenchError> {
    let unusable =
        |what: &str, reason: &str| BenchError::Simulation { what: what.to_owned(), reason: reason.to_owned() };
    if reports.len() < 2 {
        return Err(unusable(
            "the reports",
            "costs of files and of bytes are told apart by two environments of different sizes",
        ));
    }
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for report in reports {
        let (told, scale) = (report.cold.work.iter().map(|(_, s)| s.median).sum::<f64>(), scale(report));
        if told <= 0.0 || scale <= 0.0 {
            return Err(unusable(&report.environment.name, "it tells no work of threads: measure it again"));
        }
        for layer in &report.environment.layers {
            // Each layer counts as much as the part of the time that it takes, so that small ones are heard.
            let work = work(layer) * scale;
            let weight = 1.0 / work.max(told * 1e-3).sqrt();
            rows.push(features(layer).map(|feature| feature * weight));
            values.push(work * weight);
        }
    }
    let extraction = solve(&rows, &values);
    let elapsed = |report: &Report| report.cold.phase("extract") * report.machine.cores as f64;
    let works = |report: &Report| report.cold.work.iter().map(|(_, s)| s.median).sum::<f64>();
    let idleness = reports.iter().map(elapsed).sum::<f64>() / reports.iter().map(works).sum::<f64>();
    let around: Vec<([f64; 2], f64)> = reports
        .iter()
        .map(|report| {
            let files = report.environment.files as f64 / report.machine.cores as f64;
            ([1.0, files], report.cold.boot.median - report.cold.phase("extract"))
        })
        .collect();
    // The relative error counts: a small environment is to be predicted, too.
    let weighted = |(row, value): &([f64; 2], f64)| (row.map(|r| r / value.max(1e-4)), 1.0);
    let (rows, values): (Vec<_>, Vec<_>) = around.iter().map(weighted).unzip();
    let ratio = |report: &Report| report.cold.python() / report.warm.python().max(1e-3);
    let first_import = reports.iter().map(ratio).sum::<f64>() / reports.len() as f64;
    Ok(Costs {
        extraction,
        idleness: idleness.max(1.0),
        boot: scaled(&rows, &values),
        first_import: first_import.max(1.0),
    })
}

/// Columns of very different size are made alike first, which the descent needs.
fn scaled(rows: &[[f64; 2]], values: &[f64]) -> [f64; 2] {
    let largest = |at: usize| rows.iter().filter_map(|row| row.get(at).copied()).fold(f64::MIN_POSITIVE, f64::max);
    let units = [largest(0), largest(1)];
    let rows: Vec<[f64; 2]> = rows.iter().map(|[a, b]| [a / units[0], b / units[1]]).collect();
    let [a, b] = solve(&rows, values);
    [a / units[0], b / units[1]]
}

/// The work of a report's timed starts over that of its traced one.
fn scale(report: &Report) -> f64 {
    let traced: f64 = report.environment.layers.iter().map(work).sum();
    let timed: f64 =
        report.cold.work.iter().filter(|(kind, _)| WORK.contains(&kind.as_str())).map(|(_, s)| s.median).sum();
    if traced > 0.0 { timed / traced } else { 0.0 }
}

fn work(layer: &Layer) -> f64 {
    layer.work.iter().map(|(_, seconds)| seconds).sum()
}

/// Files, and megabytes: numbers of one size.
fn features(layer: &Layer) -> [f64; 3] {
    [layer.files as f64 / FILES, layer.unpacked as f64 / BYTES, layer.packed as f64 / BYTES]
}

/// The unit of files in [`Costs::extraction`].
const FILES: f64 = 1000.0;

/// The unit of bytes in [`Costs::extraction`].
const BYTES: f64 = 1e7;

impl Costs {
    /// What an environment demands, of which the sizes and the warm start are known.
    pub fn demand(&self, report: &Report) -> Demand {
        let of = |layer: &Layer| features(layer).iter().zip(self.extraction).map(|(a, b)| a * b).sum::<f64>();
        let environment = &report.environment;
        let (python, cpu) = (report.warm.python(), report.warm.cpu.median);
        // What the boot itself uses of a warm start's CPU time is a millisecond.
        let busy = cpu.min(python);
        Demand {
            fixed: self.boot[0],
            extraction: environment.layers.iter().map(of).sum::<f64>() * self.idleness
                + self.boot[1] * environment.files as f64,
            packed: environment.packed as f64,
            unpacked: environment.unpacked as f64,
            python: busy * self.first_import,
            waiting: (python - busy) * self.first_import,
        }
    }
}

/// A prediction beside what was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// In seconds.
    pub predicted: f64,
    /// In seconds.
    pub measured: f64,
}

impl Check {
    /// How far the prediction is off, as a part of what was measured.
    pub fn error(&self) -> f64 {
        self.predicted / self.measured.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// Predicts the starts of a report on the machine that it was measured on.
pub fn check(costs: &Costs, report: &Report) -> Vec<Check> {
    let demand = costs.demand(report);
    let on = |containers: u32| Cluster {
        nodes: 1,
        containers,
        cores: report.machine.cores as f64,
        network: f64::INFINITY,
        stagger: 0.0,
        node_cache: true,
    };
    let here = Store {
        name: "here".into(),
        replication: None,
        aggregate: f64::INFINITY,
        per_container: f64::INFINITY,
        latency: 0.0,
        work: 0.0,
    };
    let (one, many) =
        (simulate(&on(1), &here, &demand), simulate(&on(report.together.containers as u32), &here, &demand));
    let crowd = format!("{} at once", report.together.containers);
    let row = |what: String, predicted: f64, measured: f64| Check { what, predicted, measured };
    vec![
        row("cold start, until Python".into(), one.ready, report.cold.boot.median),
        row("cold start, until the end".into(), one.last, report.cold.seconds.median),
        row(format!("{crowd}, the last until Python"), many.ready, report.together.boot.median),
        row(format!("{crowd}, the last until the end"), many.last, report.together.last.median),
    ]
}
