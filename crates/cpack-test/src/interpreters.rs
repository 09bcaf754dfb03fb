//! The CPythons of this machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Prints implementation, version and path: a file of that name may be a version manager's shim. Fails without `ensurepip`,
/// which Debian's `python3` may lack.
const PROBE: &str = "import sys, venv, ensurepip; print(sys.implementation.name, sys.version_info[1], sys.executable)";

/// One CPython for each minor version from 3.9 to 3.14 that can make virtual environments, oldest first, at least one. Looks
/// on `PATH` and in the directories of pyenv, uv and manylinux images, once per process.
#[allow(clippy::print_stdout, reason = "tests say which interpreters they ran")]
pub fn interpreters() -> &'static [(u8, PathBuf)] {
    static FOUND: OnceLock<Vec<(u8, PathBuf)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut places: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        for versions in [home.join(".pyenv/versions"), home.join(".local/share/uv/python"), "/opt/python".into()] {
            places.extend(versions.read_dir().into_iter().flatten().flatten().map(|entry| entry.path().join("bin")));
        }
        let probe = |minor: u8| places.iter().find_map(|place| probe(place.join(format!("python3.{minor}")), minor));
        let found: Vec<(u8, PathBuf)> = (9..=14).filter_map(|minor| Some((minor, probe(minor)?))).collect();
        assert!(!found.is_empty(), "no CPython from 3.9 to 3.14 with venv on this machine: install python3-venv");
        for (minor, program) in &found {
            println!("CPython 3.{minor}: {}", program.display());
        }
        found
    })
}

/// The interpreter that `program` runs, if it is CPython 3.`minor`.
fn probe(program: PathBuf, minor: u8) -> Option<PathBuf> {
    let output = Command::new(program).args(["-I", "-S", "-c", PROBE]).stderr(Stdio::null()).output().ok()?;
    let found = String::from_utf8(output.stdout).ok()?;
    found.trim_end().strip_prefix(&format!("cpython {minor} ")).map(PathBuf::from)
}
