//! Conda environments from `environment.yml` and lock files. The tools are stand-ins that install from the local channel with
//! py-rattler: micromamba, mamba, conda and pixi come from channels alone. Unit tests of `requirements` hold what each is called with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use cpack_test::conda::stand_in;
use cpack_test::programs::{World, cluster_pack, succeeded, text, utf8};

use super::conda::start;

const YML: &str = "name: work\nchannels: [local]\ndependencies:\n  - python\n  - pure=1.0\n  - activates\n";

/// Runs `cluster-pack` where `tools` is all there is on `PATH`, but for what the system has.
fn pack(world: &World, tools: &Path, arguments: &[&str]) -> Output {
    let mut command = world.command(cluster_pack());
    command.env("PATH", format!("{}:/usr/bin:/bin", tools.display())).arg("--store").arg(world.path("store"));
    command.args(arguments).output().expect("starts")
}

fn written(world: &World, name: &str, content: &str) -> PathBuf {
    let path = world.path(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
    fs::write(&path, content).expect("writes");
    path
}

fn calls(tools: &Path) -> Vec<String> {
    let calls = fs::read_to_string(tools.join("calls")).unwrap_or_default();
    calls.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// The names of the layers that an upload of `file` sends, and its URI.
fn sent(world: &World, tools: &Path, file: &Path) -> (Vec<String>, String) {
    let output = pack(world, tools, &["--json", "upload", "-r", utf8(file)]);
    let report: serde_json::Value = serde_json::from_str(&succeeded(&output, "upload")).expect("JSON");
    let layers = report["layers"].as_array().expect("layers").iter().filter(|layer| layer["sent"] == true);
    let names = layers.map(|layer| layer["name"].as_str().expect("a name").to_owned()).collect();
    (names, report["uri"].as_str().expect("a URI").to_owned())
}

#[test]
fn environment_yml_becomes_a_kept_conda_environment() {
    let world = World::new();
    let tools = world.path("tools");
    stand_in(&tools, "micromamba");
    let file = written(&world, "project/environment.yml", YML);
    let (layers, uri) = sent(&world, &tools, &file);
    assert_eq!(layers, ["activates", "pure", "python"]);
    assert!(uri.ends_with("/names/work"), "{uri}");
    let launcher = world.path("env-python");
    succeeded(&pack(&world, &tools, &["launcher", "-r", utf8(&file), "-o", utf8(&launcher)]), "launcher");
    let code = "import os, pure; print(pure.VERSION, *(os.environ[n] for n in ['CONDA_DEFAULT_ENV', 'FROM_JSON']))";
    assert_eq!(succeeded(&start(&world, &launcher, &["-c", code]), "the launcher"), "1.0 work json\n");
    assert_eq!(calls(&tools), ["micromamba create"]);
    // The file decides, and a package that did not change is not sent again.
    fs::write(&file, YML.replace("pure=1.0", "pure=2.0")).expect("writes");
    assert_eq!(sent(&world, &tools, &file).0, ["pure"]);
    assert_eq!(calls(&tools).len(), 2);
    fs::write(&file, YML).expect("writes");
    assert_eq!(sent(&world, &tools, &file).0, [] as [String; 0]);
    assert_eq!(calls(&tools).len(), 2);
}

#[test]
fn lock_files_of_conda_become_environments() {
    let world = World::new();
    let (mamba, pixi) = (world.path("mamba"), world.path("pixi"));
    stand_in(&mamba, "mamba");
    stand_in(&pixi, "pixi");
    let lock =
        "version: 1\npackage:\n- name: pure\n  version: '2.0'\n- name: native\n  version: '1.0'\n".replace('\'', "");
    let lock = written(&world, "project/conda-lock.yml", &lock);
    let archive = world.path("env.tar.gz");
    let output = pack(&world, &mamba, &["pack", "-r", utf8(&lock), "-o", utf8(&archive)]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(calls(&mamba), ["mamba create"]);
    let exec = start(
        &world,
        cpack_test::programs::boot(),
        &["--cpack", "exec", utf8(&archive), "-c", "import pure; print(pure.VERSION)"],
    );
    assert_eq!(succeeded(&exec, "exec"), "2.0\n");
    // pixi has the project's own environment.
    written(&world, "project/pixi.toml", "[workspace]\nname = \"p\"\n[dependencies]\npure = \"1.0\"\n");
    let lock = written(&world, "project/pixi.lock", "version: 6\n");
    let output = pack(&world, &pixi, &["run", "-r", utf8(&lock), "--", "-c", "import pure; print(pure.VERSION)"]);
    assert_eq!(succeeded(&output, "run"), "1.0\n");
    let manifest = world.path("project/pixi.toml");
    let line = fs::read_to_string(pixi.join("calls")).expect("calls");
    assert_eq!(line, format!("pixi install --frozen --manifest-path {}\n", manifest.display()));
}

#[test]
fn environment_yml_without_a_tool_says_in_one_line_what_is_needed() {
    let world = World::new();
    let empty = world.path("empty");
    fs::create_dir(&empty).expect("creates");
    let file = written(&world, "environment.yml", YML);
    let requirements = written(&world, "requirements.txt", "six\n");
    for (arguments, needles) in [
        (vec!["-r", utf8(&file)], ["one of micromamba, mamba, conda, pixi", "--venv PREFIX"]),
        (vec!["-r", utf8(&file), "-r", utf8(&requirements)], ["the only -r", "--add"]),
        (vec!["-r", utf8(&file), "--python-version", "3.12"], ["environment.yml says itself", "--python-version"]),
    ] {
        let output = pack(&world, &empty, &[&["upload"], &arguments[..]].concat());
        let said = text(&output.stderr);
        assert!(needles.iter().all(|needle| said.contains(needle)) && said.lines().count() == 1, "{said}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(81), 0), "{said}");
    }
}
