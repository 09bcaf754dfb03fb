//! Computes costs from reports, and the demand of an environment from costs.

use super::cluster::{Cluster, simulate};
use super::demand::Demand;
use super::least_squares::solve;
use super::stores::Store;
use crate::error::BenchError;
use crate::report::{Layer, Report};
use crate::spread::Spread;
use crate::starts::WORK;

/// Costs on the measured machine, in core seconds unless stated otherwise.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Costs {
    /// Of extracting 1,000 files, 10 MB unpacked, 10 MB packed, and 10 MB that compression saved. Only compressed bytes
    /// are decoded, hence the last.
    pub(crate) extraction: [f64; 4],
    /// Elapsed time of an extraction times the number of cores, over its core seconds: 1 if it keeps all cores busy.
    pub(crate) idleness: f64,
    /// Elapsed seconds of a cold start without its extraction, and core seconds of linking a file.
    pub(crate) boot: [f64; 2],
    /// Python's time in a cold start over its time in a warm start.
    pub(crate) first_import: f64,
}

/// Computes costs from reports of several environments: one environment does not separate the cost of files from that of
/// bytes. The fastest start of each report counts, because in a large environment the median of three is still disturbed if
/// two of them were (writes to the disk, too little memory).
pub(crate) fn fit(reports: &[Report]) -> Result<Costs, BenchError> {
    let at_best =
        |report: &Report| Report { cold: report.cold.fastest(), warm: report.warm.fastest(), ..report.clone() };
    let reports: Vec<Report> = reports.iter().map(at_best).collect();
    let unusable =
        |what: &str, reason: &str| BenchError::Simulation { what: what.to_owned(), reason: reason.to_owned() };
    if reports.len() < 2 {
        return Err(unusable(
            "the reports",
            "two reports of environments of different sizes are needed to separate the costs of files and bytes",
        ));
    }
    for report in &reports {
        let traced: f64 = report.environment.layers.iter().map(|layer| work(report, layer, |_| true)).sum();
        if total_work(report) <= 0.0 || traced <= 0.0 {
            return Err(unusable(
                &report.environment.name,
                "the report has no work of threads: measure the environment again",
            ));
        }
    }
    let decoding = |kind: &str| kind == DECODE;
    let [decode_file, decode_saved] = cost(&reports, decoding, |layer| [files(layer), saved(layer)]);
    let rest = cost(&reports, |kind| !decoding(kind), |layer| [files(layer), unpacked(layer), packed(layer)]);
    let extraction = [rest[0] + decode_file, rest[1], rest[2], decode_saved];
    let elapsed = |report: &Report| report.cold.phase("extract") * report.machine.cores as f64;
    let idleness = reports.iter().map(elapsed).sum::<f64>() / reports.iter().map(total_work).sum::<f64>();
    let around: Vec<([f64; 2], f64)> = reports
        .iter()
        .map(|report| {
            let files = report.environment.files as f64 / report.machine.cores as f64;
            ([1.0, files], report.cold.boot.median - report.cold.phase("extract"))
        })
        .collect();
    // Least squares of the relative error, so that small environments are predicted too.
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

/// Solves after scaling both columns to the same size, without which the descent does not converge.
fn scaled(rows: &[[f64; 2]], values: &[f64]) -> [f64; 2] {
    let largest = |at: usize| rows.iter().filter_map(|row| row.get(at).copied()).fold(f64::MIN_POSITIVE, f64::max);
    let units = [largest(0), largest(1)];
    let rows: Vec<[f64; 2]> = rows.iter().map(|[a, b]| [a / units[0], b / units[1]]).collect();
    let [a, b] = solve(&rows, values);
    [a / units[0], b / units[1]]
}

/// The cost of each feature of a layer, in work of the wanted kinds.
fn cost<const N: usize>(
    reports: &[Report],
    wanted: impl Fn(&str) -> bool,
    features: impl Fn(&Layer) -> [f64; N],
) -> [f64; N] {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for report in reports {
        for layer in &report.environment.layers {
            // Weighted so that a layer counts by its part of the time: small layers are not ignored.
            let weight = 1.0 / work(report, layer, |_| true).max(total_work(report) * 1e-3).sqrt();
            rows.push(features(layer).map(|feature| feature * weight));
            values.push(work(report, layer, &wanted) * weight);
        }
    }
    solve(&rows, &values)
}

/// Core seconds of all threads.
fn total_work(report: &Report) -> f64 {
    report.cold.work.iter().map(|(_, spread)| spread.median).sum()
}

/// Core seconds of a layer's work of the wanted kinds: the traced start has them by layer, and each kind is scaled so that its
/// sum is that of the timed starts.
fn work(report: &Report, layer: &Layer, wanted: impl Fn(&str) -> bool) -> f64 {
    let sum = |layers: &[Layer], kind: &str| -> f64 {
        layers.iter().flat_map(|l| &l.work).filter(|(found, _)| found == kind).map(|(_, seconds)| seconds).sum()
    };
    let timed = report.cold.work.iter().filter(|(kind, _)| WORK.contains(&kind.as_str()) && wanted(kind));
    let of = |(kind, spread): &(String, Spread)| {
        let traced = sum(&report.environment.layers, kind);
        if traced > 0.0 { sum(std::slice::from_ref(layer), kind) * spread.median / traced } else { 0.0 }
    };
    timed.map(of).sum()
}

/// The only kind of work that entries stored without compression do not cause.
const DECODE: &str = "decode";

// Units in which files and bytes are numbers of similar size.

fn files(layer: &Layer) -> f64 {
    layer.files as f64 / 1000.0
}

fn unpacked(layer: &Layer) -> f64 {
    layer.unpacked as f64 / 1e7
}

fn packed(layer: &Layer) -> f64 {
    layer.packed as f64 / 1e7
}

fn saved(layer: &Layer) -> f64 {
    (unpacked(layer) - packed(layer)).max(0.0)
}

impl Costs {
    /// The demand of an environment, from its sizes and its fastest warm start.
    pub(crate) fn demand(&self, report: &Report) -> Demand {
        let features = |layer: &Layer| [files(layer), unpacked(layer), packed(layer), saved(layer)];
        let of = |layer: &Layer| features(layer).iter().zip(self.extraction).map(|(a, b)| a * b).sum::<f64>();
        let environment = &report.environment;
        let warm = report.warm.fastest();
        let (python, cpu) = (warm.python(), warm.cpu.median);
        // `cpack-boot` itself uses about 1 ms of a warm start's CPU time, which is ignored.
        let threads = (cpu / python.max(f64::MIN_POSITIVE)).max(1.0);
        Demand {
            fixed: self.boot[0],
            extraction: environment.layers.iter().map(of).sum::<f64>() * self.idleness
                + self.boot[1] * environment.files as f64,
            packed: environment.packed as f64,
            unpacked: environment.unpacked as f64,
            python: cpu * self.first_import,
            threads,
            waiting: (python - cpu).max(0.0) * self.first_import,
        }
    }
}

/// A prediction beside what was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub(crate) struct Check {
    pub(crate) what: String,
    /// Seconds, as the others.
    pub(crate) predicted: f64,
    /// The median.
    pub(crate) measured: f64,
    pub(crate) fastest: f64,
}

impl Check {
    /// The relative error of the prediction.
    pub(crate) fn error(&self) -> f64 {
        self.predicted / self.measured.max(f64::MIN_POSITIVE) - 1.0
    }
}

/// Predicts the starts of a report on the machine of the report.
pub(crate) fn check(costs: &Costs, report: &Report) -> Vec<Check> {
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
    let row = |what: String, predicted: f64, measured: &Spread| Check {
        what,
        predicted,
        measured: measured.median,
        fastest: measured.min,
    };
    vec![
        row("cold start, until Python".into(), one.ready, &report.cold.boot),
        row("cold start, until the end".into(), one.last, &report.cold.seconds),
        row(format!("{crowd}, the last until Python"), many.ready, &report.together.boot),
        row(format!("{crowd}, the last until the end"), many.last, &report.together.last),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds per file, unpacked byte, packed byte, start, and linked file.
    const TRUE: [f64; 5] = [1e-4, 1e-9, 2e-9, 0.02, 3e-5];

    /// Seconds of decoding per byte that compression saved.
    const SAVED: f64 = 3e-9;

    /// The report of a machine with two cores and the costs of [`TRUE`].
    fn report(layers: &[(u64, u64, u64)]) -> Report {
        let written = |(files, unpacked, packed): &(u64, u64, u64)| {
            TRUE[0] * *files as f64 + TRUE[1] * *unpacked as f64 + TRUE[2] * *packed as f64
        };
        let decoded = |(_, unpacked, packed): &(u64, u64, u64)| SAVED * (unpacked - packed) as f64;
        let (write, decode): (f64, f64) = (layers.iter().map(written).sum(), layers.iter().map(decoded).sum());
        let files: u64 = layers.iter().map(|layer| layer.0).sum();
        let spread = |value: f64| serde_json::to_value(Spread::of([value])).expect("JSON");
        let (extract, link) = ((write + decode) / 2.0, TRUE[4] * files as f64 / 2.0);
        let boot = TRUE[3] + extract + link;
        let starts = |boot: f64, extract: f64, python: f64, cpu: f64| {
            serde_json::json!({
                "seconds": spread(boot + python), "cpu": spread(cpu), "boot": spread(boot), "fetched": 0, "written": 0,
                "phases": [["extract", spread(extract)], ["interpreter", spread(0.1)], ["command", spread(python - 0.1)]],
                // Twice what the traced start had.
                "work": [["decode", spread(decode)], ["write", spread(write)]],
            })
        };
        let layer = |layer: &(u64, u64, u64)| {
            serde_json::json!({
                "name": "l", "version": "1", "files": layer.0, "unpacked": layer.1, "packed": layer.2, "modules": 0,
                "imported": 0, "import_seconds": 0.0,
                "work": [["decode", decoded(layer) / 2.0], ["write", written(layer) / 2.0]],
            })
        };
        let value = serde_json::json!({
            "format": 1, "version": "1", "store": "file", "command": [],
            "machine": {"cpu": "c", "cores": 2, "memory": 1, "load": [0.0, 0.0]},
            "environment": {
                "name": "e", "python": "3", "files": files, "modules": 0,
                "unpacked": layers.iter().map(|l| l.1).sum::<u64>(), "packed": layers.iter().map(|l| l.2).sum::<u64>(),
                "layers": layers.iter().map(layer).collect::<Vec<_>>(),
            },
            "method": {"runs": 1, "cold": "", "warm": "", "removed_between": false},
            "creation": {"seconds": spread(0.0), "again": spread(0.0), "cpu": spread(0.0), "phases": [], "work": [], "sent": 0},
            "modes": [], "cold": starts(boot, extract, 1.2, 9.0), "second": starts(0.0, 0.0, 1.0, 1.0),
            // Its command has two threads.
            "warm": starts(0.0, 0.0, 1.0, 2.0), "waterfall": {"seconds": 0.0, "lanes": []},
            "together": {"containers": 8, "boot": spread(boot + 3.0 * TRUE[3]), "first": spread(0.0),
                "last": spread(boot + 3.0 * TRUE[3] + 8.0 * 1.2), "cpu": spread(0.0), "fetched": 0},
        });
        serde_json::from_value(value).expect("a report")
    }

    #[test]
    fn fit_predicts_other_environments_if_costs_follow_the_model() {
        let shown = [
            report(&[(200, 2_000_000, 900_000), (30, 500_000, 100_000)]),
            report(&[
                (10_000, 4_000_000_000, 900_000_000),
                (50, 900_000_000, 850_000_000),
                (3_000, 40_000_000, 9_000_000),
            ]),
        ];
        let costs = fit(&shown).expect("fits");
        assert!((costs.first_import - 1.2).abs() < 1e-6 && (costs.idleness - 1.0).abs() < 1e-6, "{costs:?}");
        let other = report(&[(5_000, 300_000_000, 90_000_000), (700, 500_000_000, 480_000_000)]);
        for check in check(&costs, &other) {
            assert!(check.error().abs() < 0.02, "{check:?}");
        }
    }

    #[test]
    fn fit_refuses_one_environment_and_reports_without_work() {
        assert!(fit(&[report(&[(1, 1, 1)])]).is_err());
        let mut silent = report(&[(1, 1, 1)]);
        silent.cold.work.clear();
        assert!(fit(&[silent.clone(), silent]).is_err());
    }
}
