//! The client's own tests, and the wheel's.

use std::path::Path;
use std::process::Command;

use cpack_test::programs::{World, installed, text, usual_interpreter, utf8, venv};

use super::wheel::{PYTHON, succeed, wheel, with_client};

/// Runs a file of the client's tests. A run of no test fails.
pub(crate) fn unittest(environment: &Path, file: &str, variables: &[(&str, &str)]) {
    let world = World::new();
    let mut command = world.command(environment.join("bin/python"));
    command.args(["-m", "unittest", "--verbose", file]).current_dir(Path::new(PYTHON).join("tests"));
    command.env_remove("CPACK_BOOT").env("PYTHONDONTWRITEBYTECODE", "1").envs(variables.iter().copied());
    let said = succeed(&mut command);
    let ran = said.lines().find(|line| line.starts_with("Ran ")).unwrap_or_default();
    assert!(!ran.is_empty() && !ran.starts_with("Ran 0 ") && !said.contains("(skipped="), "{said}");
}

#[test]
fn client_keeps_every_name_of_newest_release() {
    let reference = installed("client-reference", &["cluster-pack", "setuptools"]);
    let python = reference.join("bin/python");
    unittest(&with_client("client-surface", &[]), "test_surface.py", &[("REFERENCE_PYTHON", utf8(&python))]);
}

#[test]
fn client_uploads_and_calls() {
    let environment = with_client("client", &[]);
    for part in ["uploads", "packers", "environments", "functions", "builders"] {
        unittest(&environment, &format!("test_{part}.py"), &[]);
    }
}

#[test]
fn wheel_has_all_programs() {
    let world = World::new();
    let environment = world.path("venv");
    venv(&usual_interpreter(), &environment);
    let python = environment.join("bin/python");
    succeed(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--no-deps"]).arg(wheel()));
    let mut command = world.command(environment.join("bin/cluster-pack"));
    command.env_remove("CPACK_BOOT").args([
        "--store",
        "store",
        "launcher",
        "--venv",
        utf8(&environment),
        "-o",
        "python",
    ]);
    succeed(&mut command);
    let prefix = world.run(&world.path("python"), &["-c", "import sys; print(sys.prefix)"]);
    assert!(!prefix.trim().is_empty() && prefix.trim() != utf8(&environment), "{prefix}");
    for file in ["man/man1/cluster-pack-upload.1", "bash-completion/completions/cluster-pack"] {
        assert!(environment.join("share").join(file).is_file(), "{file}");
    }
    // cpack-bench answers: the report does not exist.
    let mut bench = world.command(environment.join("bin/cluster-pack"));
    let output = bench.args(["bench", "simulate", "missing.json"]).output().expect("starts");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(87) && said.contains("cannot read missing.json"), "{said}");
}
