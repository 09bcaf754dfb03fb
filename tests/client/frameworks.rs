//! Dask, Ray, Kubernetes, and Skein on a real YARN.

use std::fs;

use super::library::unittest;
use super::support::yarn::Yarn;
use super::wheel::with_client;

#[test]
fn frameworks_start_their_workers_by_launchers() {
    let environment = with_client("frameworks", &["distributed", "ray", "kubernetes-validate"]);
    unittest(&environment, "test_frameworks.py", &[]);
}

#[test]
fn services_run_on_yarn() {
    // `wheel`: what setuptools older than 70.1, as some interpreters bring it, installs a project with.
    let environment = with_client("skein", &["skein==0.8.2", "setuptools", "wheel"]);
    let yarn = Yarn::start();
    let conf = yarn.path("conf").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", yarn.path("bin").display());
    // As on a real client: the cache of executors is found by what YARN says, not by a variable.
    let variables = [("HADOOP_CONF_DIR", conf.as_str()), ("PATH", path.as_str()), ("CPACK_CACHE_DIR", "")];
    unittest(&environment, "test_yarn.py", &variables);
    assert!(fs::exists(yarn.path("conf/yarn-site.xml")).unwrap_or_default());
}
