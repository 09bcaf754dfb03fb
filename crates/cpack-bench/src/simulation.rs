//! `cluster-pack bench simulate`: computes what a cluster would take, from reports of `bench --json`.

use serde::Serialize;

use cluster_pack::cli::{CommandError, Context, Simulate, table};

use crate::error::BenchError;
use crate::page::seconds;
use crate::report::Report;
use crate::simulate::{Check, Cluster, Costs, Demand, Link, Outcome, Store, check, fit, simulate, stores};

/// Bytes per second of a Gbit/s.
const GBIT: f64 = 1e9 / 8.0;

/// What `bench simulate --json` prints.
#[derive(Debug, Serialize)]
struct Answer {
    costs: Costs,
    environments: Vec<Simulated>,
}

#[derive(Debug, Serialize)]
struct Simulated {
    name: String,
    demand: Demand,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cases: Vec<Case>,
}

#[derive(Debug, Serialize)]
struct Case {
    store: String,
    replication: Option<u32>,
    node_cache: bool,
    outcome: Outcome,
}

/// Simulates a cluster or, with `--check`, compares predictions with measurements.
pub(crate) fn run(context: &Context, arguments: &Simulate) -> Result<(), BenchError> {
    for (flag, value) in
        [("--cores", arguments.cores), ("--network", arguments.network), ("--shared", arguments.shared)]
    {
        if !(value.is_finite() && value > 0.0) {
            return Err(CommandError::Usage(format!("{flag} {value}: expected a number above zero")).into());
        }
    }
    let reports = arguments.reports.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>, _>>()?;
    let costs = fit(&reports)?;
    let others = arguments.of.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>, _>>()?;
    let environments = if others.is_empty() { &reports } else { &others };
    let simulated = |report: &Report| {
        let demand = costs.demand(report);
        Simulated {
            name: report.environment.name.clone(),
            demand,
            checks: if arguments.check { check(&costs, report) } else { Vec::new() },
            cases: if arguments.check { Vec::new() } else { cases(arguments, &demand) },
        }
    };
    let answer = Answer { costs, environments: environments.iter().map(simulated).collect() };
    let text = if arguments.check { checks(&answer) } else { cluster(arguments, &answer) };
    context.voice.answer(text, &answer);
    Ok(())
}

fn cases(arguments: &Simulate, demand: &Demand) -> Vec<Case> {
    let link = Link {
        node: arguments.network * GBIT,
        shared: arguments.shared * GBIT,
        data_nodes: arguments.data_nodes.unwrap_or(arguments.nodes),
    };
    let case = |store: &Store, node_cache| {
        let cluster = Cluster {
            nodes: arguments.nodes,
            containers: arguments.containers,
            cores: arguments.cores,
            network: link.node,
            stagger: arguments.stagger.max(0.0),
            node_cache,
        };
        let outcome = simulate(&cluster, store, demand);
        Case { store: store.name.clone(), replication: store.replication, node_cache, outcome }
    };
    stores(demand.packed, &link).iter().flat_map(|store| [case(store, true), case(store, false)]).collect()
}

fn cluster(arguments: &Simulate, answer: &Answer) -> String {
    let heads = [
        "Store",
        "Copies",
        "Node cache",
        "Python after",
        "all done",
        "Executors wait",
        "Core time",
        "Fetched",
        "Disk per node",
    ];
    let mut parts = vec![format!(
        "{} executors on {} nodes of {} cores, {} Gbit/s each; {} s between the starts of a node's {} containers",
        arguments.nodes * arguments.containers,
        arguments.nodes,
        arguments.cores,
        arguments.network,
        arguments.stagger,
        arguments.containers,
    )];
    for environment in &answer.environments {
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(environment.cases.iter().map(|case| {
            let outcome = &case.outcome;
            vec![
                case.store.clone(),
                case.replication.map_or_else(|| "–".into(), |copies| copies.to_string()),
                if case.node_cache { "yes" } else { "no" }.into(),
                seconds(outcome.ready),
                seconds(outcome.last),
                hours(outcome.waited),
                hours(outcome.work),
                gigabytes(outcome.fetched),
                gigabytes(outcome.written),
            ]
        }));
        parts.push(format!("{}\n{}", environment.name, table(&rows, &[1, 3, 4, 5, 6, 7, 8])));
    }
    parts.join("\n\n")
}

fn checks(answer: &Answer) -> String {
    let header = ["Environment", "What", "Predicted", "Median", "Off by", "Fastest"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for environment in &answer.environments {
        rows.extend(environment.checks.iter().map(|check| {
            let off = format!("{:+.0} %", 100.0 * check.error());
            let [predicted, median, fastest] = [check.predicted, check.measured, check.fastest].map(seconds);
            vec![environment.name.clone(), check.what.clone(), predicted, median, off, fastest]
        }));
    }
    table(&rows, &[2, 3, 4, 5])
}

fn hours(seconds: f64) -> String {
    if seconds < 5940.0 { format!("{:.1} min", seconds / 60.0) } else { format!("{:.1} h", seconds / 3600.0) }
}

fn gigabytes(bytes: f64) -> String {
    if bytes < 1e12 { format!("{:.2} GB", bytes / 1e9) } else { format!("{:.2} TB", bytes / 1e12) }
}
