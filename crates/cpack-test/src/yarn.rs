//! HDFS and YARN with two node managers in one Java process. Containers are real processes.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use crate::hadoop::{INSTALL_JAVA, OPENED, SOURCES, jars};
use crate::process::Server;

/// A running cluster.
#[derive(Debug)]
pub struct Yarn {
    directory: tempfile::TempDir,
    commands: Option<ChildStdin>,
    server: Server,
}

impl Yarn {
    /// Starts one with the flags of `MiniYarn` (`secure`) and waits until it answers.
    pub fn start(flags: &[&str]) -> Self {
        let jars = jars();
        let directory = tempfile::tempdir().expect("a directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new("java");
        command.arg("-Xmx900m").arg("-XX:+UseSerialGC").arg(format!("-Djars={}", jars.display()));
        command.args(OPENED.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        command.arg("-cp").arg(format!("{SOURCES}:{}/*", jars.display()));
        command.arg(Path::new(SOURCES).join("MiniYarn.java")).arg(directory.path()).args(flags);
        command.current_dir(directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut server = Server::start(&mut command, INSTALL_JAVA);
        let commands = server.0.stdin.take();
        let mut answers = BufReader::new(server.0.stdout.take().expect("a pipe"));
        let mut line = String::new();
        let _ = answers.read_line(&mut line);
        let log = || std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        assert_eq!(line.trim(), "READY", "YARN does not start; needs {INSTALL_JAVA}:\n{}", log());
        Self { directory, commands, server }
    }

    /// A file that the server left: `conf`, `bin`, `krb5.conf`, `user.keytab`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a client has set. It finds caches on nodes by what YARN says, not by a variable.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let file = |name| self.path(name).display().to_string();
        let path = format!("{}:{}", file("bin"), std::env::var("PATH").unwrap_or_default());
        vec![("HADOOP_CONF_DIR", file("conf")), ("PATH", path), ("CPACK_CACHE_DIR", String::new())]
    }
}

impl Drop for Yarn {
    /// Lets the node managers stop their containers.
    fn drop(&mut self) {
        drop(self.commands.take());
        let _ = self.server.0.wait();
    }
}
