//! HDFS and YARN with two node managers in one Java process. Containers are real processes.

use std::path::PathBuf;

use crate::jvm::MiniCluster;

/// A running cluster.
#[derive(Debug)]
pub struct Yarn(MiniCluster);

impl Yarn {
    /// Starts `MiniYarn` with these flags (`secure`) and waits until it answers.
    pub fn start(flags: &[&str]) -> Self {
        Self(MiniCluster::start("MiniYarn", "900m", flags))
    }

    /// A file that the cluster writes: `conf`, `bin`, `krb5.conf`, `user.keytab`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The variables of a client. `CPACK_CACHE_DIR` is empty: caches on nodes are found by YARN's variables.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.path(name).display().to_string();
        let path = format!("{}:{}", file("bin"), std::env::var("PATH").unwrap_or_default());
        vec![("HADOOP_CONF_DIR", file("conf")), ("PATH", path), ("CPACK_CACHE_DIR", String::new())]
    }
}

impl Drop for Yarn {
    /// Lets the node managers stop their containers.
    fn drop(&mut self) {
        self.0.stop();
    }
}
