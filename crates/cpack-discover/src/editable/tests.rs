use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::super::fixture::{Fixture, SITE, findings, interpreters, shortened};
use super::super::{DiscoverOptions, discover};
use super::*;

/// Installs a project by hand: `files` in site-packages, and that it is editable.
fn install(fixture: &Fixture, name: &str, project: &Path, files: &[(&str, &str)]) {
    let direct_url = format!(r#"{{"url": "file://{}", "dir_info": {{"editable": true}}}}"#, project.display());
    let url_path = format!("{name}-1.dist-info/direct_url.json");
    let mut all = vec![(url_path.as_str(), direct_url.as_str())];
    all.extend(files);
    fixture.install(name, "1", &all);
}

/// What an overlay holds beside metadata.
fn modules(editable: &Editable) -> Vec<String> {
    let mut paths = shortened(&editable.files);
    let all = paths.len();
    paths.retain(|path| !path.contains("-info/"));
    assert!(paths.len() < all, "the overlay of {} has no metadata", editable.name);
    paths
}

/// The one editable project of the environment, of which nothing else is left.
fn single(environment: &Environment) -> &Editable {
    assert_eq!(environment.editables.len(), 1, "{environment:#?}");
    assert_eq!(environment.distributions.len(), 0);
    assert_eq!(shortened(&environment.unowned), [""; 0]);
    &environment.editables[0]
}

/// A project with a compiled extension, one for another interpreter, and what a build left.
fn working_copy(fixture: &Fixture) -> PathBuf {
    let project = fixture.beside("work/proj");
    for file in ["pyproject.toml", "tests/__init__.py", "proj/__init__.py", "top.py", "proj/__pycache__/x.pyc"] {
        fixture.write(project.join(file), "");
    }
    fixture.write(project.join("proj/_c.cpython-311-x86_64-linux-gnu.so"), "");
    fixture.write(project.join("proj/_c.cpython-39-x86_64-linux-gnu.so"), "");
    fixture.write(project.join("build/_m.so"), "");
    let at = project.display();
    let plan = format!(
        r#"{{"targets": {{"{at}/build/_m.so": {{"destination": "{{py_platlib}}/proj/_m.so"}}}},
            "python": {{"{at}/proj/__init__.py": {{"destination": "{{py_platlib}}/proj/__init__.py"}}}}}}"#
    );
    fixture.write(project.join("build/meson-info/intro-install_plan.json"), plan);
    project
}

/// Installs the working copy as the build backends with this form do.
fn install_as(form: EditableForm, fixture: &Fixture, project: &Path) {
    let at = project.display();
    let path = format!("{at}\n");
    let finder = format!("MAPPING: dict[str, str] = {{'proj': '{at}/proj', 'top': '{at}/top'}}\nX = '__editable__'\n");
    let proxy = format!("from editables.redirector import X as F\nF.map_module('proj', '{at}/proj/__init__.py')");
    let redirect = format!(
        "class ScikitBuildRedirectingFinder: pass\n\ninstall({{'proj': '{at}/proj/__init__.py'}}, {{'proj._b': 'proj/_b.so'}})\n"
    );
    let meson = format!("class MesonpyMetaFinder(X): pass\n\ninstall('proj', {{'proj'}}, '{at}/build', ['ninja'])\n");
    let loads = [("load.pth", "import load; load.install()")];
    let generated = |source| [loads[0], ("load.py", source)];
    match form {
        EditableForm::PthPath => install(fixture, "proj", project, &[("proj.pth", &path)]),
        EditableForm::Finder => install(fixture, "proj", project, &generated(&finder)),
        EditableForm::Proxy => install(fixture, "proj", project, &generated(&proxy)),
        EditableForm::Redirect => {
            let files = [loads[0], ("load.py", redirect.as_str()), ("proj/_b.so", "")];
            install(fixture, "proj", project, &files);
        }
        EditableForm::Meson => install(fixture, "proj", project, &generated(&meson)),
        EditableForm::Link | EditableForm::EggLink => {
            install(fixture, "proj", project, &[]);
            symlink(project.join("proj"), fixture.prefix().join(SITE).join("proj")).expect("links");
            symlink(project.join("top.py"), fixture.prefix().join(SITE).join("top.py")).expect("links");
            let record = fixture.prefix().join(SITE).join("proj-1.dist-info/RECORD");
            let rows = fs::read_to_string(&record).expect("reads") + "proj,,\ntop.py,,\n";
            fs::write(record, rows).expect("writes");
        }
    }
}

#[test]
fn every_form_leads_to_the_project() {
    for (form, expected) in [
        (EditableForm::PthPath, &["proj/__init__.py", "proj/_c.cpython-311-x86_64-linux-gnu.so", "top.py"][..]),
        (EditableForm::Finder, &["proj/__init__.py", "proj/_c.cpython-311-x86_64-linux-gnu.so", "top.py"]),
        (EditableForm::Proxy, &["proj/__init__.py", "proj/_c.cpython-311-x86_64-linux-gnu.so"]),
        (EditableForm::Redirect, &["proj/__init__.py", "proj/_b.so", "proj/_c.cpython-311-x86_64-linux-gnu.so"]),
        (EditableForm::Meson, &["proj/__init__.py", "proj/_m.so"]),
        (EditableForm::Link, &["proj/__init__.py", "proj/_c.cpython-311-x86_64-linux-gnu.so", "top.py"]),
    ] {
        let fixture = Fixture::new();
        let project = working_copy(&fixture);
        install_as(form, &fixture, &project);
        fixture.module("__pycache__/load.cpython-311.pyc", "");
        fixture.write("bin/proj", "");
        fixture.module("proj-1.dist-info/entry_points.txt", "[console_scripts]\nproj = proj:main\n");
        let record = fixture.prefix().join(SITE).join("proj-1.dist-info/RECORD");
        fs::write(&record, fs::read_to_string(&record).expect("reads") + "../../../bin/proj,,\n").expect("writes");

        let environment = fixture.discover();
        let editable = single(&environment);
        assert_eq!((editable.form, editable.project_dir.as_path()), (form, project.as_path()));
        let script = "proj-1.data/scripts/proj";
        assert_eq!(modules(editable), [&[script], expected].concat(), "{form:?}");
        assert!(editable.files.iter().all(|f| f.source.as_deref().is_some_and(Path::is_file)), "{form:?}");
        assert_eq!(shortened(&editable.scripts), ["bin/proj"]);
        assert_eq!(editable.entry_points.len(), 1);
        assert!(editable.sources.iter().any(|s| s.name == "proj"), "{form:?}: {:?}", editable.sources);
        assert!(expected.iter().filter(|p| p.ends_with(".so")).count() == editable.extensions.len(), "{form:?}");
        let said = findings(&environment, FindingKind::Editable);
        let left_out =
            format!("proj: build, tests in {} are not packed with the editable project; ", project.display());
        let expected: &[&str] = if form == EditableForm::PthPath { &[&left_out] } else { &[] };
        assert_eq!((environment.warnings.len(), said.len()), (expected.len(), expected.len()), "{form:?}: {said:?}");
        assert!(said.iter().zip(expected).all(|(said, expected)| said.starts_with(expected)), "{said:?}");
    }
}

#[test]
fn what_a_project_installs_beside_its_modules_is_not_lost() {
    let fixture = Fixture::new();
    let project = fixture.beside("work");
    fixture.write(project.join("pyproject.toml"), "");
    fixture.write(project.join("proj.py"), "");
    let path = project.display().to_string();
    install(&fixture, "proj", &project, &[("_proj.pth", &path), ("proj_hook.pth", "import os\n")]);
    fixture.write("bin/plain.sh", "#!/bin/sh\n");
    fixture.write("share/proj/data.txt", "data");
    let record = fixture.prefix().join(SITE).join("proj-1.dist-info/RECORD");
    let rows = "../../../bin/plain.sh,,\n../../../share/proj/data.txt,,\n";
    fs::write(&record, fs::read_to_string(&record).expect("reads") + rows).expect("writes");
    let environment = fixture.discover();
    let editable = &environment.editables[0];
    assert_eq!(modules(editable), ["proj-1.data/scripts/plain.sh", "proj.py", "proj_hook.pth"]);
    assert_eq!(shortened(&environment.unowned), ["share/proj/data.txt"], "data stays in the environment");
}

#[test]
fn projects_are_on_the_path_in_the_order_of_their_pth_files() {
    let fixture = Fixture::new();
    for (name, pth) in [("a", "z.pth"), ("b", "_b.pth"), ("c", "load.pth")] {
        let project = fixture.beside(name);
        fixture.write(project.join("pyproject.toml"), "");
        fixture.write(project.join(format!("src/{name}.py")), "");
        let at = project.join("src").display().to_string();
        let finder = format!("MAPPING: dict[str, str] = {{'c': '{at}/c'}}\nX = '__editable__'\n");
        match name {
            "c" => install(&fixture, name, &project, &[(pth, "import load"), ("load.py", &finder)]),
            _ => install(&fixture, name, &project, &[(pth, &at)]),
        }
    }
    let environment = fixture.discover();
    let names: Vec<_> = environment.editables_in_turn().iter().map(|e| e.name.clone()).collect();
    assert_eq!(names, ["b", "a", "c"]);
}

#[test]
fn src_layouts_and_configured_names() {
    let fixture = Fixture::new();
    let project = fixture.beside("work");
    for file in ["src/one/__init__.py", "src/two.py", "src/one.egg-info/PKG-INFO", "tests/test.py"] {
        fixture.write(project.join(file), "");
    }
    let path = project.join("src").display().to_string();
    install(&fixture, "proj", &project, &[("proj.pth", &path)]);
    assert_eq!(modules(single(&fixture.discover())), ["one/__init__.py", "two.py"]);
    fixture.write(project.join("pyproject.toml"), "[tool.hatch.build.targets.wheel]\npackages = [\"src/one\"]\n");
    fixture.module("proj-1.dist-info/top_level.txt", "two\n");
    assert_eq!(modules(single(&fixture.discover())), ["one/__init__.py", "two.py"], "the folder is on the path");
}

#[test]
fn project_without_a_url_is_told_by_its_pth_file() {
    let fixture = Fixture::new();
    let project = fixture.beside("work");
    fixture.write(project.join("setup.py"), "");
    fixture.write(project.join("src/proj.py"), "");
    fixture.install("proj", "1", &[("proj.pth", &project.join("src").display().to_string())]);
    // Ordinary distributions have `.pth` files too.
    fixture.install("hook", "1", &[("hook.pth", "import hook; hook.go()\n./data\n"), ("hook.py", "def go(): pass\n")]);
    let environment = fixture.discover();
    assert_eq!(environment.editables.len(), 1);
    assert_eq!(environment.editables[0].project_dir, project);
    assert!(
        environment.distribution("hook").is_some_and(|d| d.files.iter().any(|f| f.path.as_bytes().ends_with(b".pth")))
    );
}

#[test]
fn what_is_not_understood_is_said() {
    let fixture = Fixture::new();
    let gone = fixture.beside("gone");
    install(&fixture, "compiled", &gone, &[("compiled/__init__.py", "")]);
    install(&fixture, "unknown", &gone, &[]);
    let empty = fixture.beside("empty");
    fixture.write(empty.join("pyproject.toml"), "");
    install(&fixture, "empty", &empty, &[("empty.pth", &empty.display().to_string())]);
    fixture.module("mine.pth", "/somewhere/else\n");
    let loader = format!("install('loaded', {{'loaded'}}, '{}/build')\n", gone.display());
    install(&fixture, "loaded", &gone, &[("loaded.pth", "import _load\n"), ("_load.py", &loader)]);
    install(&fixture, "program", &gone, &[("../../../bin/program", "\x7fELF")]);
    let environment = fixture.discover();
    let names: Vec<_> = environment.distributions.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["compiled", "loaded", "program", "unknown"]);
    let said = findings(&environment, FindingKind::Editable);
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said.iter().any(|s| s.starts_with("loaded 1 is installed as editable in a way that is not known")));
    assert!(said.iter().any(|s| s.starts_with("unknown 1 is installed as editable in a way that is not known")));
    assert!(said.iter().any(|s| s.starts_with("empty: what the editable project provides")), "{said:?}");
    let outside = findings(&environment, FindingKind::Outside);
    assert!(outside.len() == 1 && outside[0].contains("mine.pth puts /somewhere/else on the path"), "{outside:?}");
}

#[test]
fn names_that_hide_others_are_said() {
    let fixture = Fixture::new();
    let project = fixture.beside("work");
    for file in ["types.py", "requests/__init__.py", "ns/mine.py", "google/mine.py", "own.py"] {
        fixture.write(project.join("src").join(file), "");
    }
    install(&fixture, "proj", &project, &[("proj.pth", &project.join("src").display().to_string())]);
    fixture.install("Requests", "2", &[("requests/__init__.py", "")]);
    fixture.install("ns-other", "1", &[("ns/other.py", "")]);
    fixture.install("google-old", "1", &[("google/__init__.py", ""), ("google/x.py", "")]);
    let environment = fixture.discover();
    assert_eq!(
        findings(&environment, FindingKind::Shadow),
        [
            "proj: google is hidden by that of google-old 1, which has an __init__.py",
            "proj: requests is hidden by that of Requests 2",
            "proj: types is hidden by the module of that name in the standard library; rename it",
        ]
    );
}

#[test]
fn project_inside_the_environment_is_not_packed_twice() {
    let fixture = Fixture::new();
    let project = fixture.prefix().join("src/proj");
    fixture.write("src/proj/setup.py", "");
    fixture.write("src/proj/proj/__init__.py", "");
    install(&fixture, "proj", &project, &[("proj.pth", &project.display().to_string())]);
    assert_eq!(modules(single(&fixture.discover())), ["proj/__init__.py"]);
}

/// `setup.py develop` by the setuptools that CPython up to 3.11 comes with.
#[test]
fn what_setuptools_develops_is_what_python_imports() {
    let interpreter = interpreters().into_iter().find(|path| {
        let check = "import sys, ensurepip; sys.exit(sys.version_info >= (3, 12))";
        Command::new(path).args(["-I", "-c", check]).status().is_ok_and(|status| status.success())
    });
    let interpreter = interpreter.expect("this test needs a CPython 3.9 to 3.11, whose ensurepip has setuptools");
    println!("with {}", interpreter.display());
    let fixture = Fixture::new();
    let prefix = fixture.beside("real");
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(fixture.beside("work")).output().expect("runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    fixture.write(fixture.beside("work/src/pkg/__init__.py"), "");
    fixture.write(fixture.beside("work/src/pkg/_c.c"), C_SOURCE);
    fixture.write(fixture.beside("work/src/mod.py"), "main = print\n");
    fixture.write(fixture.beside("work/setup.py"), SETUP);
    cpack_test::venvs::venv(&interpreter, &prefix);
    let python = prefix.join("bin/python");
    // As pip does where there is no `wheel`, which newer ones ask for.
    run(&python, &["-W", "ignore", "setup.py", "-q", "develop", "--no-deps"]);

    let options = DiscoverOptions { whole_conda: false, cache_dir: fixture.beside("cache"), python: None };
    let environment = discover(&prefix, &options).expect("an environment");
    assert_eq!(environment.editables.len(), 1, "{:?}", environment.warnings);
    let editable = &environment.editables[0];
    assert_eq!((editable.name.as_str(), editable.version.as_str()), ("my-proj", "1.2"));
    assert_eq!((editable.entry_points.len(), shortened(&editable.scripts)), (1, vec!["bin/my-script".to_owned()]));
    assert_eq!((editable.requires.as_slice(), editable.extensions.len()), (&["six".to_owned()][..], 1));
    for name in ["pkg", "pkg._c", "mod"] {
        let code = format!("import importlib.util as u; print(u.find_spec('{name}').origin, end='')");
        let origin = run(&python, &["-I", "-c", &code]);
        let known = editable.files.iter().filter_map(|f| f.source.as_deref());
        assert!(known.into_iter().any(|source| source == Path::new(&origin)), "{name} is {origin}");
    }
    // What is left has nothing of the project.
    let rest = environment.distributions.iter().flat_map(|d| &d.files).chain(&environment.unowned);
    for file in rest.filter(|f| f.size < 4096) {
        let bytes = fs::read(environment.source(file)).expect("reads");
        let folder = fixture.beside("work/src").display().to_string();
        assert!(!String::from_utf8_lossy(&bytes).contains(&folder), "{} names the project", file.path);
    }
}

const SETUP: &str = "from setuptools import setup, Extension
setup(name='My.Proj', version='1.2', package_dir={'': 'src'}, packages=['pkg'], py_modules=['mod'],
      install_requires=['six'], ext_modules=[Extension('pkg._c', ['src/pkg/_c.c'])],
      entry_points={'console_scripts': ['my-script = mod:main']})
";

const C_SOURCE: &str = "#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, \"_c\", 0, -1, 0};
PyMODINIT_FUNC PyInit__c(void) { return PyModule_Create(&module); }
";
