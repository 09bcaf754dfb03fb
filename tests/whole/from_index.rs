//! Packages from the index, booted: awkward ones, numpy's own tests, an editable project with an extension.

use std::fs;
use std::path::Path;
use std::process::Command;

use cpack_test::programs::{World, installed, succeeded, text, usual_interpreter, utf8, venv};

use crate::environments::RUN;
use crate::equality::{assert_same, describe};

#[test]
fn awkward_packages_boot_as_installed() {
    let world = World::new();
    let env = installed(
        "awkward",
        &["google-cloud-storage", "google-cloud-bigquery", "zope.interface", "jupyterlab", "matplotlib", "sphinx"],
    );
    let launcher = world.launcher(&env, &[]);
    assert_same(&describe(&world, &env.join("bin/python")), &describe(&world, &launcher));
    let imports = "import google.cloud.storage, google.cloud.bigquery, zope.interface, jupyterlab, sphinx, matplotlib; \
        matplotlib.use('agg'); import matplotlib.pyplot as p; p.plot([1, 2]); print('drawn')";
    assert_eq!(world.run(&launcher, &["-c", imports]).trim(), "drawn");
    // Scripts find the interpreter beside them, wherever they are.
    let bin = world.run(&launcher, &["-c", "import sys; print(sys.prefix)"]);
    let script = Path::new(bin.trim()).join("bin/sphinx-build");
    assert!(world.run(&script, &["--version"]).contains("sphinx-build"));
    let data = "import sys, os; print(os.path.exists(sys.prefix + '/share/jupyter/kernels/python3/kernel.json'))";
    assert_eq!(world.run(&launcher, &["-c", data]).trim(), "True");
}

#[test]
fn numpy_passes_its_own_tests_as_booted() {
    let world = World::new();
    let env = installed("numpy", &["numpy", "pytest", "hypothesis"]);
    let launcher = world.launcher(&env, &[]);
    let pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "numpy.linalg"];
    let output = world.command(&launcher).args(pytest).output().expect("starts");
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains(" passed") && !said.contains(" failed"), "{said}");
}

const SETUP: &str = "from setuptools import setup, Extension\n\
    setup(name='edited', version='1.0', packages=['edited'], package_dir={'': 'src'}, \
    ext_modules=[Extension('edited._speed', ['src/edited/_speed.c'])])\n";

const EXTENSION: &str = "#include <Python.h>\n\
    static PyObject *seven(PyObject *s, PyObject *a) { return PyLong_FromLong(7); }\n\
    static PyMethodDef methods[] = {{\"seven\", seven, METH_NOARGS, \"\"}, {NULL, NULL, 0, NULL}};\n\
    static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, \"_speed\", NULL, -1, methods};\n\
    PyMODINIT_FUNC PyInit__speed(void) { return PyModule_Create(&module); }\n";

#[test]
fn editable_project_with_extension_travels_as_overlay() {
    let world = World::new();
    let base = installed("setuptools", &["setuptools", "wheel"]);
    let (env, project) = (world.path("venv"), world.path("project"));
    venv(&usual_interpreter(), &env);
    let site = world.run(
        &base.join("bin/python"),
        &["-c", "import setuptools, os; print(os.path.dirname(os.path.dirname(setuptools.__file__)))"],
    );
    fs::create_dir_all(project.join("src/edited")).expect("creates");
    fs::write(project.join("setup.py"), SETUP).expect("writes");
    fs::write(project.join("src/edited/__init__.py"), "from ._speed import seven\nWORD = 'first'\n").expect("writes");
    fs::write(project.join("src/edited/_speed.c"), EXTENSION).expect("writes");
    let pip = ["-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "-e"];
    let output = Command::new(env.join("bin/python")).args(pip).arg(&project).env("PYTHONPATH", site.trim()).output();
    let output = output.expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));

    let code = "import edited, importlib.metadata as m; print(edited.WORD, edited.seven(), m.version('edited'), edited.__file__)";
    let launcher = world.launcher(&env, &[]);
    let first = world.run(&launcher, &["-c", code]);
    assert!(first.starts_with("first 7 1.0 ") && first.contains(utf8(&world.path("node"))), "{first}");

    fs::write(project.join("src/edited/__init__.py"), "from ._speed import seven\nWORD = 'second'\n").expect("writes");
    let report = world.pack_json(&["upload", "--venv", utf8(&env)]);
    let sent: Vec<_> = report["layers"].as_array().expect("layers").iter().filter(|l| l["sent"] == true).collect();
    assert!(sent.len() == 1 && sent[0]["kind"] == "overlay" && sent[0]["name"] == "edited", "{sent:?}");
    let launcher = world.launcher(&env, &[]);
    assert!(world.run(&launcher, &["-c", code]).starts_with("second 7 1.0 "));
}

#[test]
fn scripts_keep_docstring_and_future_imports() {
    let world = World::new();
    let env = installed("num2words", &["num2words==0.5.14", "docopt==0.6.2"]);
    let launcher = world.launcher(&env, &[]);
    let help = world.run(&launcher, &["-c", RUN, "num2words", "--help"]);
    assert!(help.starts_with("num2words: convert numbers into words.\n"), "{help}");
    assert_eq!(world.run(&launcher, &["-c", RUN, "num2words", "42"]), "forty-two\n");
}

/// A job's own project, as the source distribution that its build made, on top of what it needs.
#[test]
fn source_distribution_of_a_job_becomes_a_wheel_and_an_entry() {
    let world = World::new();
    let setuptools = installed("setuptools", &["setuptools", "wheel"]);
    let project = world.path("my-job");
    fs::create_dir_all(&project).expect("creates");
    let setup = "from setuptools import setup\nsetup(name='my-job', version='1.0', py_modules=['my_job'], \
        entry_points={'console_scripts': ['my-job = my_job:main']})\n";
    fs::write(project.join("setup.py"), setup).expect("writes");
    fs::write(project.join("my_job.py"), "def main():\n    import six; print('six', six.__version__)\n")
        .expect("writes");
    let mut command = Command::new(setuptools.join("bin/python"));
    command.args(["setup.py", "-q", "sdist", "--dist-dir"]).arg(world.path("dist")).current_dir(&project);
    succeeded(&command.output().expect("starts"), "sdist");
    let sdist = fs::read_dir(world.path("dist")).expect("a directory").flatten().next().expect("a file").path();
    let (requirements, wheelhouse) = (world.path("requirements.txt"), world.path("wheelhouse.zip"));
    fs::write(&requirements, format!("six==1.17.0\n{}\n", utf8(&sdist))).expect("writes");
    let pack = ["pack", "-r", utf8(&requirements), "--format", "wheelhouse", "-o", utf8(&wheelhouse)];
    succeeded(&world.pack(&pack), "pack");
    let job = world.path("job");
    succeeded(&world.pack(&["launcher", utf8(&wheelhouse), "--script", "my-job", "-o", utf8(&job)]), "launcher");
    assert_eq!(world.run(&job, &[]).trim(), "six 1.17.0");
}
