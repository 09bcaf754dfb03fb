//! Conda environments, whole: packed by package, booted on nodes that have no Python.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cpack_format::Digest;
use cpack_test::conda::{install, pip_install, tools, wheel};
use cpack_test::programs::{World, boot, succeeded, text, utf8};

use super::archives::edit;

pub(super) const PACKAGES: [&str; 5] = ["python", "pure=1.0", "native", "needs-native", "activates"];

/// Says what the environment is, where a node has no Python and nothing on its path.
pub(super) const CODE: &str = "import json, needs_native, os, pure, subprocess, sys, sysconfig\n\
    value, share, path = needs_native.all()\n\
    tools = [subprocess.check_output([tool, 'x'], text=True).strip() for tool in ['pure-tool', 'native-tool', '2to3']]\n\
    print(json.dumps(dict(prefix=sys.prefix, base=sys.base_prefix, value=value, share=share, path=path, tools=tools,\n\
    conf=open(os.path.join(sys.prefix, 'etc/native.conf')).read(), config=sysconfig.get_config_var('prefix'),\n\
    version=pure.VERSION, environ={k: v for k, v in os.environ.items() if k != '_'})))";

pub(super) fn conda(world: &World, name: &str, packages: &[&str]) -> PathBuf {
    let prefix = world.path(name);
    install(&prefix, packages);
    prefix
}

/// Starts a launcher on a node without Python: there is nothing on its path but what scripts find their own directory by.
pub(super) fn start(world: &World, launcher: &Path, arguments: &[&str]) -> Output {
    let bin = world.path("bin");
    if fs::create_dir(&bin).is_ok() {
        for tool in ["dirname", "realpath"] {
            let places = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(tool));
            symlink(places.iter().find(|path| path.is_file()).expect("coreutils"), bin.join(tool)).expect("links");
        }
    }
    world.command(launcher).env("PATH", bin).args(arguments).output().expect("starts")
}

fn described(world: &World, launcher: &Path) -> serde_json::Value {
    let said = succeeded(&start(world, launcher, &["-c", CODE]), "the launcher");
    serde_json::from_str(&said).expect("JSON")
}

/// The archive of each layer by its name, and the names of those that were sent.
pub(super) fn uploaded(world: &World, prefix: &Path) -> (BTreeMap<String, String>, Vec<String>) {
    let report = world.pack_json(&["upload", "--venv", utf8(prefix), "--name", "conda"]);
    let layers = report["layers"].as_array().expect("layers");
    let name = |layer: &serde_json::Value| layer["name"].as_str().expect("a name").to_owned();
    let digests = layers.iter().map(|layer| (name(layer), layer["archive"].as_str().expect("a digest").to_owned()));
    (digests.collect(), layers.iter().filter(|layer| layer["sent"] == true).map(name).collect())
}

#[test]
fn conda_environment_runs_on_a_node_without_python() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let launcher = world.launcher(&prefix, &[]);
    fs::rename(&prefix, world.path("gone")).expect("moves");
    for _ in ["cold", "warm"] {
        let found = described(&world, &launcher);
        let tree = found["prefix"].as_str().expect("a path");
        assert!(tree.starts_with(utf8(&world.path("node"))), "{found}");
        assert_eq!((found["base"].as_str(), found["config"].as_str()), (Some(tree), Some(tree)), "{found}");
        assert_eq!((found["value"].as_i64(), found["version"].as_str()), (Some(42), Some("1.0")));
        assert_eq!(found["share"], format!("{tree}/share/native"));
        assert_eq!(found["path"], format!("{tree}/bin:{tree}/lib"));
        assert_eq!(found["conf"], format!("share = {tree}/share/native\nlib={tree}/lib\n"));
        let tools = serde_json::json!([format!("pure 1.0 {tree} x"), format!("{tree}/share x"), tree]);
        assert_eq!(found["tools"], tools);
        let environ = &found["environ"];
        assert_eq!(environ["CONDA_PREFIX"], tree);
        assert_eq!(environ["PATH"], format!("{tree}/bin:{}", world.path("bin").display()));
        assert_eq!(environ["ACTIVATED"], format!("{tree}/share/activates"));
        assert_eq!(environ["FROM_JSON"], "json");
        assert_eq!((&environ["CONDA_SHLVL"], &environ["CONDA_DEFAULT_ENV"]), (&"1".into(), &"conda".into()));
    }
    let verified = world.run(cpack_test::programs::boot(), &["--cpack", "verify"]);
    assert_eq!(verified, "checked 5 layers and 1 environments\n");
}

#[test]
fn conda_environments_at_two_places_share_all_layers() {
    let world = World::new();
    let long = format!("a/{}/b", "long".repeat(30));
    let (first, second) = (conda(&world, "one/conda", &PACKAGES), conda(&world, &long, &PACKAGES));
    let (layers, sent) = uploaded(&world, &first);
    assert_eq!(sent.len(), 5, "{sent:?}");
    let (again, sent) = uploaded(&world, &second);
    assert_eq!((&again, sent), (&layers, Vec::new()));
    // A package in another version is all that is sent.
    let third = conda(&world, "three", &["python", "pure=2.0", "native", "needs-native", "activates"]);
    let (other, sent) = uploaded(&world, &third);
    assert_eq!(sent, ["pure"]);
    assert_ne!(other["pure"], layers["pure"]);
}

/// Regular files below `root` that hold `mark`, by their path.
pub(super) fn holding(root: &Path, mark: &str) -> BTreeMap<PathBuf, Digest> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("reads").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("stat"));
            let relative = path.strip_prefix(root).expect("below").to_owned();
            // A Python of root writes byte-code there.
            let is_left_out = ["conda-meta", ".cpack", "__pycache__"].iter().any(|name| relative.ends_with(name));
            if kind.is_dir() && !is_left_out {
                pending.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("reads");
                if memmem(&bytes, mark.as_bytes()) {
                    found.insert(relative, Digest::of(&bytes));
                }
            }
        }
    }
    found
}

fn memmem(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn conda_files_are_written_as_rattler_and_conda_unpack_write_them() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let launcher = world.launcher(&prefix, &[]);
    let tree = PathBuf::from(described(&world, &launcher)["prefix"].as_str().expect("a path"));
    let mut ours = holding(&tree, utf8(&tree));
    assert!(ours.len() > 5, "{ours:?}");
    assert_eq!(holding(&tree, "_placehold_placehold"), BTreeMap::new());
    let length = |root: &Path| fs::metadata(root.join("lib/libnative.so.1")).expect("stat").len();
    assert_eq!(length(&tree), length(&prefix));
    // They have the rule for first lines that a kernel would cut; conda-unpack has not.
    let rewritten = |path: &PathBuf| fs::read(tree.join(path)).expect("reads").starts_with(b"#!/bin/sh\n'''exec'");
    let first_lines: Vec<PathBuf> = ours.keys().filter(|path| rewritten(path)).cloned().collect();

    // What conda-pack and conda-unpack give there.
    let archive = world.path("packed.tar");
    let pack = ["-p", utf8(&prefix), "-o", utf8(&archive), "--format", "tar", "--quiet"];
    succeeded(&Command::new(tools().join("bin/conda-pack")).args(pack).output().expect("starts"), "conda-pack");
    fs::rename(world.path("node"), world.path("aside")).expect("moves");
    fs::create_dir_all(&tree).expect("creates");
    let untar = Command::new("tar").args(["xf", utf8(&archive), "-C", utf8(&tree)]).output().expect("starts");
    succeeded(&untar, "tar");
    let unpack = Command::new(tree.join("bin/python")).arg(tree.join("bin/conda-unpack")).output().expect("starts");
    succeeded(&unpack, "conda-unpack");
    let theirs = holding(&tree, utf8(&tree));
    // conda-pack lists no prefix for the interpreter that is to run conda-unpack.
    let is_known = |path: &PathBuf| first_lines.contains(path) || path.starts_with("bin");
    let differing: Vec<_> = ours.iter().filter(|(path, digest)| theirs.get(*path) != Some(digest)).collect();
    assert!(differing.iter().all(|(path, _)| is_known(path)), "{differing:?} {first_lines:?}");
    assert_eq!(theirs.get(Path::new("lib/libnative.so.1")), ours.get(Path::new("lib/libnative.so.1")));

    // What rattler installs there.
    fs::remove_dir_all(&tree).expect("removes");
    install(&tree, &PACKAGES);
    let theirs = holding(&tree, utf8(&tree));
    // Scripts for Python find it beside themselves instead.
    let more: Vec<_> = theirs.keys().filter(|path| !ours.contains_key(*path) && !path.starts_with("bin")).collect();
    assert!(more.is_empty(), "{more:?}");
    ours.retain(|path, digest| theirs.get(path) != Some(digest));
    assert_eq!(ours, BTreeMap::new());
}

#[test]
fn conda_environment_refuses_a_place_with_a_long_path_in_one_line() {
    let world = World::new();
    let prefix = conda(&world, "conda", &["python", "native"]);
    let launcher = world.launcher(&prefix, &[]);
    let place = world.path(&format!("{}/{}", "d".repeat(100), "e".repeat(100)));
    fs::create_dir_all(&place).expect("creates");
    let mut command = world.command(&launcher);
    command.env("CPACK_CACHE_DIR", &place).env("HOME", &place).env("TMPDIR", &place);
    let output = command.current_dir(&place).args(["-c", "print(1)"]).output().expect("starts");
    let said = text(&output.stderr);
    let is_clear = said.contains("255") && said.contains("CPACK_CACHE_DIR") && said.lines().count() == 1;
    assert!(output.status.code() == Some(87) && output.stdout.is_empty() && is_clear, "{said}");
}

#[test]
fn what_pip_installed_into_a_conda_environment_is_packed_by_distribution() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (before, _) = uploaded(&world, &prefix);
    pip_install(&prefix, &["--force-reinstall", utf8(&wheel(&world.path("home")))]);
    // Files that nothing owns: what a `post-link` script might write.
    fs::write(prefix.join("share/native/cache.txt"), format!("made in {}/x\n", prefix.display())).expect("writes");
    fs::write(prefix.join("share/native/plain.txt"), "plain\n").expect("writes");
    edit(&world, &prefix);

    let output = world.pack(&["upload", "--venv", utf8(&prefix), "--name", "conda"]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("pure 3.0 of pip"), "{said}");
    let report = world.pack_json(&["upload", "--venv", utf8(&prefix), "--name", "conda"]);
    let layers = report["layers"].as_array().expect("layers").iter();
    let kinds: Vec<String> = layers
        .map(|layer| format!("{} {} {}", layer["kind"], layer["name"], layer["version"]).replace('"', ""))
        .collect();
    for layer in ["conda pure 1.0", "distribution pure 3.0", "unowned unowned ", "overlay edited 1.0"] {
        assert!(kinds.iter().any(|kind| kind == layer), "{layer}: {kinds:?}");
    }
    let (after, _) = uploaded(&world, &prefix);
    let unchanged = ["python", "native", "needs-native", "activates"];
    assert!(unchanged.iter().all(|name| before[*name] == after[*name]), "{before:?} {after:?}");

    let launcher = world.launcher(&prefix, &[]);
    let code = "import edited, os, pure, sys\nprint(edited.WORD, pure.VERSION, os.environ['CONDA_PREFIX'] == sys.prefix)\n\
        print(open(sys.prefix + '/share/native/plain.txt').read() + open(sys.prefix + '/share/native/cache.txt').read(), end='')";
    let said = succeeded(&start(&world, &launcher, &["-c", code]), "the launcher");
    let made = format!("made in {}", world.path("node").display());
    let rest = said.strip_prefix("edited 3.0 True\nplain\n").unwrap_or_else(|| panic!("{said}"));
    assert!(rest.starts_with(&made) && rest.ends_with("/x\n") && rest.contains("/environments/"), "{said}");
}

#[test]
fn activation_scripts_that_ask_the_node_are_run_by_a_shell_at_each_start() {
    let world = World::new();
    let prefix = conda(&world, "conda", &["python", "asks", "activates"]);
    let path = world.path("env-python");
    let output = world.pack(&["launcher", "--venv", utf8(&prefix), "-o", utf8(&path)]);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("etc/conda/activate.d/asks.sh (it runs programs)"), "{said}");
    let code = "import os, sys; print(*(os.environ[name].replace(sys.prefix, 'P') for name in ['ASKED', 'ASKED_PREFIX', 'ACTIVATED']), sys.argv)";
    let mut command = world.command(&path);
    let output = command.args(["-c", code, "a b"]).output().expect("starts");
    assert_eq!(succeeded(&output, "the launcher"), "Linux P P/share/activates ['-c', 'a b']\n");
    assert_eq!(text(&output.stderr), "noise\n");
}

#[test]
fn only_and_ignore_select_conda_packages() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let names = |more: &[&str]| {
        let report = world.pack_json(&[&["upload", "--venv", utf8(&prefix)], more].concat());
        let layers = report["layers"].as_array().expect("layers").iter();
        layers.map(|layer| layer["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    // A package that the named one is linked with is kept, and Python in any case.
    assert_eq!(names(&["--only", "needs-native"]), ["native", "needs-native", "python"]);
    assert_eq!(names(&["--ignore", "pure,activates,python"]), ["native", "needs-native", "python"]);
    let output = world.pack(&["upload", "--venv", utf8(&prefix), "--only", "needs-nativ"]);
    let said = text(&output.stderr);
    assert!(said.contains("did you mean needs-native?") && said.lines().count() == 1, "{said}");
    let archive = world.path("env.tar.gz");
    succeeded(&world.pack(&["pack", "--venv", utf8(&prefix), "--ignore", "pure", "-o", utf8(&archive)]), "pack");
    let exec = start(&world, boot(), &["--cpack", "exec", utf8(&archive), "-c", "import needs_native, pure"]);
    assert!(text(&exec.stderr).contains("No module named 'pure'"), "{}", text(&exec.stderr));
}

/// Packs a conda environment with conda-pack, whose options are `more`.
fn conda_packed(world: &World, prefix: &Path, name: &str, more: &[&str]) -> PathBuf {
    let archive = world.path(name);
    let pack = ["-p", utf8(prefix), "-o", utf8(&archive), "--quiet"];
    succeeded(
        &Command::new(tools().join("bin/conda-pack")).args(pack).args(more).output().expect("starts"),
        "conda-pack",
    );
    archive
}

/// Checks that what [`CODE`] found is the tree in the node cache, whose path stands wherever packages hold theirs. Returns it.
pub(crate) fn check_tree<'a>(world: &World, found: &'a serde_json::Value) -> &'a str {
    let tree = found["prefix"].as_str().expect("a path");
    assert!(tree.starts_with(utf8(&world.path("node"))), "{found}");
    assert_eq!((found["base"].as_str(), found["config"].as_str()), (Some(tree), Some(tree)), "{found}");
    assert_eq!(found["share"], format!("{tree}/share/native"));
    assert_eq!(found["conf"], format!("share = {tree}/share/native\nlib={tree}/lib\n"));
    let tools = serde_json::json!([format!("pure 1.0 {tree} x"), format!("{tree}/share x"), tree]);
    assert_eq!(found["tools"], tools);
    tree
}

#[test]
fn archives_of_conda_pack_start_as_conda_unpack_would_leave_them() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let archives = ["packed.tar.gz", "packed.zip"].map(|name| conda_packed(&world, &prefix, name, &[]));
    let fixed = conda_packed(&world, &prefix, "fixed.tar", &["--dest-prefix", "/opt/fixed"]);
    fs::rename(&prefix, world.path("gone")).expect("moves");
    for archive in archives {
        for _ in ["cold", "warm"] {
            let output = start(&world, boot(), &["--cpack", "exec", utf8(&archive), "-c", CODE]);
            let found: serde_json::Value = serde_json::from_str(&succeeded(&output, utf8(&archive))).expect("JSON");
            let tree = check_tree(&world, &found);
            let environ = &found["environ"];
            assert_eq!(environ["CONDA_PREFIX"], tree);
            assert_eq!((&environ["FROM_JSON"], &environ["CONDA_DEFAULT_ENV"]), (&"json".into(), &"packed".into()));
            assert_eq!(environ["ACTIVATED"], format!("{tree}/share/activates"));
            // In a zip links are copies, which conda-pack does not list.
            let held = holding(Path::new(tree), "_placehold_placehold");
            assert!(held.is_empty() || archive.ends_with("packed.zip"), "{held:?}");
        }
    }
    let output = start(&world, boot(), &["--cpack", "exec", utf8(&fixed), "-c", ""]);
    assert!(text(&output.stderr).contains("without --dest-prefix"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(83));
}

#[test]
fn upload_splits_an_archive_of_conda_pack_by_package() {
    let world = World::new();
    let prefix = conda(&world, "conda", &PACKAGES);
    let (direct, _) = uploaded(&world, &prefix);
    let archive = conda_packed(&world, &prefix, "conda.tar.gz", &[]);
    fs::rename(&prefix, world.path("gone")).expect("moves");
    let report = world.pack_json(&["upload", utf8(&archive), "--name", "conda"]);
    let layers = report["layers"].as_array().expect("layers");
    let names: Vec<&str> = layers.iter().map(|layer| layer["name"].as_str().expect("a name")).collect();
    assert!(direct.keys().all(|name| names.contains(&name.as_str())), "{names:?} {direct:?}");
    let same = layers.iter().filter(|layer| layer["sent"] == false).count();
    assert!(same > 0, "{layers:?} {direct:?}");
    let launcher = world.path("env-python");
    succeeded(&world.pack(&["launcher", utf8(&archive), "-o", utf8(&launcher)]), "launcher");
    let found = described(&world, &launcher);
    assert_eq!(found["share"], format!("{}/share/native", found["prefix"].as_str().expect("a path")));
}
