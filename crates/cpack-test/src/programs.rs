//! The programs, freshly built; interpreters of this machine; environments.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use cpack_node::cache::remove_tree;
use tempfile::TempDir;

pub use crate::venvs::{venv, venv_without_pip};

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the checkout")
}

/// Where builds and cached environments go.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Removes the variables that cargo sets for these tests from a command that starts cargo. Otherwise build scripts that watch
/// them would run again, here and with the next build, and everything that depends on them would be compiled again.
pub fn as_from_a_shell(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

fn build(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet"]).args(arguments).current_dir(root());
    let status = as_from_a_shell(&mut command).status();
    assert!(status.expect("cargo runs").success(), "cargo build {arguments:?}");
}

/// `cluster-pack`, built once for all tests; or the one that `CPACK_TEST_PACKER` names. `cpack-bench` is beside it.
pub fn cluster_pack() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("CPACK_TEST_PACKER") {
            return root().join(path);
        }
        // A test among the targets gives dependencies the features that they have for tests. Without it, cargo would compile
        // the network clients and all crates of this workspace a second time.
        let programs = ["--bin", "cluster-pack", "--bin", "cpack-bench", "--test", "architecture"];
        build(&[&["--workspace", "--features", "cpack-suite/all"], &programs[..]].concat());
        target().join("debug/cluster-pack")
    })
}

/// The static `cpack-boot`, built once for all tests; or the one that `CPACK_TEST_BOOT` names.
pub fn boot() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("CPACK_TEST_BOOT") {
            return root().join(path);
        }
        let shipped = ["--config", "bootstrap/static.toml", "--profile", "boot", "-p", "cpack-boot"];
        build(&[&shipped[..], &["--features", "network"]].concat());
        target().join("x86_64-unknown-linux-gnu/boot/cpack-boot")
    })
}

/// One client and one node, apart from everything else on this machine.
#[derive(Debug)]
pub struct World {
    pub directory: TempDir,
}

impl World {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for place in ["home", "node"] {
            fs::create_dir(directory.path().join(place)).expect("creates");
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command with no variable of this process except `PATH` and `JAVA_TOOL_OPTIONS`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(std::env::var_os("JAVA_TOOL_OPTIONS").map(|options| ("JAVA_TOOL_OPTIONS", options)))
            .env("HOME", self.path("home"))
            .env("CPACK_CACHE_DIR", self.path("node"))
            // Clean-up must not depend on how full this machine's disk is.
            .env("CPACK_CACHE_RESERVE", "0")
            .env("CPACK_BOOT", boot())
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    /// A virtual environment with one distribution, thing 1.0, and without pip.
    pub fn small_environment(&self) -> PathBuf {
        let env = self.path("venv");
        venv_without_pip(&usual_interpreter(), &env);
        install_by_hand(&env, "thing", "1.0", "");
        env
    }

    /// `cluster-pack` with these arguments, on the store of this world.
    pub fn pack(&self, arguments: &[&str]) -> Output {
        self.command(cluster_pack()).arg("--store").arg(self.path("store")).args(arguments).output().expect("runs")
    }

    /// The JSON that `cluster-pack --json` answers.
    pub fn pack_json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.pack(&[&["--json"], arguments].concat());
        serde_json::from_str(&succeeded(&output, &format!("{arguments:?}"))).expect("JSON")
    }

    /// A launcher for the environment at `venv`.
    pub fn launcher(&self, venv: &Path, more: &[&str]) -> PathBuf {
        let path = self.path("env-python");
        let arguments = ["launcher", "--venv", utf8(venv), "-o", utf8(&path)];
        succeeded(&self.pack(&[&arguments, more].concat()), "cluster-pack launcher");
        path
    }

    /// Runs a program to its end and returns its standard output.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().expect("starts");
        succeeded(&output, &format!("{} {arguments:?}", program.display()))
    }
}

impl Drop for World {
    /// Trees of the node cache are read-only, which keeps `TempDir` from removing them.
    fn drop(&mut self) {
        let _ = remove_tree(self.directory.path(), None);
    }
}

/// The standard output of a command that must have succeeded. `what` names the command.
pub fn succeeded(output: &Output, what: &str) -> String {
    assert!(output.status.success(), "{what} ({}): {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Every CPython from 3.9 on that this machine has, by version; at least one.
pub fn interpreters() -> Vec<PathBuf> {
    crate::interpreters::interpreters().iter().map(|(_, program)| program.clone()).collect()
}

/// The interpreter of most tests: 3.11 or 3.12, for which most packages have wheels.
pub fn usual_interpreter() -> PathBuf {
    let mut all = interpreters();
    let newest = all.pop().expect("at least one");
    all.into_iter().find(|p| p.ends_with("python3.11") || p.ends_with("python3.12")).unwrap_or(newest)
}

/// The interpreter that has the fewest packages of its own: for tests that copy or pack all that an interpreter has.
pub fn leanest_interpreter() -> PathBuf {
    let packages = |python: &PathBuf| {
        let code = "import os, sysconfig; print(len(os.listdir(sysconfig.get_path('purelib'))))";
        let output = Command::new(python).args(["-I", "-c", code]).output().expect("starts");
        succeeded(&output, "a listing of purelib").trim().parse::<usize>().expect("a number")
    };
    interpreters().into_iter().min_by_key(packages).expect("at least one")
}

/// Writes a module and its metadata as an installer does. Returns the site-packages directory.
pub fn install_by_hand(venv: &Path, name: &str, version: &str, body: &str) -> PathBuf {
    let lib = fs::read_dir(venv.join("lib")).expect("lib").flatten();
    let site = lib.map(|entry| entry.path().join("site-packages")).find(|site| site.is_dir()).expect("site-packages");
    let info = site.join(format!("{name}-{version}.dist-info"));
    fs::create_dir_all(&info).expect("creates");
    fs::write(site.join(format!("{name}.py")), body).expect("writes");
    fs::write(info.join("METADATA"), format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"))
        .expect("writes");
    fs::write(info.join("WHEEL"), "Wheel-Version: 1.0\nTag: py3-none-any\n").expect("writes");
    let record = format!(
        "{name}.py,,\n{name}-{version}.dist-info/METADATA,,\n{name}-{version}.dist-info/WHEEL,,\n{name}-{version}.dist-info/RECORD,,\n"
    );
    fs::write(info.join("RECORD"), record).expect("writes");
    site
}

/// Locks a cached environment against other tests until the file is dropped.
pub fn alone(name: &str) -> File {
    let directory = target().join("test-environments");
    fs::create_dir_all(&directory).expect("creates");
    let file = File::create(directory.join(format!("{name}.lock"))).expect("a lock file");
    file.lock().expect("a lock");
    file
}

/// An environment with these packages from the index, kept under `target/` for the next run. Tests that need it at the same
/// time wait until one of them has made it.
pub fn installed(name: &str, packages: &[&str]) -> PathBuf {
    let _making = alone(&format!("{name}.making"));
    let path = target().join("test-environments").join(name);
    let done = path.join(".complete");
    let wanted = packages.join("\n");
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return path;
    }
    let _ = fs::remove_dir_all(&path);
    venv(&usual_interpreter(), &path);
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let output = Command::new(path.join("bin/python")).args(pip).args(packages).output().expect("starts");
    succeeded(&output, &format!("pip install {packages:?}"));
    fs::write(done, wanted).expect("writes");
    path
}
