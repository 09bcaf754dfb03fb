//! Java programs in `src/hadoop` that run a mini cluster: they print READY, then obey commands on standard input.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::process::Server;
use crate::{cached, run};

/// The name of the cached directory of jars. Raise its number when `hadoop/pom.xml` changes.
const JARS: &str = "hadoop-3.4.1-jars-1";

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hadoop");
const SPARK_POM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/spark/pom.xml");
const INSTALL_JAVA: &str = "a JDK of 17 or later (Debian: default-jdk-headless)";
const INSTALL_MAVEN: &str = "Maven (Debian: maven), with access to Maven Central";

/// Packages of Java's own whose classes Hadoop accesses.
const OPENED: [&str; 8] = [
    "java.base/java.lang",
    "java.base/java.util",
    "java.base/java.io",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.security.jgss/sun.security.krb5",
    "java.security.jgss/sun.security.krb5.internal",
];

#[derive(Debug)]
pub(crate) struct MiniCluster {
    directory: tempfile::TempDir,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    server: Server,
}

impl MiniCluster {
    /// Starts `class` with `memory` for the heap and waits for READY.
    pub(crate) fn start(class: &str, memory: &str, flags: &[&str]) -> Self {
        let jars = jars();
        let directory = tempfile::tempdir().expect("a directory");
        let log = File::create(directory.path().join("log")).expect("a log");
        let mut command = Command::new("java");
        command.arg(format!("-Xmx{memory}")).arg("-XX:+UseSerialGC").arg(format!("-Djars={}", jars.display()));
        command.args(OPENED.map(|package| format!("--add-opens={package}=ALL-UNNAMED")));
        command.arg("-cp").arg(format!("{SOURCES}:{}/*", jars.display()));
        command.arg(Path::new(SOURCES).join(format!("{class}.java"))).arg(directory.path()).args(flags);
        // Logs go to standard error: standard output is for answers.
        command.current_dir(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut server = Server::start(&mut command, INSTALL_JAVA);
        let commands = server.0.stdin.take();
        let answers = BufReader::new(server.0.stdout.take().expect("a pipe"));
        let mut cluster = Self { directory, commands, answers, server };
        cluster.expect("READY");
        cluster
    }

    /// Sends a command and waits until it is done.
    pub(crate) fn command(&mut self, command: &str) {
        writeln!(self.commands.as_mut().expect("not stopped"), "{command}").expect("the server reads");
        self.expect("OK");
    }

    fn expect(&mut self, word: &str) {
        let mut line = String::new();
        let _ = self.answers.read_line(&mut line);
        if line.trim() != word {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            panic!(
                "the mini cluster says {line:?} instead of {word}: install {INSTALL_JAVA} if that is missing. Its log ends:\n{tail}"
            );
        }
    }

    /// A file in the cluster's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Closes standard input, upon which the program ends in good order, and waits for its end.
    pub(crate) fn stop(&mut self) {
        drop(self.commands.take());
        let _ = self.server.0.wait();
    }
}

pub(crate) fn jars() -> PathBuf {
    cached(JARS, |place| copy_jars(&Path::new(SOURCES).join("pom.xml"), place))
}

/// What Spark reads S3 with, from `spark/pom.xml`.
pub fn spark_jars() -> PathBuf {
    cached("spark-s3-jars-1", |place| copy_jars(Path::new(SPARK_POM), place))
}

/// Copies the dependencies of a Maven project into `place`.
fn copy_jars(project: &Path, place: &Path) {
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(project).arg("dependency:copy-dependencies");
    run(command.arg(format!("-DoutputDirectory={}", place.display())), INSTALL_MAVEN);
}
