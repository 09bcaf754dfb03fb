//! A client with its settings, nodes without any, and a store that both reach.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::clouds::Cloud;
use crate::hadoop::{self, Hdfs};
use crate::noise;
use crate::process::wait_until;
use crate::programs::{World, cluster_pack, install_by_hand, text, usual_interpreter, utf8, venv_without_pip};
use crate::seaweed::{self, Seaweed};
use cpack_store::{Store, StoreOptions, open};
use serde_json::Value;

/// Variables of a process.
pub type Variables = Vec<(&'static str, String)>;

/// One client and its nodes.
#[derive(Debug)]
pub struct Site {
    pub world: World,
    /// The store.
    pub uri: String,
    /// What the client's shell has set.
    pub client: Variables,
    /// What a cluster gives to its containers: their identity, never where things are.
    pub node: Variables,
}

impl Site {
    /// A store in a directory.
    pub fn directory() -> Self {
        let world = World::new();
        Self { uri: world.path("store").display().to_string(), world, client: Vec::new(), node: Vec::new() }
    }

    /// A store in the bucket of `server`, which is reached through `port`.
    pub fn s3(server: &Seaweed, port: u16) -> Self {
        let node = seaweed::credentials();
        let endpoint = ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
        let client = [node.clone(), vec![endpoint, ("AWS_REGION", "us-east-1".to_owned())]].concat();
        let world = World::new();
        // Worlds share a bucket, not a store.
        let uri = server.uri(&world.path("").display().to_string()[1..]).to_string();
        Self { world, uri, client, node }
    }

    /// From here on jobs find the store at this port.
    pub fn through(&mut self, port: u16) {
        let endpoint = self.client.iter_mut().find(|(name, _)| *name == "AWS_ENDPOINT_URL").expect("a client of S3");
        endpoint.1 = format!("http://127.0.0.1:{port}");
    }

    /// A start on the node `node` that should fail.
    pub fn fails(&self, node: &str) -> Output {
        let launcher = self.world.path("env-python");
        self.on_node(node, &launcher).args(["-c", "print('ran')"]).output().expect("starts")
    }

    /// A store in the bucket of `server`, which is reached through `port`.
    pub fn cloud(server: &Cloud, port: u16) -> Self {
        let world = World::new();
        let uri = server.uri(&world.path("").display().to_string()[1..]).to_string();
        Self { world, uri, client: server.variables(port), node: server.credentials() }
    }

    /// A store in the home directory of the user of `server`, on its default file system.
    pub fn hdfs(server: &Hdfs, name: &str) -> Self {
        let client = vec![
            ("HADOOP_CONF_DIR", server.path("conf").display().to_string()),
            ("C_PACK_USER", hadoop::USER.to_owned()),
        ];
        let node = vec![("HADOOP_USER_NAME", hadoop::USER.to_owned())];
        Self { world: World::new(), uri: server.uri(name).to_string(), client, node }
    }

    /// The same where Kerberos is wanted: the client has a key, the nodes have tokens.
    pub fn secure(server: &Hdfs, uri: &str) -> Self {
        let path = |name: &str| server.path(name).display().to_string();
        let client = vec![
            ("HADOOP_CONF_DIR", path("conf")),
            ("KRB5_CONFIG", path("krb5.conf")),
            ("KRB5CCNAME", "MEMORY:client".to_owned()),
            ("KRB5_CLIENT_KTNAME", path("user.keytab")),
        ];
        let node = vec![("HADOOP_TOKEN_FILE_LOCATION", path("tokens"))];
        Self { world: World::new(), uri: uri.to_owned(), client, node }
    }

    /// `cluster-pack` on the store, as the client would start it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.world.command(cluster_pack());
        command.args(["--store", &self.uri]).args(arguments);
        command.envs(self.client.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// Runs `cluster-pack --json` and gives what it answers.
    pub fn pack(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[&["--json"], arguments].concat()).output().expect("starts");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Writes a launcher for the environment at `venv`, and the store with it.
    pub fn launcher(&self, venv: &Path) -> PathBuf {
        let path = self.world.path("env-python");
        self.pack(&["launcher", "--venv", utf8(venv), "-o", utf8(&path)]);
        path
    }

    /// A launcher on the node `name`, whose cache is its own.
    pub fn on_node(&self, name: &str, launcher: &Path) -> Command {
        let cache = self.world.path(name);
        fs::create_dir_all(&cache).expect("a directory");
        let mut command = self.world.command(launcher);
        command.env("CPACK_CACHE_DIR", cache).env("CPACK_METRICS", self.world.path(&format!("{name}.metrics")));
        command.envs(self.node.iter().map(|(name, value)| (*name, value)));
        command
    }

    /// What the last start on the node `name` tells of itself.
    pub fn metrics(&self, name: &str) -> Value {
        let lines = fs::read_to_string(self.world.path(&format!("{name}.metrics"))).expect("metrics");
        serde_json::from_str(lines.lines().last().expect("a line")).expect("JSON")
    }

    /// The bytes that `count` processes on the node `name` fetched, together: those whose metrics are of this `kind`. Waits for them.
    pub fn fetched(&self, name: &str, kind: &str, count: usize) -> u64 {
        let path = self.world.path(&format!("{name}.metrics"));
        let mut found = Vec::new();
        wait_until("the metrics are there", || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            found = lines.filter(|line| line["start"] == kind).filter_map(|l| l["bytes"]["fetched"].as_u64()).collect();
            found.len() == count
        });
        found.iter().sum()
    }

    /// Starts on the node `name`. Standard output, which must be all that there is.
    pub fn run(&self, name: &str, launcher: &Path, code: &str) -> String {
        let output = self.on_node(name, launcher).args(["-c", code]).output().expect("starts");
        assert!(output.status.success(), "on {name}: {}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "", "nothing is said about what went well");
        text(&output.stdout)
    }

    /// The store itself, where this process may open it: HDFS without Kerberos, and S3 [`inside`](crate::inside).
    pub fn store(&self, options: &StoreOptions) -> Box<dyn Store> {
        open(&self.uri.parse().expect("a URI"), options).expect("opens")
    }
}

/// The standard error of a program that failed with `code`: one line.
pub fn complaint(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.len() < 1200, "{said}");
    said
}

/// Bytes of the distribution that takes several pieces.
pub const LARGE: usize = 20 << 20;

/// An environment of two small distributions and one that is large and cannot be compressed.
pub fn environment(site: &Site) -> PathBuf {
    let path = site.world.path("venv");
    venv_without_pip(&usual_interpreter(), &path);
    install_by_hand(&path, "one", "1.0", "VALUE = 1\n");
    install_by_hand(&path, "two", "1.0", "VALUE = 2\n");
    install_with_noise(&path, "large", LARGE);
    path
}

/// A distribution with a file of `len` bytes that cannot be compressed.
pub fn install_with_noise(venv: &Path, name: &str, len: usize) {
    let body = format!("import os\nSIZE = os.path.getsize(os.path.join(os.path.dirname(__file__), '{name}.bin'))\n");
    let packages = install_by_hand(venv, name, "1.0", &body);
    fs::write(packages.join(format!("{name}.bin")), noise(len)).expect("writes");
    let record = packages.join(format!("{name}-1.0.dist-info/RECORD"));
    let mut record = fs::OpenOptions::new().append(true).open(record).expect("opens");
    writeln!(record, "{name}.bin,,").expect("writes");
}

/// What says that the environment is whole.
pub const PROBE: &str = "import one, two, large; print(one.VALUE + two.VALUE, large.SIZE)";

/// What [`PROBE`] prints.
pub fn whole() -> String {
    format!("3 {LARGE}\n")
}
