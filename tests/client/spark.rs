//! Spark with a launcher in the place of its Python: the same jobs give the same results as with the plain environment.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cpack_test::process::Server;
use cpack_test::programs::{World, cluster_pack, installed, text, utf8};
use cpack_test::seaweed::{BUCKET, Seaweed, credentials};
use cpack_test::{free_port, jvm};

use super::library::unittest;
use super::wheel::{Environment, PYTHON, with_client};

const JAVA: &str = "a JDK of 17 or later (Debian: default-jdk-headless)";

/// The result that tells which interpreter executors were given.
pub(super) const INTERPRETER: &str = "interpreter of executors";

/// What each job found.
pub(super) type Results = BTreeMap<String, serde_json::Value>;

/// What a job of pandas needs, beside Spark.
pub(super) const PACKAGES: [&str; 4] = ["pandas", "numpy", "pyarrow", "cloudpickle"];

/// What the client's tests of Spark need beside: Skein; what executes notebooks; what builds projects where no
/// environment is made for it. `wheel`: what setuptools older than 70.1, as some interpreters bring it, installs them with.
const CLIENT: [&str; 5] = ["skein==0.8.2", "nbclient", "ipykernel", "setuptools", "wheel"];

/// An environment with Spark and the client.
pub(super) fn with_spark() -> Environment {
    with_client("spark-client", &[&["pyspark==4.*"][..], &PACKAGES[..3], &CLIENT].concat())
}

pub(super) fn environment(spark: &str) -> PathBuf {
    installed(&format!("spark-{spark}"), &[&[&*format!("pyspark=={spark}.*")][..], &PACKAGES].concat())
}

pub(super) fn jobs() -> String {
    format!("{PYTHON}/tests/spark_jobs.py")
}

/// Runs `command` as a driver and returns the results that it left.
pub(super) fn results(world: &World, command: &mut Command) -> Results {
    let log = world.path("driver.log");
    let file = fs::File::create(&log).expect("a log");
    command.env("SPARK_LOCAL_IP", "127.0.0.1").env("SPARK_LOCAL_DIRS", world.path("local"));
    command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
    let status = command.status().expect("starts");
    let said = fs::read(&log).map(|bytes| text(&bytes)).unwrap_or_default();
    let lines: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
    let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or_default().join("\n");
    assert!(status.success(), "{command:?} ({status}); needs {JAVA}:\n{tail}");
    let result = world.path("result.json");
    let found = serde_json::from_slice(&fs::read(&result).expect("a result")).expect("JSON");
    fs::remove_file(result).expect("removes");
    found
}

/// The Spark of an environment, as links in `world`.
///
/// A local cluster leaves the directories of its executors in `work` of Spark's home. In the environment they would be packed by
/// the next run: 2.5 GB after a day of tests.
pub(super) fn spark_home(world: &World, environment: &Path) -> PathBuf {
    let (home, package) = (world.path("spark"), site(environment).join("pyspark"));
    if !home.exists() {
        fs::create_dir(&home).expect("creates");
        for entry in fs::read_dir(package).expect("pyspark").flatten().filter(|entry| entry.file_name() != "work") {
            symlink(entry.path(), home.join(entry.file_name())).expect("links");
        }
    }
    home
}

/// The jobs with a launcher from `store`.
fn submit(world: &World, store: &Path, environment: &Path, options: &[&str]) -> Command {
    let mut command = world.command(cluster_pack());
    command.env("SPARK_HOME", spark_home(world, environment));
    command.arg("--store").arg(store).arg("--venv").arg(environment).arg("spark-submit");
    command.args(options).arg(jobs()).arg(world.path("result.json"));
    command
}

/// The results of all jobs with the plain environment, on a local cluster. They run once, for all tests.
pub(super) fn plain_results(spark: &str) -> Results {
    static FOUND: [OnceLock<Results>; 2] = [OnceLock::new(), OnceLock::new()];
    let run = || {
        let (world, environment) = (World::new(), environment(spark));
        let mut command = world.command(environment.join("bin/spark-submit"));
        command.env("SPARK_HOME", spark_home(&world, &environment));
        command.env("PYSPARK_PYTHON", environment.join("bin/python")).args(LOCAL_CLUSTER);
        results(&world, command.arg(jobs()).arg(world.path("result.json")))
    };
    FOUND[usize::from(spark == "4")].get_or_init(run).clone()
}

/// Those of the jobs in [`SOME`].
fn some(mut results: Results) -> Results {
    results.retain(|name, _| name == INTERPRETER || SOME.contains(&name.as_str()));
    results
}

/// Compares all results but the path of the interpreter, which must be the launcher's.
fn same(mut booted: Results, mut plain: Results) {
    assert_eq!(booted.remove(INTERPRETER), Some("./env-python".into()));
    assert_ne!(plain.remove(INTERPRETER), Some("./env-python".into()));
    assert!(!booted.is_empty());
    assert_eq!(booted, plain);
}

pub(super) const LOCAL_CLUSTER: [&str; 2] = ["--master", "local-cluster[2,1,1024]"];

/// Jobs of each kind, where all would take long.
const SOME: [&str; 4] = ["rdd", "interpreter", "pandas_udf", "broadcast_and_accumulator"];

/// Each task starts an interpreter of its own.
const NO_DAEMON: [&str; 2] = ["--conf", "spark.python.use.daemon=false"];

fn whole_suite(spark: &str) {
    let world = World::new();
    let (environment, store) = (environment(spark), world.path("store"));
    let plain = plain_results(spark);
    same(results(&world, &mut submit(&world, &store, &environment, &LOCAL_CLUSTER)), plain.clone());
    let mut command = submit(&world, &store, &environment, &[LOCAL_CLUSTER, NO_DAEMON].concat());
    same(results(&world, command.args(SOME)), some(plain.clone()));
    runs_on_lazy_starts(&world, &store, &environment, plain);
}

/// Some of the jobs on executors whose environment is served while it is built, in a node cache of their own.
fn runs_on_lazy_starts(world: &World, store: &Path, environment: &Path, plain: Results) {
    let (node, metrics) = (world.path("lazy-node"), world.path("lazy-metrics"));
    fs::create_dir(&node).expect("creates");
    let variables = [("START", "lazy"), ("CACHE_DIR", utf8(&node)), ("METRICS", utf8(&metrics))];
    let variables = variables.map(|(name, value)| format!("spark.executorEnv.CPACK_{name}={value}"));
    let options = variables.iter().flat_map(|variable| ["--conf", variable.as_str()]);
    let options: Vec<&str> = LOCAL_CLUSTER.into_iter().chain(options).collect();
    same(results(world, submit(world, store, environment, &options).args(SOME)), some(plain));
    let metrics = fs::read_to_string(metrics).expect("metrics");
    assert!(metrics.contains(r#""start":"lazy""#) && !metrics.contains(r#""start":"cold""#), "{metrics}");
}

/// Options of `spark-submit` for a YARN whose nodes are this machine.
pub(super) fn yarn_options(spark: &str) -> Vec<String> {
    let jars = format!("spark.yarn.jars=local:{}/pyspark/jars/*", site(&environment(spark)).display());
    let sizes = ["spark.executor.memory=1g", "spark.driver.memory=640m", "spark.yarn.am.memory=384m"];
    let properties = [&sizes[..], &[&jars, "spark.driver.host=127.0.0.1"]].concat();
    let properties = properties.into_iter().flat_map(|property| ["--conf", property]);
    ["--master", "yarn", "--num-executors", "2"].into_iter().chain(properties).map(str::to_owned).collect()
}

/// Some of the jobs on the YARN that `variables` lead to, which need its nodes' own places and file system.
pub(super) fn some_jobs_run_on_yarn(spark: &str, variables: &[(&str, String)], store: &str) {
    let world = World::new();
    let options = yarn_options(spark);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut command = submit(&world, Path::new(store), &environment(spark), &options);
    same(results(&world, command.args(SOME).envs(variables.iter().cloned())), some(plain_results(spark)));
}

#[test]
fn jobs_of_spark_3_give_the_same_results() {
    whole_suite("3.5");
}

#[test]
fn jobs_of_spark_4_give_the_same_results() {
    whole_suite("4");
}

/// A master and two workers, each with a directory of its own.
struct Standalone {
    url: String,
    _servers: Vec<Server>,
}

impl Standalone {
    fn start(world: &World, environment: &Path) -> Self {
        let package = format!("{}/pyspark", site(environment).display());
        let port = free_port().to_string();
        let url = format!("spark://127.0.0.1:{port}");
        let class = |name: &str, log: &str| {
            let mut command = world.command(format!("{package}/bin/spark-class"));
            let log = fs::File::create(world.path(log)).expect("a log");
            command.env("SPARK_HOME", &package).env("SPARK_LOCAL_IP", "127.0.0.1").env("SPARK_DAEMON_MEMORY", "256m");
            command.arg(format!("org.apache.spark.deploy.{name}")).stdout(log.try_clone().expect("a log")).stderr(log);
            command
        };
        let mut master = class("master.Master", "master.log");
        master.args(["--host", "127.0.0.1", "--port", &port, "--webui-port", "0"]);
        let mut servers = vec![Server::start(&mut master, JAVA)];
        for number in 0..2 {
            let mut worker = class("worker.Worker", &format!("worker-{number}.log"));
            worker.args(["--host", "127.0.0.1", "--webui-port", "0", "--cores", "1", "--memory", "1g", "--work-dir"]);
            worker.arg(world.path(&format!("work-{number}"))).arg(&url);
            servers.push(Server::start(&mut worker, JAVA));
        }
        Self { url, _servers: servers }
    }
}

fn site(environment: &Path) -> PathBuf {
    let lib = fs::read_dir(environment.join("lib")).expect("lib").flatten().next().expect("a version").path();
    lib.join("site-packages")
}

#[test]
fn sessions_of_the_client_run_on_a_standalone_cluster() {
    let environment = with_spark();
    let world = World::new();
    let s3 = Seaweed::start();
    let credentials = credentials();
    let cluster = Standalone::start(&world, &environment);
    let (endpoint, jars, node) = (format!("http://127.0.0.1:{}", s3.port), jvm::spark_jars(), world.path("node"));
    let mut variables = vec![
        // The workers'.
        ("CPACK_CACHE_DIR", utf8(&node)),
        ("SPARK_MASTER", cluster.url.as_str()),
        ("SPARK_LOCAL_IP", "127.0.0.1"),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("S3_BUCKET", BUCKET),
        ("S3_JARS", utf8(&jars)),
    ];
    variables.extend(credentials.iter().map(|(name, value)| (*name, value.as_str())));
    unittest(&environment, "test_spark_session.py", &variables);
}
