//! Skein on a real YARN; Skein and Spark on a secure one.

use super::library::unittest;
use super::spark::some_jobs_run_on_yarn;
use super::support::yarn::Yarn;
use super::wheel::with_client;

/// Runs a file of the client's tests with Skein, whose environment is for it alone meanwhile.
fn with_skein(file: &str, variables: &[(&str, String)]) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // `wheel`: what setuptools older than 70.1, as some interpreters bring it, installs projects with.
    let environment = with_client("skein", &["skein==0.8.2", "setuptools", "wheel"]);
    unittest(&environment, file, &variables);
}

#[test]
fn services_run_on_yarn() {
    let yarn = Yarn::start(&[]);
    with_skein("test_yarn.py", &yarn.variables());
}

#[test]
fn applications_run_on_a_secure_yarn() {
    let yarn = Yarn::start(&["secure"]);
    let file = |name| yarn.path(name).display().to_string();
    let mut variables = yarn.variables();
    variables.extend([
        ("KRB5_CONFIG", file("krb5.conf")),
        ("KRB5_CLIENT_KTNAME", file("user.keytab")),
        ("KRB5CCNAME", format!("FILE:{}", file("tickets"))),
        ("JAVA_TOOL_OPTIONS", format!("-Djava.security.krb5.conf={}", file("krb5.conf"))),
    ]);
    with_skein("test_yarn_secure.py", &variables);
    some_jobs_run_on_yarn("4", &variables, "hdfs:///user/alice/spark");
}
