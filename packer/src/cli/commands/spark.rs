//! `cluster-pack spark conf` and `cluster-pack spark-submit`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::prepare::{NAME, Prepared, Shipped, link_into};
use crate::cli::arguments::{DeployMode, JobArguments, SparkConf, SparkSubmit};
use crate::cli::context::{Context, variable};
use crate::cli::error::CommandError;
use crate::cli::report::LayerReport;
use crate::cli::start_arguments::StartArguments;
use crate::launcher::BOOT;
use crate::spark::{Launcher, arguments, is_of_machines, master, properties};

const SUBMIT: &str = "spark-submit";

/// What `spark conf --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    properties: BTreeMap<String, String>,
    environment: String,
    /// The launcher's URI for the cluster.
    launcher: String,
    /// The executable's URI for the cluster, if the launcher does not contain it.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The launcher's path on this machine.
    local: String,
    layers: Vec<LayerReport>,
}

/// Prints the properties that Spark needs.
pub(in crate::cli) fn conf(context: &Context, given: &SparkConf) -> Result<(), CommandError> {
    let (prepared, shipped) = make(context, Some(&given.master), given.no_editable, &given.start)?;
    let driver = prepared.python.display().to_string();
    let local = shipped.local_uri();
    let launcher = described(&shipped, &local, &driver);
    let properties = properties(&launcher, &given.master, given.deploy_mode == DeployMode::Cluster);
    let lines: Vec<String> = properties.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let report = Report {
        properties,
        environment: prepared.launcher.job.environment.to_hex(),
        local: shipped.local.display().to_string(),
        launcher: shipped.remote.as_ref().map_or_else(|| shipped.local_uri(), |remote| remote.launcher.clone()),
        boot: shipped.remote.as_ref().map(|remote| remote.boot.clone()),
        layers: prepared.layers,
    };
    context.voice.answer(lines.join("\n"), &report);
    Ok(())
}

/// Replaces this process with the real `spark-submit`. Returns only if that fails.
pub(in crate::cli) fn submit(context: &Context, given: &SparkSubmit) -> Result<Infallible, CommandError> {
    let (prepared, shipped) = make(context, master(&given.arguments), false, &StartArguments::default())?;
    let program = find(&prepared.python)?;
    let driver = prepared.python.display().to_string();
    let uri = shipped.local_uri();
    if let Ok(directory) = std::env::current_dir()
        && !link_into(&directory, &shipped).unwrap_or(false)
    {
        context.voice.warn(format!(
            "{NAME} in {} is not this launcher: Spark 4 plans data sources and table functions with it",
            directory.display()
        ));
    }
    let mut command = Command::new(&program);
    command.args(arguments(&described(&shipped, &uri, &driver), &given.arguments));
    // pip's spark-submit finds its own home by this variable; the driver's interpreter is set by a property.
    if variable("SPARK_HOME").or_else(|| variable("PYSPARK_DRIVER_PYTHON")).is_none() {
        command.env("PYSPARK_DRIVER_PYTHON", &prepared.python);
    }
    Err(CommandError::io("run", program)(command.exec()))
}

fn make(
    context: &Context,
    master: Option<&str>,
    no_editable: bool,
    start: &StartArguments,
) -> Result<(Prepared, Shipped), CommandError> {
    if master.is_some_and(is_of_machines) {
        context.warn_of_own_store();
    }
    let arguments = JobArguments { no_editable, start: start.clone(), ..JobArguments::default() };
    let prepared = context.prepare(&arguments)?;
    let shipped = context.ship(&prepared)?;
    Ok((prepared, shipped))
}

fn described<'a>(shipped: &'a Shipped, local: &'a str, driver: &'a str) -> Launcher<'a> {
    let remote = shipped.remote.as_ref().map(|remote| [(&*remote.launcher, NAME), (&*remote.boot, BOOT)]);
    Launcher { name: NAME, local, remote, driver }
}

/// The real `spark-submit`: in `SPARK_HOME`, on `PATH`, or in the environment (pip's pyspark has one), in this order.
fn find(python: &Path) -> Result<PathBuf, CommandError> {
    let home = variable("SPARK_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = python.parent().map(Path::to_owned);
    let places = home.into_iter().chain(std::env::split_paths(&path)).chain(beside);
    places.map(|place| place.join(SUBMIT)).find(|program| program.is_file()).ok_or_else(|| {
        CommandError::Usage(format!(
            "{SUBMIT} not found: set SPARK_HOME, put it on PATH, or install pyspark into the environment"
        ))
    })
}
