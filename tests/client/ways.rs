//! What people ship to Spark today, taken as it is, by the examples: a conda environment, an archive, a wheelhouse.

use std::fs;
use std::path::{Path, PathBuf};

use cpack_test::conda;
use cpack_test::programs::{World, boot, cluster_pack, installed, root, succeeded, utf8};

use super::spark::{
    INTERPRETER, LOCAL_CLUSTER, PACKAGES, Results, environment, jobs, plain_results, results, spark_home, yarn_options,
};

/// Jobs whose executors import what was shipped.
const JOBS: [&str; 3] = ["rdd", "interpreter", "pandas_udf"];

/// A cluster, and a Spark of this machine whose environment is not what executors get.
pub(super) struct Cluster<'a> {
    spark: &'a str,
    world: World,
    /// Options of `spark-submit`.
    options: Vec<String>,
    /// Where a launcher goes.
    store: String,
    variables: Vec<(&'a str, String)>,
}

impl<'a> Cluster<'a> {
    /// Two workers on this machine.
    fn local(spark: &'a str) -> Self {
        let world = World::new();
        let store = utf8(&world.path("store")).to_owned();
        Self { spark, world, options: LOCAL_CLUSTER.map(str::to_owned).into(), store, variables: Vec::new() }
    }

    /// The YARN that `variables` lead to.
    pub(super) fn yarn(spark: &'a str, variables: &[(&'a str, String)], store: &str) -> Self {
        let (options, variables) = (yarn_options(spark), variables.to_vec());
        Self { spark, world: World::new(), options, store: store.to_owned(), variables }
    }

    /// Runs [`JOBS`] by an example, whose executors find Python at `interpreter`.
    fn run(&self, example: &str, variable: (&str, &Path), arguments: &[&str], interpreter: &str) {
        let home = spark_home(&self.world, &environment(self.spark));
        // The driver's interpreter is the nodes' first one, too.
        let mut places =
            vec![home.join("bin"), cluster_pack().parent().expect("a directory").into(), venv().join("bin")];
        let cluster = self.variables.iter().find(|(name, _)| *name == "PATH").map_or("/usr/bin:/bin", |(_, path)| path);
        places.extend(std::env::split_paths(cluster));
        let mut command = self.world.command(root().join("examples").join(example));
        command.env("CPACK_STORE", &self.store).env(variable.0, variable.1).envs(self.variables.iter().cloned());
        command.env("SPARK_HOME", &home).env("PATH", std::env::join_paths(places).expect("paths"));
        command.args(arguments).args(&self.options);
        let mut found: Results =
            results(&self.world, command.arg(jobs()).arg(self.world.path("result.json")).args(JOBS));
        assert_eq!(found.remove(INTERPRETER), Some(interpreter.into()));
        let mut plain = plain_results(self.spark);
        plain.retain(|name, _| JOBS.contains(&name.as_str()));
        assert_eq!(found, plain);
    }

    /// A conda environment becomes a launcher, and no executor needs a Python beside it.
    pub(super) fn runs_conda_environment(&self) {
        let prefix = conda_environment(&self.world);
        self.run("spark_conda.sh", ("CONDA_PREFIX", &prefix), &[], "./env-python");
    }

    /// Spark unpacks the archive for each executor.
    pub(super) fn runs_archive(&self) {
        self.run("spark_archive.sh", ("VIRTUAL_ENV", &venv()), &[], "./environment/bin/python");
    }

    /// The boot program is the executors' Python, and a variable names the wheelhouse.
    fn runs_wheelhouse(&self) {
        let (venv, wheelhouse) = (venv(), self.world.path("wheelhouse.zip"));
        let arguments = ["pack", "--format", "wheelhouse", "--venv", utf8(&venv), "-o", utf8(&wheelhouse)];
        succeeded(&self.world.pack(&arguments), "pack");
        self.run("spark_wheelhouse.sh", ("CPACK_BOOT", boot()), &[utf8(&wheelhouse)], "./cpack-boot");
    }
}

/// What the jobs import, without Spark.
fn venv() -> PathBuf {
    installed("spark-less", &PACKAGES)
}

/// A conda environment with what [`venv`] has, installed by pip.
fn conda_environment(world: &World) -> PathBuf {
    let (prefix, wheels) = (world.path("conda"), world.path("wheels"));
    conda::install(&prefix, &["python"]);
    let packed = world.pack(&["pack", "--format", "wheelhouse", "--venv", utf8(&venv()), "-o", utf8(&wheels)]);
    succeeded(&packed, "pack --format wheelhouse");
    let requirements = wheels.join("requirements.txt");
    conda::pip_install(&prefix, &["--find-links", utf8(&wheels), "--requirement", utf8(&requirements)]);
    fs::remove_dir_all(wheels).expect("removes");
    prefix
}

fn each_way_runs(spark: &str) {
    let cluster = Cluster::local(spark);
    cluster.runs_conda_environment();
    cluster.runs_archive();
    cluster.runs_wheelhouse();
}

#[test]
fn shipped_environments_run_on_spark_3() {
    each_way_runs("3.5");
}

#[test]
fn shipped_environments_run_on_spark_4() {
    each_way_runs("4");
}
