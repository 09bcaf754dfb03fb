//! The static executable on nodes that are not like the one that it was built on: an empty root directory, and other
//! versions of glibc whose `nsswitch.conf` names modules that would end a static program. It reads a job's manifest from
//! S3 and from an HDFS that wants Kerberos, which is all of the network there is in a start.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests report by panicking and printing")]

#[path = "whole/programs.rs"]
#[allow(dead_code, reason = "shared with the tests of both programs")]
mod programs;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_artifact::Digest;
use cpack_artifact::job::{Entry, FORMAT, Interpreter, Job};
use cpack_artifact::manifest::Manifest;
use cpack_artifact::store::{Key, Put, Source, StoreOptions, StoreUri, cluster_properties, open};

use support::hadoop::Hdfs;
use support::seaweed::{self, Seaweed};

/// Debian releases whose glibc (2.31 and 2.41) differ from each other and, one at least, from this machine's.
const RELEASES: [&str; 2] = ["bullseye", "trixie"];

/// Modules of the release's own glibc, and names of modules that are not there.
const MODULES: &str = "libnss-sss,libnss-myhostname";
const HOSTILE: &str = "passwd: sss systemd files\ngroup: sss systemd files\nhosts: myhostname resolve sss files dns\n\
                       networks: sss files\nprotocols: sss files\nservices: sss files\ninitgroups: sss files\n";

/// As the executable is shipped (see `bootstrap/static.toml`).
const LARGEST: u64 = 14 << 20;

/// Root directories: name and path.
fn roots(empty: &Path) -> Vec<(String, PathBuf)> {
    let release = |name: &str| {
        support::cached(&format!("root-{name}"), |place| {
            let mut command = Command::new("debootstrap");
            command.args(["--variant=minbase", &format!("--include={MODULES}"), name]).arg(place);
            support::run(&mut command, "debootstrap, with access to Debian's packages");
            fs::write(place.join("etc/nsswitch.conf"), HOSTILE).expect("writes");
            fs::write(place.join("etc/hosts"), "127.0.0.1 localhost\n").expect("writes");
        })
    };
    let releases = RELEASES.map(|name| (name.to_owned(), release(name)));
    std::iter::once(("empty".to_owned(), empty.to_owned())).chain(releases).collect()
}

/// A job whose manifest is in the store at `uri`.
fn publish(uri: &StoreUri, options: &StoreOptions) -> Job {
    let text =
        br#"{"format":1,"python":{"version":"3.11.7","soabi":"cpython-311","platform":"linux-x86_64"},"layers":[]}"#;
    let manifest = Manifest::parse(text).expect("a manifest").to_bytes();
    let environment = Digest::of(&manifest);
    let store = open(uri, options).expect("opens");
    store.put(&Key::environment(&environment), Source::Bytes(&manifest), Put::IfAbsent).expect("publishes");
    Job {
        format: FORMAT,
        requires: Vec::new(),
        name: "foreign".to_owned(),
        environment,
        store: uri.to_string(),
        interpreter: Interpreter {
            path: String::new(),
            version: "3.11.7".to_owned(),
            soabi: "cpython-311".to_owned(),
            shipped: true,
        },
        overlays: Vec::new(),
        entry: Entry::Interpreter,
        environ: BTreeMap::new(),
        pass: Vec::new(),
        cluster: cluster_properties(uri, options).expect("properties"),
    }
}

/// `--cpack info` for the job with `root` as the root directory: what it tells is in the store alone.
fn inside_root(root: &Path, executable: &Path, job: &Job) -> Command {
    let place = root.join("cpack-boot");
    fs::copy(executable, &place).expect("copies");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("may be executed");
    let mut command = Command::new("chroot");
    command.arg(root).args(["/cpack-boot", "--cpack", "info"]).env_clear().stdin(Stdio::null());
    command.env("CPACK_JOB", String::from_utf8(job.to_bytes()).expect("JSON"));
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs `--cpack info` for the job with `root` as the root directory, and checks that it tells of the environment.
fn read_from(root: &Path, executable: &Path, job: &Job, variables: &[(&str, String)]) {
    let mut command = inside_root(root, executable, job);
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    let output = command.output().expect("chroot runs");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{} {}: {err}", root.display(), output.status);
    assert!(out.contains(&job.environment.to_string()) && out.contains(&job.store), "{out}");
    assert_eq!(err, "");
}

#[test]
fn both_stores_are_read_wherever_it_runs() {
    const NAME: &str = "both_stores_are_read_wherever_it_runs";
    // The clients in this process would take what they need from its environment: another one publishes.
    if let Ok(secure) = std::env::var("CPACK_TEST_SECURE") {
        return read_from_every_root(Path::new(&secure));
    }
    assert!(nix::unistd::geteuid().is_root(), "only root can change the root directory: run this test as root");
    let size = fs::metadata(programs::boot()).expect("built").len();
    println!("cpack-boot with both stores has {size} bytes");
    assert!(size <= LARGEST, "{size} bytes are more than {LARGEST}");
    let hdfs = Hdfs::start(&["secure"]);
    let path = |name: &str| hdfs.path(name).display().to_string();
    let variables = [
        vec![
            ("CPACK_TEST_SECURE", path("")),
            ("CPACK_TEST_URI", hdfs.full_uri("foreign").to_string()),
            ("HADOOP_TOKEN_FILE_LOCATION", path("tokens")),
            ("HADOOP_CONF_DIR", path("conf")),
        ],
        seaweed::credentials(),
    ]
    .concat();
    assert!(!support::inside(NAME, &variables));
}

fn read_from_every_root(secure: &Path) {
    let executable = programs::boot();
    let seaweed = Seaweed::start();
    let s3 = publish(&seaweed.uri("foreign"), &seaweed.options(seaweed.port));
    let options = StoreOptions::of_process(BTreeMap::new());
    let uri: StoreUri = std::env::var("CPACK_TEST_URI").expect("set by the parent").parse().expect("a URI");
    let hdfs = publish(&uri, &options);
    assert_eq!(hdfs.cluster.get("hadoop.security.authentication").map(String::as_str), Some("kerberos"));

    let empty = tempfile::tempdir().expect("a directory");
    for (name, root) in roots(empty.path()) {
        fs::copy(secure.join("tokens"), root.join("tokens")).expect("copies");
        let tokens = [("HADOOP_TOKEN_FILE_LOCATION", "/tokens".to_owned())];
        read_from(&root, executable, &s3, &seaweed::credentials());
        // Without /etc/hosts there is no localhost.
        let store = if name == "empty" { hdfs.store.replace("localhost", "127.0.0.1") } else { hdfs.store.clone() };
        let hdfs = Job { store, ..hdfs.clone() };
        read_from(&root, executable, &hdfs, &tokens);
        // No tokens: what would load the host's Kerberos finds nothing to load, and says so.
        let mut command = inside_root(&root, executable, &hdfs);
        let said = String::from_utf8_lossy(&command.output().expect("chroot runs").stderr).into_owned();
        assert!(said.lines().count() == 1 && said.contains("token"), "{name}: {said}");
        println!("read from S3 and HDFS in {name}");
    }
}
