//! Applications of Skein and Spark on a real YARN, which they share, and on a secure one. The longest tests of this suite:
//! tests start in the order of their names, so these have the first.

use std::panic::catch_unwind;
use std::path::Path;

use cpack_test::yarn::Yarn;

use super::library::unittest;
use super::spark::{some_jobs_run_on_yarn, with_spark};
use super::ways::Cluster;
use super::wheel::{Environment, with_client};

/// Runs files of the client's tests one after the other, even if one fails.
fn all(environment: &Path, files: &[&str], variables: &[(&str, String)]) -> bool {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // What fails says so by itself.
    let outcomes: Vec<_> = files.iter().map(|file| catch_unwind(|| unittest(environment, file, &variables))).collect();
    outcomes.iter().all(Result::is_ok)
}

#[test]
fn applications_run_on_yarn() {
    let yarn = Yarn::start(&[]);
    let variables = yarn.variables();
    // Each environment is for this test while it is used.
    // What is to be interrupted comes first: a start builds where most of its layers are, which would be where others left
    // theirs, and not at the place that it is told.
    let applications =
        all(&with_spark(), &["test_spark_interrupted.py", "test_spark_yarn.py", "test_examples_yarn.py"], &variables);
    let services = all(&with_skein(), &["test_yarn.py"], &variables);
    assert!(services && applications);
    // The tests above have the other version.
    some_jobs_run_on_yarn("3.5", &variables, "hdfs:///tmp/spark-3");
    let cluster = Cluster::yarn("4", &variables, "hdfs:///tmp/ways");
    cluster.runs_conda_environment();
    cluster.runs_archive();
}

#[test]
fn applications_run_on_secure_yarn() {
    let yarn = Yarn::start(&["secure"]);
    let file = |name| yarn.path(name).display().to_string();
    let java = std::env::var("JAVA_TOOL_OPTIONS").unwrap_or_default();
    let mut variables = yarn.variables();
    variables.extend([
        ("KRB5_CONFIG", file("krb5.conf")),
        ("KRB5_CLIENT_KTNAME", file("user.keytab")),
        ("KRB5CCNAME", format!("FILE:{}", file("tickets"))),
        ("JAVA_TOOL_OPTIONS", format!("{java} -Djava.security.krb5.conf={}", file("krb5.conf"))),
    ]);
    assert!(all(&with_skein(), &["test_yarn_secure.py"], &variables));
    some_jobs_run_on_yarn("4", &variables, "hdfs:///user/alice/spark");
}

/// `wheel`: what setuptools older than 70.1, as some interpreters bring it, installs projects with. `colorama`: a layer that
/// no application of Spark has left on the nodes, so that the first service has something to extract.
fn with_skein() -> Environment {
    with_client("skein", &["skein==0.8.2", "setuptools", "wheel", "colorama"])
}
