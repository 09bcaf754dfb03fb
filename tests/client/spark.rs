//! Spark with a launcher in the place of its Python: the same jobs give the same results as with the plain environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::programs::{World, cluster_pack, installed, text, utf8};
use super::support::free_port;
use super::support::process::Server;
use super::wheel::{PYTHON, install_client};

const JAVA: &str = "a JDK of 17 or later (Debian: default-jdk-headless)";

/// The result that tells which interpreter executors were given.
const INTERPRETER: &str = "interpreter of executors";

/// What a job of pandas needs, beside Spark.
const PACKAGES: [&str; 4] = ["pandas", "numpy", "pyarrow", "cloudpickle"];

fn environment(spark: &str) -> PathBuf {
    installed(&format!("spark-{spark}"), &[&[&*format!("pyspark=={spark}.*")][..], &PACKAGES].concat())
}

fn jobs() -> String {
    format!("{PYTHON}/tests/spark_jobs.py")
}

/// Runs `command` as a driver and returns the results that it left.
fn results(world: &World, command: &mut Command) -> BTreeMap<String, serde_json::Value> {
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

fn submit(world: &World, environment: &Path, options: &[&str]) -> BTreeMap<String, serde_json::Value> {
    let mut command = world.command(cluster_pack());
    command.arg("--store").arg(world.path("store")).arg("--venv").arg(environment).arg("spark-submit");
    command.args(options).arg(self::jobs()).arg(world.path("result.json"));
    results(world, &mut command)
}

fn plain(world: &World, environment: &Path, options: &[&str]) -> BTreeMap<String, serde_json::Value> {
    let python = environment.join("bin/python");
    let mut command = world.command(environment.join("bin/spark-submit"));
    command.env("PYSPARK_PYTHON", &python).args(options).arg(self::jobs()).arg(world.path("result.json"));
    results(world, &mut command)
}

/// Compares all results but the path of the interpreter, which must be the launcher's.
fn same(mut booted: BTreeMap<String, serde_json::Value>, mut plain: BTreeMap<String, serde_json::Value>) {
    assert_eq!(booted.remove(INTERPRETER), Some("./env-python".into()));
    assert_ne!(plain.remove(INTERPRETER), Some("./env-python".into()));
    assert!(!booted.is_empty());
    assert_eq!(booted, plain);
}

const LOCAL_CLUSTER: [&str; 2] = ["--master", "local-cluster[2,1,1024]"];

fn whole_suite(spark: &str) {
    let world = World::new();
    let environment = environment(spark);
    same(submit(&world, &environment, &LOCAL_CLUSTER), plain(&world, &environment, &LOCAL_CLUSTER));
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
fn a_session_of_the_client_runs_on_a_standalone_cluster() {
    let world = World::new();
    let environment = environment("4");
    install_client(&environment);
    let cluster = Standalone::start(&world, &environment);
    let project = world.path("project");
    fs::create_dir_all(project.join("src/shipped")).expect("creates");
    fs::write(project.join("pyproject.toml"), PROJECT).expect("writes");
    let module = project.join("src/shipped/__init__.py");
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "-e"]).arg(&project);
    fs::write(&module, "ANSWER = 1\n").expect("writes");
    super::wheel::succeed(&mut command);
    for answer in [1, 2] {
        fs::write(&module, format!("ANSWER = {answer}\n")).expect("writes");
        let mut command = world.command(environment.join("bin/python"));
        command.arg(format!("{PYTHON}/tests/spark_session.py")).arg(&cluster.url).arg(world.path("result.json"));
        command.env("CPACK_STORE", world.path("store")).env_remove("CPACK_BOOT");
        let found = results(&world, &mut command);
        // What was changed here is seen there, and nothing else was sent.
        assert_eq!(found["answers"], serde_json::json!([answer]));
        assert_eq!(found["half"], serde_json::json!(2475.0));
        let prefix = found["prefix"].as_str().expect("a path");
        assert!(prefix.starts_with(utf8(&world.path("node"))), "{prefix}");
    }
}

const PROJECT: &str = r#"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "shipped"
version = "1.0"
[tool.setuptools.packages.find]
where = ["src"]
"#;
