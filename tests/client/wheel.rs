//! The wheel, and environments that have it.

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cpack_format::Digest;
use cpack_test::programs::{alone, as_from_a_shell, boot, cluster_pack, installed, target, text};

/// The client's folder.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packer/python");

/// Runs a command that must succeed, and returns what it said.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    // What unittest found comes first: pages of Spark's log stand before it.
    let (log, found) = said.split_at(said.find("\n======").unwrap_or(0));
    assert!(output.status.success(), "{command:?} ({}):\n{found}\n{log}", output.status);
    said
}

/// The wheel, built once as `pip install` builds it, of executables with the profile of these tests.
pub(crate) fn wheel() -> &'static Path {
    static WHEEL: OnceLock<PathBuf> = OnceLock::new();
    WHEEL.get_or_init(|| {
        // pip hides what cargo says: build the programs before pip starts cargo.
        let bench = cluster_pack().with_file_name("cpack-bench");
        let directory = target().join("test-environments/wheel");
        let _ = fs::remove_dir_all(&directory);
        let builder = installed("client-builder", &["pip"]);
        let mut command = Command::new(builder.join("bin/python"));
        command.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]).arg(&directory).arg(PYTHON);
        command.env("CARGO_TARGET_DIR", target()).env("CPACK_WHEEL_PROFILE", "dev").env("CPACK_WHEEL_BOOT", boot());
        command.env("CPACK_WHEEL_BENCH", bench);
        succeed(as_from_a_shell(&mut command));
        let mut files = fs::read_dir(&directory).expect("a directory").flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|e| e == "whl")).expect("a wheel")
    })
}

/// An environment with the client, for one test at a time: tests install projects into it.
#[derive(Debug)]
pub(crate) struct Environment {
    path: PathBuf,
    _alone: File,
}

impl Deref for Environment {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// An environment with the wheel of now and these packages, which are kept for the next run.
pub(crate) fn with_client(name: &str, packages: &[&str]) -> Environment {
    let alone = alone(name);
    let path = installed(name, &[&["pip", "cloudpickle", "fsspec"], packages].concat());
    // The digest of the wheel that is installed.
    let (mark, wheel) = (path.join(".wheel"), wheel());
    let digest = Digest::of(&fs::read(wheel).expect("a wheel")).to_hex();
    if !fs::read_to_string(&mark).is_ok_and(|found| found == digest) {
        let _ = fs::remove_file(&mark);
        let mut command = Command::new(path.join("bin/python"));
        command.args(["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"]).arg(wheel);
        succeed(&mut command);
        fs::write(&mark, digest).expect("writes");
    }
    Environment { path, _alone: alone }
}
