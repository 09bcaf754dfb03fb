//! The static executable on nodes that are not like the one that it was built on: an empty root directory, and other
//! versions of glibc whose `nsswitch.conf` names modules that would end a static program. It reads a job's manifest from
//! S3 and from an HDFS that wants Kerberos and, where the node has a Python, starts the environment with it.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of tests report by panicking and printing")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_format::Digest;
use cpack_format::job::{Interpreter, Job};
use cpack_format::manifest::{MAX_JSON, Manifest};
use cpack_store::{FileStore, Key, Put, Source, Store as _, StoreOptions, StoreUri, cluster_properties, open};
use cpack_test::hadoop::Hdfs;
use cpack_test::programs::{World, install_by_hand, usual_interpreter, utf8, venv_without_pip};
use cpack_test::seaweed::{self, Seaweed};

/// Debian releases whose glibc (2.31 and 2.41) differ from each other and, one at least, from this machine's, with the
/// minor versions of their Python 3.
const RELEASES: [(&str, u8); 2] = [("bullseye", 9), ("trixie", 13)];

/// Modules of the release's own glibc and its Python.
const PACKAGES: &str = "libnss-sss,libnss-myhostname,python3-minimal";
/// With names of modules that are not there.
const HOSTILE: &str = "passwd: sss systemd files\ngroup: sss systemd files\nhosts: myhostname resolve sss files dns\n\
                       networks: sss files\nprotocols: sss files\nservices: sss files\ninitgroups: sss files\n";

/// Imports what was packed and tells what it found.
const CODE: &str = "import os, sys\n\
                    lib = sys.prefix + '/lib/'\n\
                    sys.path += [lib + version + '/site-packages' for version in os.listdir(lib)]\n\
                    import one\n\
                    print(one.VALUE, sys.version_info[1], one.__file__)";

/// As the executable is shipped (see `bootstrap/static.toml`): 16.3 MB with conda environments, archives and lazy starts, which took 1.3 MB.
const LARGEST: u64 = 16 << 20;

/// Root directories: name, path, and which Python they have.
fn roots(empty: &Path) -> Vec<(&str, PathBuf, Option<u8>)> {
    let release = |name: &str| {
        cpack_test::cached(&format!("root-{name}-python"), |place| {
            let mut command = Command::new("debootstrap");
            command.args(["--variant=minbase", &format!("--include={PACKAGES}"), name]).arg(place);
            cpack_test::run(&mut command, "debootstrap, with access to Debian's packages");
            fs::write(place.join("etc/nsswitch.conf"), HOSTILE).expect("writes");
            fs::write(place.join("etc/hosts"), "127.0.0.1 localhost\n").expect("writes");
        })
    };
    let releases = RELEASES.map(|(name, python)| (name, release(name), Some(python)));
    std::iter::once(("empty", empty.to_owned(), None)).chain(releases).collect()
}

/// What a client packed: a store in a directory, with a manifest of pure Python. Any version runs it, but it lies where the
/// version that it was packed with looks for it.
struct Packed {
    store: FileStore,
    manifest: Manifest,
}

fn pack(world: &World) -> Packed {
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    install_by_hand(&env, "one", "1.0", "VALUE = 1\n");
    let report = world.pack_json(&["upload", "--venv", utf8(&env), "--only", "one"]);
    let store = FileStore::new(&world.path("store"));
    let id: Digest = report["environment"].as_str().expect("an id").parse().expect("a digest");
    let bytes = store.read(&Key::environment(&id), MAX_JSON).expect("published");
    Packed { store, manifest: Manifest::parse(&bytes).expect("a manifest") }
}

/// A job for a Python of that minor version, with all that it needs in the store at `uri`.
fn publish(packed: &Packed, python: u8, uri: &StoreUri, options: &StoreOptions) -> Job {
    let (version, soabi) = (format!("3.{python}.0"), format!("cpython-3{python}-x86_64-linux-gnu"));
    let mut manifest = packed.manifest.clone();
    (manifest.python.version, manifest.python.soabi) = (version.clone(), soabi.clone());
    let bytes = manifest.to_bytes();
    let environment = Digest::of(&bytes);
    let store = open(uri, options).expect("opens");
    for layer in &manifest.layers {
        let key = Key::layer(&layer.archive.digest);
        let archive = packed.store.read(&key, layer.archive.size).expect("packed");
        store.put(&key, Source::Bytes(&archive), Put::IfAbsent).expect("publishes");
    }
    store.put(&Key::environment(&environment), Source::Bytes(&bytes), Put::IfAbsent).expect("publishes");
    Job {
        name: "foreign".to_owned(),
        cluster: cluster_properties(uri, options).expect("properties"),
        ..Job::new(environment, uri.to_string(), Interpreter { path: String::new(), version, soabi, shipped: false })
    }
}

/// The executable with `root` as the root directory, for the job.
fn inside_root(root: &Path, executable: &Path, job: &Job) -> Command {
    let place = root.join("cpack-boot");
    fs::copy(executable, &place).expect("copies");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("may be executed");
    let mut command = Command::new("chroot");
    command.arg(root).arg("/cpack-boot").env_clear().stdin(Stdio::null());
    command.env("CPACK_JOB", String::from_utf8(job.to_bytes()).expect("JSON")).env("CPACK_CACHE_DIR", "/cache");
    command.env("PATH", env::var_os("PATH").unwrap_or_default());
    command
}

/// What it prints with these arguments, when all goes well.
fn printed(mut command: Command, arguments: &[&str]) -> String {
    let output = command.args(arguments).output().expect("chroot runs");
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?} {}: {err}", output.status);
    assert_eq!(err, "");
    out
}

/// Reads the job's manifest with `root` as the root directory and, where that has this Python, starts the environment:
/// from the store, and then from the node's cache, with nothing that a store would ask for.
fn works_in(root: &Path, executable: &Path, python: Option<u8>, job: &Job, variables: &[(&str, String)]) {
    let command = || {
        let mut command = inside_root(root, executable, job);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        command
    };
    let told = printed(command(), &["--cpack", "info"]);
    assert!(told.contains(&job.environment.to_string()) && told.contains(&job.store), "{told}");
    let Some(python) = python else { return };
    let cache = root.join("cache");
    let _ = fs::remove_dir_all(&cache);
    fs::create_dir(&cache).expect("a directory");
    for start in [command(), inside_root(root, executable, job)] {
        let told = printed(start, &["-c", CODE]);
        assert!(told.starts_with(&format!("1 {python} /cache/")), "{told}");
    }
    printed(command(), &["--cpack", "verify"]);
}

#[test]
fn boot_works_with_both_stores_in_foreign_roots() {
    const NAME: &str = "boot_works_with_both_stores_in_foreign_roots";
    // The clients in this process would take what they need from its environment: another one publishes.
    if let Ok(secure) = env::var("CPACK_TEST_SECURE") {
        return work_in_every_root(Path::new(&secure));
    }
    assert!(nix::unistd::geteuid().is_root(), "only root can change the root directory: run this test as root");
    let size = fs::metadata(cpack_test::programs::boot()).expect("built").len();
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
    assert!(!cpack_test::inside(NAME, &variables));
}

fn work_in_every_root(secure: &Path) {
    let (executable, world) = (cpack_test::programs::boot(), World::new());
    let packed = pack(&world);
    let seaweed = Seaweed::start();
    let options = StoreOptions::of_process(BTreeMap::new());
    let uri: StoreUri = env::var("CPACK_TEST_URI").expect("set by the parent").parse().expect("a URI");

    let empty = tempfile::tempdir().expect("a directory");
    for (name, root, python) in roots(empty.path()) {
        // Where there is no Python at all, any is told of.
        let needed = python.unwrap_or(11);
        let s3 = publish(&packed, needed, &seaweed.uri("foreign"), &seaweed.options(seaweed.port));
        let mut hdfs = publish(&packed, needed, &uri, &options);
        assert_eq!(hdfs.cluster.get("hadoop.security.authentication").map(String::as_str), Some("kerberos"));
        if python.is_none() {
            // Without /etc/hosts there is no localhost.
            hdfs.store = hdfs.store.replace("localhost", "127.0.0.1");
        }
        fs::copy(secure.join("tokens"), root.join("tokens")).expect("copies");
        let tokens = [("HADOOP_TOKEN_FILE_LOCATION", "/tokens".to_owned())];
        works_in(&root, executable, python, &s3, &seaweed::credentials());
        works_in(&root, executable, python, &hdfs, &tokens);
        // No tokens: what would load the host's Kerberos finds nothing to load, and says so.
        let mut command = inside_root(&root, executable, &hdfs);
        let output = command.args(["--cpack", "info"]).output().expect("chroot runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.lines().count() == 1 && said.contains("token"), "{name}: {said}");
        println!("S3 and HDFS in {name}: read{}", python.map_or("", |_| ", started from"));
    }
}
