//! Skein and Spark on a real YARN, which they share, and Skein on a secure one.

use std::panic::catch_unwind;
use std::path::Path;

use super::library::unittest;
use super::spark::with_spark;
use super::support::yarn::Yarn;
use super::wheel::with_client;

/// Runs files of the client's tests one after the other, whatever became of those before.
fn all(tests: &[(&Path, &str)], variables: &[(&str, String)]) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let run = |(environment, file): &(&Path, &str)| catch_unwind(|| unittest(environment, file, &variables));
    let outcomes: Vec<_> = tests.iter().map(run).collect();
    // What failed has said so by itself.
    assert!(outcomes.iter().all(Result::is_ok));
}

#[test]
fn applications_run_on_yarn() {
    let yarn = Yarn::start(&[]);
    let skein = with_skein();
    let (_alone, spark) = with_spark();
    let of_spark = ["test_spark_yarn.py", "test_spark_interrupted.py", "test_examples_yarn.py"];
    let mut tests = vec![(skein.as_path(), "test_yarn.py")];
    tests.extend(of_spark.map(|file| (spark.as_path(), file)));
    all(&tests, &yarn.variables());
}

#[test]
fn services_run_on_a_secure_yarn() {
    let yarn = Yarn::start(&["secure"]);
    let file = |name| yarn.path(name).display().to_string();
    let mut variables = yarn.variables();
    variables.extend([
        ("KRB5_CONFIG", file("krb5.conf")),
        ("KRB5_CLIENT_KTNAME", file("user.keytab")),
        ("KRB5CCNAME", format!("FILE:{}", file("tickets"))),
        ("JAVA_TOOL_OPTIONS", format!("-Djava.security.krb5.conf={}", file("krb5.conf"))),
    ]);
    all(&[(&with_skein(), "test_yarn_secure.py")], &variables);
}

/// `wheel`: what setuptools older than 70.1, as some interpreters bring it, installs projects with.
fn with_skein() -> std::path::PathBuf {
    with_client("skein", &["skein==0.8.2", "setuptools", "wheel"])
}
