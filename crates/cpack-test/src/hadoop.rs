//! An HDFS of two data nodes in one Java process: plain, highly available, or secure with a KDC and token files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use cpack_store::{StoreOptions, StoreUri};

use super::{cached, run, seaweed};
use crate::process::Server;

/// Part of the name of the cache: raised when `hadoop/pom.xml` changes.
const JARS: &str = "hadoop-3.4.1-jars-1";

pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hadoop");
pub const INSTALL_JAVA: &str = "a JDK of 17 or later (Debian: default-jdk-headless)";
const INSTALL_MAVEN: &str = "Maven (Debian: maven), with access to Maven Central";

/// Hadoop looks into classes of Java's own.
pub const OPENED: [&str; 8] = [
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.security.jgss/sun.security.krb5",
    "java.security.jgss/sun.security.krb5.internal",
];

/// The user who owns `/user/alice`.
pub const USER: &str = "alice";

/// A running HDFS.
#[derive(Debug)]
pub struct Hdfs {
    directory: tempfile::TempDir,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _server: Server,
}

impl Hdfs {
    /// Starts one with the flags of `MiniHdfs` (`ha`, `secure`) and waits until it answers.
    pub fn start(flags: &[&str]) -> Self {
        let jars = jars();
        let directory = tempfile::tempdir().expect("a directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new("java");
        command.arg("-Xmx512m").arg("-XX:+UseSerialGC");
        command.args(OPENED.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        // Logs go to standard error: standard output is for answers.
        command.arg("-cp").arg(format!("{SOURCES}:{}/*", jars.display()));
        command.arg(Path::new(SOURCES).join("MiniHdfs.java")).arg(directory.path()).args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut server = Server::start(&mut command, INSTALL_JAVA);
        let commands = server.0.stdin.take().expect("a pipe");
        let answers = BufReader::new(server.0.stdout.take().expect("a pipe"));
        let mut hdfs = Self { directory, commands, answers, _server: server };
        hdfs.expect("READY");
        hdfs
    }

    /// Gives a command of `MiniHdfs` and waits until it is done.
    pub fn command(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the server reads");
        self.expect("OK");
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        let _ = self.answers.read_line(&mut line);
        if line.trim() != word {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!(
                "HDFS says {line:?} instead of {word}: install {INSTALL_JAVA} if that is missing. Its log ends:\n{}",
                tail.join("\n")
            );
        }
    }

    /// Hadoop's own command for file systems, as [`USER`].
    pub fn shell(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("java");
        command.arg("-cp").arg(format!("{}:{}/*", self.path("conf").display(), jars().display()));
        command.arg("org.apache.hadoop.fs.FsShell").args(arguments).env("HADOOP_USER_NAME", USER);
        command
    }

    /// A file that the server left: `conf`, `krb5.conf`, `user.keytab`, `tokens`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The options of a client that has the cluster's configuration.
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

    /// The same, with the name node's address written out.
    pub fn full_uri(&self, name: &str) -> StoreUri {
        format!("{}/user/{USER}/{name}", self.property("fs.defaultFS")).parse().expect("a URI")
    }
}

pub fn jars() -> PathBuf {
    cached(JARS, |place| copy_jars(&Path::new(SOURCES).join("pom.xml"), place))
}

/// Copies what a Maven project depends on into a directory.
pub fn copy_jars(project: &Path, place: &Path) {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(project).arg("dependency:copy-dependencies");
    run(command.arg(format!("-DoutputDirectory={}", place.display())), INSTALL_MAVEN);
}
