//! A world for a test: an interpreter, a directory store with an environment, a launcher, a node cache.
//!
//! If the tests run as root, everything that they start runs as `nobody`, because no directory is read-only to root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use cpack_format::job::{self, Interpreter, Job};
use cpack_format::launcher::appendix;
use cpack_format::manifest::{self, Layer, LayerKind, Manifest, Python};
use cpack_format::metrics::is_start;
use cpack_format::zip::Method;
use cpack_store::{FileStore, Key, Put, Source, Store as _};
use tempfile::TempDir;

use crate::archives::{Maker, Node, Nodes};

/// The user `nobody`.
const NOBODY: u32 = 65534;

#[derive(Debug)]
pub struct TestPython {
    pub path: PathBuf,
    pub version: String,
    pub minor: String,
    soabi: String,
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The first interpreter that an unprivileged user may run.
pub fn python() -> &'static TestPython {
    static FOUND: OnceLock<TestPython> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(["/usr/bin".into(), "/usr/local/bin".into()]);
        let candidates: Vec<PathBuf> = directories.map(|d: PathBuf| d.join("python3")).collect();
        candidates.iter().find_map(|path| ask(path)).unwrap_or_else(|| {
            panic!("no interpreter that an unprivileged user may run among {candidates:?}: install python3")
        })
    })
}

fn ask(path: &Path) -> Option<TestPython> {
    let code = "import sys, os, _imp; print('%d.%d.%d' % sys.version_info[:3]); \
                print(_imp.extension_suffixes()[0].split('.')[1]); print(os.path.realpath(sys._base_executable))";
    let output = as_nobody(Command::new(path).args(["-I", "-c", code])).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines().map(str::to_owned);
    let (version, soabi, path) = (lines.next()?, lines.next()?, lines.next()?);
    let minor = version.rsplit_once('.')?.0.to_owned();
    Some(TestPython { path: path.into(), version, minor, soabi })
}

/// Makes a command run unprivileged.
pub fn as_nobody(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// Gives a file or directory to the unprivileged user.
pub fn own(path: PathBuf) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
}

/// The name of the unprivileged user's cache in a place.
pub fn cache_name() -> String {
    format!("cpack-{}", if is_root() { NOBODY } else { nix::unistd::geteuid().as_raw() })
}

/// Removed when dropped.
#[derive(Debug)]
pub struct World {
    directory: TempDir,
    /// `cpack-boot`.
    boot: PathBuf,
    pub manifest: Manifest,
    pub job: Job,
}

impl World {
    /// A world with a few packages: `alpha` and `beta` with modules, `data` with 300 files, `large` of 6 MB.
    pub fn new(boot: &Path) -> Self {
        Self::with(boot, &standard_packages(), |_| {})
    }

    /// A world whose environment has these packages. `change` may change the job.
    pub fn with(boot: &Path, packages: &[(&str, Nodes)], change: impl FnOnce(&mut Job)) -> Self {
        let directory = tempfile::Builder::new().prefix("cpack-test-").tempdir().expect("a directory");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("chmod");
        let store = FileStore::new(&directory.path().join("store"));
        let mut layers: Vec<Layer> =
            packages.iter().map(|(name, nodes)| put_layer(&store, LayerKind::Distribution, name, nodes)).collect();
        layers.sort_by(|a, b| a.name.cmp(&b.name));
        let python = python();
        let manifest = Manifest {
            format: manifest::FORMAT,
            requires: Vec::new(),
            python: Python {
                version: python.version.clone(),
                soabi: python.soabi.clone(),
                platform: String::new(),
                least_glibc: None,
            },
            layers,
            entry_points: Vec::new(),
        };
        let key = Key::environment(&manifest.id());
        store.put(&key, Source::Bytes(&manifest.to_bytes()), Put::IfAbsent).expect("puts");
        let mut job = Job {
            name: "test".into(),
            ..Job::new(
                manifest.id(),
                store.uri().to_string(),
                Interpreter {
                    path: python.path.display().to_string(),
                    version: python.version.clone(),
                    soabi: python.soabi.clone(),
                    shipped: false,
                },
            )
        };
        change(&mut job);
        let world = Self { directory, boot: boot.into(), manifest, job };
        for name in ["cache", "home", "tmp", "work"] {
            world.user_directory(name);
        }
        world.write_launcher("env-python", &world.job.clone());
        world
    }

    /// Puts an overlay or payload into the store.
    pub fn put(&self, kind: LayerKind, name: &str, nodes: &Nodes) -> Layer {
        put_layer(&self.store(), kind, name, nodes)
    }

    pub fn store(&self) -> FileStore {
        FileStore::new(&self.path("store"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A directory that belongs to the unprivileged user.
    pub fn user_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).expect("creates");
        own(path.clone());
        path
    }

    /// Writes a launcher for `job`.
    pub fn write_launcher(&self, name: &str, job: &Job) -> PathBuf {
        let path = self.path(name);
        let mut bytes = fs::read(&self.boot).expect("the executable");
        let files = [(job::FILE_NAME, &job.to_bytes()[..]), (job::MANIFEST_NAME, &self.manifest.to_bytes()[..])];
        bytes.extend(appendix(bytes.len() as u64, &files));
        write_executable(&path, &bytes);
        path
    }

    /// The node cache that launchers use by default.
    pub fn cache(&self) -> PathBuf {
        self.path("cache").join(cache_name())
    }

    /// A command of the launcher, unprivileged and without variables of this process.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_of(&self.path("env-python"), arguments)
    }

    pub fn command_of(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.path("work"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("CPACK_CACHE_DIR", self.path("cache"))
            // Clean-up must not depend on how full this machine's disk is.
            .env("CPACK_CACHE_RESERVE", "0")
            .env("CPACK_METRICS", self.path("tmp/metrics"))
            .stdin(Stdio::null());
        as_nobody(&mut command);
        command
    }

    /// Runs the launcher, which must succeed without messages. Returns its standard output.
    pub fn run(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    /// The lines of the metrics file.
    pub fn metrics(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("tmp/metrics")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// `cold` or `warm`, of the last start.
    pub fn last_start(&self) -> String {
        let metrics = self.metrics();
        let mut kinds = metrics.iter().map(|line| line["start"].as_str().expect("a word"));
        kinds.rfind(|kind| is_start(kind)).expect("a start").to_owned()
    }

    /// The one environment in the cache.
    pub fn environment(&self) -> PathBuf {
        let mut found: Vec<_> = entries(&self.cache().join("environments"));
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// Asserts that all layers in the cache have the manifest's content, and that staging is empty.
    pub fn check_cache(&self) {
        for name in ["staging", "private"] {
            assert_eq!(entries(&self.cache().join(name)), [] as [PathBuf; 0], "left behind");
        }
        for layer in &self.manifest.layers {
            let files = self.cache().join("layers").join(layer.content.to_hex()).join("files");
            let found = cpack_node::cache::content_of(&files, 1, &|| {}).expect("a layer");
            assert_eq!(found, layer.content, "{}", layer.name);
        }
    }
}

/// Starts a command with its output in pipes.
pub fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
}

/// Runs a command that must succeed without messages. Returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.is_empty(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// The beginning of the message that `CPACK_CACHE_DIR` is not used.
pub const NOT_USED: &str = "cpack-boot: CPACK_CACHE_DIR is not used: ";

/// Runs a start that must succeed in another place than the chosen one and say the reason in one line. Returns its standard
/// output.
pub fn succeed_elsewhere(command: &mut Command, reason: &str) -> String {
    let output = command.output().expect("starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.lines().count() == 1, "{}: {error}", output.status);
    assert!(error.starts_with(NOT_USED) && error.contains(reason), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Asserts that a start failed with this exit code, one line on standard error and nothing on standard output.
pub fn assert_fails(output: &Output, code: i32, words: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(output.stdout.is_empty());
    assert!(error.starts_with("cpack-boot: ") && error.ends_with('\n') && error.lines().count() == 1, "{error}");
    assert!(error.contains(words), "{error}");
}

/// Writes an executable file.
///
/// `cp` writes it: if this process opened it for writing, a child that a parallel test forks could hold the descriptor for
/// an instant, and `execve` would fail with ETXTBSY.
pub fn write_executable(path: &Path, bytes: &[u8]) {
    let source = path.with_extension("source");
    fs::write(&source, bytes).expect("writes");
    let status = Command::new("cp").arg(&source).arg(path).status().expect("cp starts");
    assert!(status.success(), "cp: {status}");
    fs::remove_file(&source).expect("removes");
    fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
}

pub fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).map(|entries| entries.map(|e| e.expect("an entry").path()).collect());
    let mut paths: Vec<PathBuf> = entries.unwrap_or_default();
    paths.sort();
    paths
}

fn put_layer(store: &FileStore, kind: LayerKind, name: &str, nodes: &Nodes) -> Layer {
    let mut maker = Maker::new(1 << 20);
    for (path, node) in nodes {
        let method = if path.ends_with(".pkl") { Method::Store } else { Method::Zstd };
        maker.add(path, node, method, 1 << 20);
    }
    let (bytes, archive, content) = maker.layer();
    let key = match kind {
        LayerKind::Overlay | LayerKind::Payload => Key::overlay(&archive.digest),
        _ => Key::layer(&archive.digest),
    };
    store.put(&key, Source::Bytes(&bytes), Put::IfAbsent).expect("puts");
    Layer { version: "1.0".into(), imports: vec![name.into()], ..Layer::new(kind, name.into(), content, archive) }
}

/// Nodes by path; paths under `site/` go to `site-packages`.
pub fn nodes(files: &[(&str, Node)]) -> Nodes {
    let site = format!("lib/python{}/site-packages/", python().minor);
    files
        .iter()
        .map(|(path, node)| (path.strip_prefix("site/").map_or((*path).to_owned(), |p| site.clone() + p), node.clone()))
        .collect()
}

pub fn file(text: &str) -> Node {
    Node::File(text.as_bytes().to_vec())
}

/// Bytes that depend on `seed` and compress to about three quarters.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8 & 0x3f
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn standard_packages() -> Vec<(&'static str, Nodes)> {
    let script = "#!/bin/sh\n'''exec' \"$(dirname -- \"$0\")/python\" \"$0\" \"$@\"\n'''\nimport sys\nprint('tool', sys.argv[1:])\n";
    let alpha = nodes(&[
        ("site/alpha/__init__.py", file("NAME = 'alpha'\n")),
        ("site/alpha-1.0.dist-info/METADATA", file("Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n")),
        ("bin/alpha-tool", Node::Executable(script.as_bytes().to_vec())),
    ]);
    let beta = nodes(&[
        ("site/beta.py", file("NAME = 'beta'\n")),
        ("site/zeta.pth", file("import os; os.environ['PTH_RAN'] = '1'\n")),
        ("share/beta/data.txt", file("data")),
    ]);
    let mut data = Nodes::new();
    for i in 0..300u64 {
        data.extend(nodes(&[(&format!("site/data/d{}/f{i}.bin", i % 17), Node::File(noise(1000, i)))]));
    }
    let large = nodes(&[("site/large/lib.so", Node::Executable(noise(6 << 20, 7)))]);
    vec![("alpha", alpha), ("beta", beta), ("data", data), ("large", large)]
}
