//! The wheel, and environments that have it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::programs::{boot, cluster_pack, installed, target, text};

/// The client's folder.
pub(crate) const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packer/python");

/// Runs a command that must succeed, and returns what it said.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("starts");
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} ({}):\n{said}", output.status);
    said
}

/// The wheel, built once as `pip install` builds it, of executables with the profile of these tests.
pub(crate) fn wheel() -> &'static Path {
    static WHEEL: OnceLock<PathBuf> = OnceLock::new();
    WHEEL.get_or_init(|| {
        // Else cargo would be started by pip to do what is to be done all the same, and hide what it says.
        cluster_pack();
        let directory = target().join("test-environments/wheel");
        let _ = fs::remove_dir_all(&directory);
        let builder = installed("client-builder", &["pip"]);
        let mut command = Command::new(builder.join("bin/python"));
        command.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]).arg(&directory).arg(PYTHON);
        command.env("CARGO_TARGET_DIR", target()).env("CPACK_WHEEL_PROFILE", "dev").env("CPACK_WHEEL_BOOT", boot());
        succeed(&mut command);
        let mut files = fs::read_dir(&directory).expect("a directory").flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|e| e == "whl")).expect("a wheel")
    })
}

/// An environment with the wheel of now and these packages, which are kept for the next run.
pub(crate) fn with_client(name: &str, packages: &[&str]) -> PathBuf {
    let environment = installed(name, &[&["pip", "cloudpickle"], packages].concat());
    install_client(&environment);
    environment
}

/// Installs the wheel of now.
pub(crate) fn install_client(environment: &Path) {
    let mut command = Command::new(environment.join("bin/python"));
    command.args(["-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps"]).arg(wheel());
    succeed(&mut command);
}
