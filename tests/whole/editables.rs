//! Editable projects of real build backends behave in the booted environment as in the virtual one.

use std::fs;
use std::path::Path;
use std::process::Command;

use cpack_test::programs::{World, installed, text, usual_interpreter, utf8, venv};

/// Backends, with what each is told so that it packs the helpers, too. Those that are told nothing put the project's folder
/// on the path.
const BACKENDS: [(&str, &str, &str); 6] = [
    ("hat", "hatchling.build", "[tool.hatch.build.targets.wheel]\nonly-include = ['hat', 'hat_helpers', 'tools']\n"),
    (
        "exact",
        "hatchling.build",
        "[tool.hatch.build]\ndev-mode-exact = true\n[tool.hatch.build.targets.wheel]\nonly-include = ['exact', 'exact_helpers']\n",
    ),
    ("pdmp", "pdm.backend", ""),
    ("flt", "flit_core.buildapi", ""),
    ("sett", "setuptools.build_meta", "[tool.setuptools]\npackages = ['sett', 'sett_helpers']\n"),
    ("poet", "poetry.core.masonry.api", ""),
];

const VERSIONS: [&str; 8] = [
    "hatchling==1.25.0",
    "pdm-backend==2.3.3",
    "flit_core==3.9.0",
    "setuptools==69.5.1",
    "poetry-core==1.9.0",
    "editables==0.5",
    "wheel",
    "pip",
];

fn make_project(dir: &Path, name: &str, backend: &str, settings: &str) {
    let write = |file: &str, content: String| {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        fs::write(path, content).expect("writes");
    };
    let head = if name == "poet" {
        format!(
            "[tool.poetry]\nname = '{name}'\nversion = '1.0'\ndescription = 'd'\nauthors = ['a <a@b.c>']\n\
             packages = [{{include = '{name}'}}]\n[tool.poetry.scripts]\n{name}-run = '{name}:main'\n"
        )
    } else {
        format!(
            "[project]\nname = '{name}'\nversion = '1.0'\ndescription = 'd'\n[project.scripts]\n{name}-run = '{name}:main'\n"
        )
    };
    write("pyproject.toml", format!("{head}[build-system]\nrequires = []\nbuild-backend = '{backend}'\n{settings}"));
    write(
        &format!("{name}/__init__.py"),
        format!(
            "from {name}_helpers import WORD\nimport statistics\n\
             def main():\n    import sys\n    print('{name}', WORD, statistics.mean([3]), sys.argv[1:])\n"
        ),
    );
    write(&format!("{name}/__main__.py"), format!("from {name} import main\nmain()\n"));
    write(&format!("{name}_helpers/__init__.py"), "WORD = 'helped'\n".to_owned());
    // Hides nothing: the standard library comes first, as in the virtual environment.
    write("statistics.py", "mean = None\n".to_owned());
    write("tools/__init__.py", String::new());
    write("tests/test_it.py", String::new());
}

#[test]
fn editable_projects_of_all_backends_are_as_in_the_virtual_environment() {
    let world = World::new();
    let base = installed("backends", &VERSIONS);
    let site = world.run(
        &base.join("bin/python"),
        &["-c", "import editables, os; print(os.path.dirname(os.path.dirname(editables.__file__)))"],
    );
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    let mut command = Command::new(env.join("bin/python"));
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--no-deps",
    ]);
    // What the exact form of hatchling needs at run time: pip would see that of PYTHONPATH, and install nothing.
    command.args(["--ignore-installed", "editables==0.5"]);
    for (name, backend, settings) in BACKENDS {
        let project = world.path(name);
        make_project(&project, name, backend, settings);
        command.arg("-e").arg(&project);
    }
    let output = command.env("PYTHONPATH", site.trim()).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = world.pack(&["launcher", "--venv", utf8(&env), "-o", utf8(&world.path("env-python"))]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("pdmp: tests, tools in"), "what is left out is named: {said}");
    assert!(said.contains("hat: tests in"), "what is packed by its settings is not: {said}");

    let launcher = world.path("env-python");
    let bin = world.run(&launcher, &["-c", "import sys; print(sys.prefix)"]);
    let bin = Path::new(bin.trim()).join("bin");
    let child = "import os, subprocess, sys; print(subprocess.check_output([sys.executable, '-m', sys.argv[1], 'c'], \
                 env={'PATH': os.environ['PATH']}, cwd='/').decode())";
    for (name, ..) in BACKENDS {
        let expected = |argument: &str| format!("{name} helped 3 ['{argument}']\n");
        for options in [&[][..], &["-I"], &["-E"]] {
            let arguments = [options, &["-m", name, "x"]].concat();
            for python in [&env.join("bin/python"), &launcher] {
                let output = world.command(python).args(&arguments).current_dir("/").output().expect("starts");
                assert_eq!(text(&output.stdout), expected("x"), "{name} {options:?}: {}", text(&output.stderr));
            }
        }
        assert_eq!(world.run(&launcher, &["-c", child, name]).trim_end(), expected("c").trim_end());
        assert_eq!(world.run(&bin.join(format!("{name}-run")), &["y"]), expected("y"));
    }
    let listed = world.run(&launcher, &["-m", "pip", "list", "--disable-pip-version-check"]);
    assert!(listed.contains("Editable project location") && !listed.contains(utf8(&world.path(""))), "{listed}");

    let one = world.launcher(&env, &["--script", "hat-run"]);
    assert_eq!(world.run(&one, &["z"]), "hat helped 3 ['z']\n");
    let wrong = world.pack(&["launcher", "--venv", utf8(&env), "--script", "hat-rum", "-o", utf8(&one)]);
    assert!(text(&wrong.stderr).contains("did you mean \"hat-run\"?"), "{}", text(&wrong.stderr));
}
