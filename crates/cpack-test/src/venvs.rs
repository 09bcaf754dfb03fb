//! Virtual environments in a fraction of the time of `python -m venv`, which takes seconds to install pip.
//!
//! `python -m venv` runs once for each build of an interpreter. The result lies under `target/tmp` and is never changed:
//! [`venv`] copies pip from there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::programs::succeeded;
use crate::{cached, run};

/// Makes an environment that has a template's pip.
const MAKE: &str = include_str!("venvs/make.py");

/// Prints what the template of an interpreter depends on: its build, and the pip that comes with it.
const BUILD: &str = "import ensurepip, sys; print(sys.version, ensurepip.version())";

const INSTALL: &str = "Python 3 with venv (Debian: python3-venv)";

/// Makes a new environment at `path`, with pip: what `python -m venv` makes.
pub fn venv(python: &Path, path: &Path) {
    let template = template(python);
    run(Command::new(python).args(["-I", "-c", MAKE]).args([&template, path]), INSTALL);
}

/// Makes a new environment at `path` in which nothing is installed: `python -m venv --without-pip`.
pub fn venv_without_pip(python: &Path, path: &Path) {
    run(Command::new(python).args(["-I", "-m", "venv", "--without-pip"]).arg(path), INSTALL);
}

/// The environment with pip that environments of `python` are copied from.
fn template(python: &Path) -> PathBuf {
    static FOUND: Mutex<Option<HashMap<PathBuf, PathBuf>>> = Mutex::new(None);
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let found = found.get_or_insert_default();
    if let Some(place) = found.get(python) {
        return place.clone();
    }
    let output = Command::new(python).args(["-I", "-c", BUILD]).output().expect("python starts");
    let build = succeeded(&output, "python with ensurepip");
    let name = format!("venv-{}", &blake3::hash(build.as_bytes()).to_hex()[..16]);
    let place = cached(&name, |place| run(Command::new(python).args(["-I", "-m", "venv"]).arg(place), INSTALL));
    found.insert(python.to_owned(), place.clone());
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::{text, utf8};

    /// Prints `pip`'s version, and the rows of every RECORD whose file has another digest.
    const CHECK: &str = "import base64, csv, hashlib, pathlib, pip, sysconfig\n\
        site = pathlib.Path(sysconfig.get_path('purelib'))\n\
        count = 0\n\
        for record in site.glob('*/RECORD'):\n    for path, digest, _ in csv.reader(record.open()):\n        \
        found = hashlib.sha256((site / path).read_bytes()).digest() if digest else b''\n        \
        assert digest in ('', 'sha256=' + base64.urlsafe_b64encode(found).decode().rstrip('=')), path\n        \
        count += path.startswith('../')\n\
        print(pip.__file__.startswith(str(site)), count > 1)";

    #[test]
    fn venv_has_pip_that_runs_and_is_as_its_record_says() {
        let directory = tempfile::tempdir().expect("a directory");
        let python = crate::programs::usual_interpreter();
        for name in ["with space", &"long".repeat(40)] {
            let path = directory.path().join(name);
            venv(&python, &path);
            let said = Command::new(path.join("bin/pip")).arg("--version").output().expect("pip starts");
            let said = succeeded(&said, "pip");
            assert!(said.contains(utf8(&path)), "{said}");
            let output = Command::new(path.join("bin/python")).args(["-I", "-c", CHECK]).output().expect("starts");
            assert_eq!(text(&output.stdout), "True True\n", "{}", text(&output.stderr));
        }
    }
}
