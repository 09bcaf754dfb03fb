//! An HDFS of two data nodes in one Java process: plain, highly available, or secure with a KDC and token files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use cpack_store::{StoreOptions, StoreUri};

use crate::jvm::{MiniCluster, jars};
use crate::seaweed;

/// The owner of `/user/alice`.
pub const USER: &str = "alice";

/// A running HDFS.
#[derive(Debug)]
pub struct Hdfs(MiniCluster);

impl Hdfs {
    /// Starts `MiniHdfs` with these flags (`ha`, `secure`) and waits until it answers.
    pub fn start(flags: &[&str]) -> Self {
        Self(MiniCluster::start("MiniHdfs", "512m", flags))
    }

    /// Sends a command of `MiniHdfs` and waits until it is done.
    pub fn command(&mut self, command: &str) {
        self.0.command(command);
    }

    /// Hadoop's own command for file systems, as [`USER`].
    pub fn shell(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.arg("-cp").arg(format!("{}:{}/*", self.path("conf").display(), jars().display()));
        command.arg("org.apache.hadoop.fs.FsShell").args(arguments).env("HADOOP_USER_NAME", USER);
        command
    }

    /// A file that the server writes: `conf`, `krb5.conf`, `user.keytab`, `tokens`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    /// The options of a client with the cluster's configuration.
    pub fn options(&self) -> StoreOptions {
        let configuration = self.path("conf").display().to_string();
        let variable = |name: &str| match name {
            "HADOOP_CONF_DIR" => Some(configuration.clone()),
            "HADOOP_USER_NAME" => Some(USER.to_owned()),
            _ => None,
        };
        StoreOptions { deadlines: seaweed::short(), ..StoreOptions::new(BTreeMap::new(), variable) }
    }

    /// A property of the client's configuration.
    pub fn property(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path("conf/core-site.xml")).expect("a configuration");
        let start = format!("<name>{name}</name><value>");
        let at = text.find(&start).unwrap_or_else(|| panic!("{name} is not in {text}")) + start.len();
        text[at..].split('<').next().unwrap_or_default().to_owned()
    }

    /// The URI of a store in the home directory of [`USER`], on the default file system.
    pub fn uri(&self, name: &str) -> StoreUri {
        format!("hdfs:///user/{USER}/{name}").parse().expect("a URI")
    }

    /// The same URI with the name node's address.
    pub fn full_uri(&self, name: &str) -> StoreUri {
        format!("{}/user/{USER}/{name}", self.property("fs.defaultFS")).parse().expect("a URI")
    }
}
