//! Archives that `cluster-pack pack` writes of conda environments: what `tar` alone makes of them, and what mends the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cpack_test::conda::{install, pip_install, wheel};
use cpack_test::programs::{World, boot, succeeded, text, usual_interpreter, utf8};

use super::archives::{UNTAR, UNZIP, edit};
use super::conda::{CODE, PACKAGES, check_tree, conda, holding, start, uploaded};

/// What no file may hold once an environment was mended.
const PLACEHOLDER: &str = "_placehold_placehold";

/// Packs `prefix` to `name`. Returns the archive and what was said.
fn packed(world: &World, prefix: &Path, name: &str) -> (PathBuf, String) {
    let archive = world.path(name);
    let output = world.pack(&["pack", "--venv", utf8(prefix), "-o", utf8(&archive)]);
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    (archive, text(&output.stderr))
}

fn unpacked(world: &World, archive: &Path, code: &str, tree: &Path) {
    world.run(&usual_interpreter(), &["-c", code, utf8(archive), utf8(tree)]);
}

/// Runs a program of an unpacked environment where nothing else is on the path but what its scripts need.
fn run(world: &World, program: &Path, arguments: &[&str]) -> Output {
    start(world, program, arguments)
}

#[test]
fn archive_of_a_conda_environment_runs_where_tar_unpacked_it() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (archive, said) = packed(&world, &prefix, "env.tar.gz");
    assert!(said.contains("bin/conda-unpack writes it") && !said.contains("each node needs"), "{said}");
    assert!(said.contains("--archives env.tar.gz#environment"), "{said}");
    fs::rename(&prefix, world.path("gone")).expect("moves");
    let tree = world.path("environment");
    unpacked(&world, &archive, UNTAR, &tree);
    // Before anything was mended: the interpreter, native libraries, and scripts that run by it.
    let code = "import needs_native, pure, sys; print(needs_native.all()[0], pure.VERSION, sys.prefix)";
    let python = tree.join("bin/python");
    assert_eq!(succeeded(&run(&world, &python, &["-c", code]), "python"), format!("42 1.0 {}\n", tree.display()));
    let tool = run(&world, &tree.join("bin/pure-tool"), &["x"]);
    assert_eq!(succeeded(&tool, "pure-tool"), format!("pure 1.0 {} x\n", tree.display()));
    let tool = run(&world, &tree.join("bin/2to3"), &[]);
    assert_eq!(succeeded(&tool, "2to3"), format!("{}\n", tree.display()));
    // After it, and a second run changes nothing.
    let listed = || holding(&tree, utf8(&tree));
    succeeded(&run(&world, &tree.join("bin/conda-unpack"), &[]), "conda-unpack");
    let once = listed();
    succeeded(&run(&world, &python, &[utf8(&tree.join("bin/conda-unpack"))]), "conda-unpack");
    assert_eq!(listed(), once);
    let found: serde_json::Value = serde_json::from_str(&activated(&world, &tree)).expect("JSON");
    assert_eq!(found["share"], format!("{}/share/native", tree.display()));
    assert_eq!(found["environ"]["ACTIVATED"], format!("{}/share/activates", tree.display()));
    assert_eq!(
        (&found["environ"]["FROM_JSON"], &found["environ"]["CONDA_PREFIX"]),
        (&"json".into(), &utf8(&tree).into())
    );
    // The same environment gives the same bytes.
    fs::rename(world.path("gone"), &prefix).expect("moves");
    let (again, _) = packed(&world, &prefix, "again.tgz");
    assert!(fs::read(archive).expect("reads") == fs::read(again).expect("reads"), "two archives");
}

/// What [`CODE`] says in a shell that activated the environment.
fn activated(world: &World, tree: &Path) -> String {
    let script =
        "set -eu; . \"$1/bin/activate\"; python -c \"$2\"; deactivate; [ -z \"${ACTIVATED_AT:-}${CONDA_PREFIX:-}\" ]";
    let mut command = world.command("bash");
    succeeded(&command.args(["-c", script, "bash", utf8(tree), CODE]).output().expect("starts"), "bash")
}

#[test]
fn conda_unpack_of_an_archive_writes_what_rattler_writes() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (archive, _) = packed(&world, &prefix, "env.tar.zst");
    // A kernel would cut the first lines of some scripts there.
    for name in ["short", &"long".repeat(20)] {
        let tree = world.path(name);
        fs::create_dir(&tree).expect("creates");
        let untar = Command::new("tar").args(["xf", utf8(&archive), "-C", utf8(&tree)]).output().expect("starts");
        succeeded(&untar, "tar");
        succeeded(&run(&world, &tree.join("bin/conda-unpack"), &[]), "conda-unpack");
        let ours = holding(&tree, utf8(&tree));
        assert!(ours.len() > 5, "{ours:?}");
        // Its own list stays.
        assert_eq!(holding(&tree, PLACEHOLDER).into_keys().collect::<Vec<_>>(), [PathBuf::from("bin/conda-unpack")]);
        fs::remove_dir_all(&tree).expect("removes");
        install(&tree, &PACKAGES);
        let theirs = holding(&tree, utf8(&tree));
        // Scripts for Python find it beside themselves instead.
        let more: Vec<_> = theirs.keys().filter(|path| !ours.contains_key(*path) && !path.starts_with("bin")).collect();
        assert!(more.is_empty(), "{more:?}");
        let differing: Vec<_> = ours.iter().filter(|(path, digest)| theirs.get(*path) != Some(digest)).collect();
        assert!(differing.is_empty(), "{name}: {differing:?}");
    }
    let long = world.path(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    unpacked(&world, &packed(&world, &prefix, "env.tar.gz").0, UNTAR, &long);
    let refused = run(&world, &long.join("bin/python"), &[utf8(&long.join("bin/conda-unpack"))]);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("have room for 255") && said.lines().count() == 1, "{said}");
}

#[test]
fn own_archive_of_a_conda_environment_starts_mended_and_splits_by_package() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (direct, _) = uploaded(&world, &prefix);
    let archives = ["conda.tar.gz", "conda.tar.zst", "conda.zip"].map(|name| packed(&world, &prefix, name).0);
    fs::rename(&prefix, world.path("gone")).expect("moves");
    for archive in &archives {
        for _ in ["cold", "warm"] {
            let output = start(&world, boot(), &["--cpack", "exec", utf8(archive), "-c", CODE]);
            let found: serde_json::Value = serde_json::from_str(&succeeded(&output, utf8(archive))).expect("JSON");
            let tree = check_tree(&world, &found);
            assert_eq!(found["environ"]["ACTIVATED"], format!("{tree}/share/activates"));
            assert_eq!(holding(Path::new(tree), PLACEHOLDER), [].into(), "{}", archive.display());
        }
    }
    // Nothing but the archive's own scripts is new.
    let (layers, sent) = {
        let report = world.pack_json(&["upload", utf8(&archives[0]), "--name", "conda"]);
        let layers = report["layers"].as_array().expect("layers").clone();
        let name = |layer: &serde_json::Value| layer["name"].as_str().expect("a name").to_owned();
        let sent: Vec<String> = layers.iter().filter(|layer| layer["sent"] == true).map(name).collect();
        (layers.len(), sent)
    };
    assert_eq!((layers, sent), (direct.len() + 1, vec!["unowned".to_owned()]));
}

#[test]
fn zip_of_a_conda_environment_has_no_links_and_mends_their_copies() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (archive, said) = packed(&world, &prefix, "env.zip");
    assert!(!said.contains("without the link"), "{said}");
    let tree = world.path("environment");
    unpacked(&world, &archive, UNZIP, &tree);
    succeeded(&run(&world, &tree.join("bin/conda-unpack"), &[]), "conda-unpack");
    assert_eq!(fs::read(tree.join("lib/libnative.so")).ok(), fs::read(tree.join("lib/libnative.so.1")).ok());
    let found = serde_json::from_str::<serde_json::Value>(&activated(&world, &tree)).expect("JSON");
    assert_eq!(found["path"], format!("{0}/bin:{0}/lib", tree.display()));
}

#[test]
fn archive_of_a_conda_environment_has_what_pip_and_editing_left() {
    let world = World::new();
    let prefix = conda(&world, "conda", &["python", "pure=1.0", "native"]);
    pip_install(&prefix, &["--force-reinstall", utf8(&wheel(&world.path("home")))]);
    fs::write(prefix.join("share/native/cache.txt"), format!("made in {}/x\n", prefix.display())).expect("writes");
    // What an environment still has that was an archive once.
    fs::write(prefix.join("bin/conda-unpack"), "stale").expect("writes");
    fs::write(prefix.join("conda-meta/state"), r#"{"version": 1, "env_vars": {"MY_TOKEN": "t0p"}}"#).expect("writes");
    edit(&world, &prefix);
    let (archive, said) = packed(&world, &prefix, "env.tar.gz");
    assert!(said.contains("the value of MY_TOKEN") && !said.contains("t0p"), "{said}");
    fs::rename(&prefix, world.path("gone")).expect("moves");
    let tree = world.path("environment");
    unpacked(&world, &archive, UNTAR, &tree);
    succeeded(&run(&world, &tree.join("bin/conda-unpack"), &[]), "conda-unpack");
    let code = "import edited, os, pure, sys; print(edited.WORD, pure.VERSION, open(sys.prefix + '/share/native/cache.txt').read())";
    let said = succeeded(&run(&world, &tree.join("bin/python"), &["-c", code]), "python");
    assert_eq!(said, format!("edited 3.0 made in {}/x\n\n", tree.display()));
    let mut exec = world.command(boot());
    let exec =
        exec.args(["--cpack", "exec", utf8(&archive), "-c", "import os; print(os.environ['MY_TOKEN'])"]).output();
    assert_eq!(succeeded(&exec.expect("starts"), "exec"), "t0p\n");
}

#[test]
fn form_without_conda_packages_says_in_one_line_what_it_holds() {
    let world = World::new();
    let prefix = conda(&world, "conda", &["python", "pure=1.0"]);
    let wheels = world.path("wheels.zip");
    let output = world.pack(&["pack", "--venv", utf8(&prefix), "--format", "wheelhouse", "-o", utf8(&wheels)]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    // A conda package of a Python project is a distribution, too.
    let list = world.run(&usual_interpreter(), &["-m", "zipfile", "-l", utf8(&wheels)]);
    assert!(list.contains("pure-1.0-py3-none-any.whl"), "{list}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("is a conda prefix")).collect();
    let is_clear = |line: &str| line.contains("distributions alone") && line.contains("pack -o env.tar.gz");
    assert!(matches!(lines[..], [line] if is_clear(line)), "{said}");
}
