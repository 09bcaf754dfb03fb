//! Dask, Ray and Kubernetes.

use super::library::unittest;
use super::wheel::with_client;

#[test]
fn frameworks_start_their_workers_by_launchers() {
    let environment = with_client("frameworks", &["distributed", "ray", "kubernetes-validate"]);
    unittest(&environment, "test_frameworks.py", &[]);
}
