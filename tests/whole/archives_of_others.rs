//! Archives that venv-pack2, `cluster-pack pack` and `tar` wrote: started as they are, and packed. [`super::conda`] has those of
//! conda-pack.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

#[cfg(feature = "index")]
use cpack_test::programs::installed;
use cpack_test::programs::{
    World, boot, cluster_pack, install_by_hand, succeeded, text, usual_interpreter, utf8, venv, venv_without_pip,
};

/// Says where the environment is, and what its modules, byte-code and scripts are.
const SHOW: &str = "import os, subprocess, sys, thing\n\
    tool = subprocess.run([os.path.join(sys.prefix, 'bin/thing-tool'), 'x'], check=True, stdout=subprocess.PIPE).stdout\n\
    print(sys.prefix, thing.__file__.startswith(sys.prefix), os.path.exists(thing.__cached__), tool.decode().strip())";

/// An environment with a module, its byte-code and a script. What it had installed is at `thing` 1.0.
fn environment(world: &World) -> PathBuf {
    let env = world.path("venv");
    venv_without_pip(&usual_interpreter(), &env);
    fill(world, env)
}

/// The same with pip: another thousand files.
fn environment_with_pip(world: &World) -> PathBuf {
    let env = world.path("venv");
    venv(&usual_interpreter(), &env);
    fill(world, env)
}

fn fill(world: &World, env: PathBuf) -> PathBuf {
    let site = install_by_hand(&env, "thing", "1.0", "WORD = 'thing'\n");
    let tool =
        format!("#!{}/bin/python\nimport sys, thing\nprint(thing.WORD, sys.prefix, sys.argv[1:])\n", env.display());
    fs::write(env.join("bin/thing-tool"), tool).expect("writes");
    fs::set_permissions(env.join("bin/thing-tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let record = site.join("thing-1.0.dist-info/RECORD");
    let rows = fs::read_to_string(&record).expect("reads") + "../../../bin/thing-tool,,\n";
    fs::write(record, rows).expect("writes");
    world.run(&env.join("bin/python"), &["-m", "compileall", "-q", utf8(&site)]);
    env
}

fn tar(world: &World, name: &str, arguments: &[&str]) -> PathBuf {
    let archive = world.path(name);
    let output = world.command("tar").args(["-caf", utf8(&archive)]).args(arguments).output().expect("starts");
    succeeded(&output, "tar");
    archive
}

fn exec(world: &World, archive: &Path, code: &str) -> Command {
    let mut command = world.command(boot());
    command.args(["--cpack", "exec"]).arg(archive).args(["-c", code]).env("CPACK_LOG", "1");
    command
}

/// Starts the archive twice, after the environment that it was made from is gone. Returns the tree on the node.
fn check(world: &World, archive: &Path) -> PathBuf {
    let cold = exec(world, archive, SHOW).output().expect("starts");
    let shown = succeeded(&cold, utf8(archive));
    let (tree, rest) = shown.split_once(' ').expect("two words");
    assert!(tree.starts_with(utf8(&world.path("node"))), "{shown}");
    assert_eq!(rest, format!("True True thing {tree} ['x']\n"), "{}", archive.display());
    assert!(text(&cold.stderr).contains("cold start"), "{}", text(&cold.stderr));
    let mut named = world.command(boot());
    let warm = named.env("CPACK_ARTIFACT", archive).env("CPACK_LOG", "1").args(["-c", SHOW]).output().expect("starts");
    assert_eq!(succeeded(&warm, utf8(archive)), shown);
    assert!(text(&warm.stderr).contains("warm start"), "{}", text(&warm.stderr));
    PathBuf::from(tree)
}

/// The refusal of a start and of an upload: one line with `needles`, and this exit code.
fn check_refused(world: &World, archive: &Path, needles: &[&str], code: i32) {
    let started = exec(world, archive, "print('ran')").env_remove("CPACK_LOG").output().expect("starts");
    let packed = world.command(cluster_pack()).arg("launcher").arg(archive).args(["-o", "x"]).output().expect("starts");
    for output in [started, packed] {
        let said = text(&output.stderr);
        assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
        assert!(needles.iter().all(|needle| said.contains(needle)), "{needles:?}: {said}");
        assert_eq!(output.status.code(), Some(code), "{said}");
    }
    check_nothing_left(world);
}

/// Checks that no process left anything half done.
fn check_nothing_left(world: &World) {
    for cache in fs::read_dir(world.path("node")).expect("a node").flatten() {
        let staging = fs::read_dir(cache.path().join("staging")).into_iter().flatten().flatten();
        assert_eq!(staging.count(), 0, "{}", cache.path().display());
        assert_eq!(fs::read_dir(cache.path().join("environments")).into_iter().flatten().count(), 0);
    }
}

#[test]
fn archives_of_a_venv_start_whatever_wrote_them() {
    let world = World::new();
    let env = environment(&world);
    let own = |name: &str| {
        let archive = world.path(name);
        succeeded(&world.pack(&["pack", "--venv", utf8(&env), "-o", utf8(&archive)]), name);
        archive
    };
    let zip = world.path("shutil.zip");
    let code = "import shutil, sys; shutil.make_archive(sys.argv[1][:-4], 'zip', sys.argv[2])";
    world.run(&usual_interpreter(), &["-c", code, utf8(&zip), utf8(&env)]);
    let by_python = |name: &str, mode: &str| {
        let archive = world.path(name);
        let code = "import sys, tarfile\nfast = {'preset': 0} if sys.argv[2] == 'w:xz' else {'compresslevel': 1}\n\
                    with tarfile.open(sys.argv[1], sys.argv[2], **fast) as t: t.add(sys.argv[3], 'env')";
        world.run(&usual_interpreter(), &["-c", code, utf8(&archive), mode, utf8(&env)]);
        archive
    };
    let archives = [
        by_python("env.tar.bz2", "w:bz2"),
        by_python("env.tar.xz", "w:xz"),
        tar(&world, "inside.tar.gz", &["-C", utf8(&env), "."]),
        tar(&world, "beside.tgz", &["-C", utf8(world.directory.path()), "venv"]),
        tar(&world, "plain.tar", &["--format=pax", "-C", utf8(world.directory.path()), "venv"]),
        own("own.tar.gz"),
        own("own.tar.zst"),
        own("own.zip"),
    ];
    fs::rename(&env, world.path("gone")).expect("moves");
    for archive in archives {
        check(&world, &archive);
    }
    // It has neither exact times nor links: Python writes byte-code when it imports.
    let shown = succeeded(&exec(&world, &zip, SHOW).output().expect("starts"), "shutil.zip");
    assert!(shown.contains(" True True thing "), "{shown}");
}

/// Schedulers give each container a copy of its own.
#[test]
fn copies_of_an_archive_are_unpacked_once() {
    let world = World::new();
    environment(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(world.directory.path()), "venv"]);
    let start = |archive: &Path| {
        let output = exec(&world, archive, SHOW).output().expect("starts");
        succeeded(&output, utf8(archive));
        text(&output.stderr)
    };
    assert!(start(&archive).contains("layers: 1 built"));
    fs::create_dir(world.path("container")).expect("creates");
    let copy = world.path("container/env.tar.gz");
    fs::copy(&archive, &copy).expect("copies");
    let said = start(&copy);
    assert!(said.contains("layers: 0 built"), "{said}");
    let said = start(&copy);
    assert!(said.contains("warm start"), "{said}");
}

#[test]
fn archive_started_sixteen_times_at_once_is_unpacked_once() {
    let world = World::new();
    let env = environment_with_pip(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    let start = |_| {
        let mut command = exec(&world, &archive, "import sys, thing; print(thing.WORD, sys.prefix)");
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts")
    };
    let children: Vec<Child> = (0..16).map(start).collect();
    let outputs: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().expect("ends")).collect();
    let said: Vec<String> = outputs.iter().map(|output| succeeded(output, "one of sixteen")).collect();
    assert!(said.windows(2).all(|pair| pair[0] == pair[1]), "{said:?}");
    let built = outputs.iter().filter(|output| text(&output.stderr).contains("layers: 1 built")).count();
    assert_eq!(built, 1, "{}", text(&outputs[0].stderr));
}

#[test]
fn archive_that_changed_is_started_as_it_is_now() {
    let world = World::new();
    let env = environment(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    let word = || {
        let output = exec(&world, &archive, "import thing; print(thing.WORD)").output().expect("starts");
        succeeded(&output, "the archive")
    };
    assert_eq!((word(), word()), ("thing\n".into(), "thing\n".into()));
    // Of another length: within a second Python tells no other change of a source that has byte-code.
    install_by_hand(&env, "thing", "1.0", "WORD = 'another'\n");
    tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    assert_eq!(word(), "another\n");
}

#[test]
fn archive_in_a_store_is_fetched_and_started() {
    let world = World::new();
    let env = environment(&world);
    tar(&world, "env.tgz", &["-C", utf8(&env), "."]);
    let uri = PathBuf::from(format!("file:{}", world.path("env.tgz").display()));
    let output = exec(&world, &uri, "import thing; print(thing.WORD)").output().expect("starts");
    assert_eq!(succeeded(&output, "a URI"), "thing\n");
}

#[test]
fn archive_is_built_again_where_parts_of_the_cache_are_gone() {
    let world = World::new();
    let env = environment(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    let tree = check(&world, &archive);
    let cache = tree.parent().and_then(Path::parent).expect("a cache").to_owned();
    for gone in
        [&["environments"][..], &["environments", "layers"], &["archives"], &["archives", "environments", "layers"]]
    {
        for name in gone {
            cpack_node::cache::remove_tree(&cache.join(name), None).expect("removes");
            fs::create_dir(cache.join(name)).expect("creates");
        }
        let output = exec(&world, &archive, SHOW).output().expect("starts");
        assert!(succeeded(&output, &format!("without {gone:?}")).starts_with(utf8(&tree)), "{gone:?}");
    }
}

#[test]
fn gc_all_removes_notes_of_archives_and_info_says_what_is_in_one() {
    let world = World::new();
    let env = environment(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    let tree = check(&world, &archive);
    let notes = tree.parent().and_then(Path::parent).expect("a cache").join("archives");
    let count = || fs::read_dir(&notes).expect("notes").count();
    world.run(boot(), &["--cpack", "gc"]);
    assert_eq!(count(), 2);
    world.run(boot(), &["--cpack", "gc", "--all"]);
    assert_eq!(count(), 0);
    check(&world, &archive);
    let shown = succeeded(&world.pack(&["info", utf8(&archive)]), "info");
    let facts = ["env.tar.gz", "Python ", "Layers ", "thing", " packed, "];
    assert!(facts.iter().all(|fact| shown.contains(fact)), "{shown}");
}

#[test]
fn archive_of_an_environment_may_be_written_to_as_a_private_copy() {
    let world = World::new();
    let env = environment(&world);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    let code = "import sys, thing; open(thing.__file__, 'a').close(); print('/private/' in sys.prefix)";
    let output = exec(&world, &archive, code).env("CPACK_WRITABLE", "1").output().expect("starts");
    assert_eq!(succeeded(&output, "CPACK_WRITABLE"), "True\n");
}

#[test]
fn archive_that_cannot_be_started_says_why_in_one_line() {
    let world = World::new();
    let env = environment(&world);
    // For a Python that no node has.
    let lib = fs::read_dir(env.join("lib")).expect("lib").flatten().next().expect("a version").path();
    fs::rename(&lib, env.join("lib/python3.4")).expect("moves");
    let config = "home = /opt/no/python/bin\nversion = 3.4.10\n";
    fs::write(env.join("pyvenv.cfg"), config).expect("writes");
    let archive = tar(&world, "old.tar.gz", &["-C", utf8(&env), "."]);
    let output = exec(&world, &archive, "").env_remove("CPACK_LOG").output().expect("starts");
    let said = text(&output.stderr);
    assert!(said.contains("it needs Python 3.4") && said.contains("set CPACK_PYTHON"), "{said}");
    assert!(output.status.code() == Some(82) && said.lines().count() == 1, "{said}");
    let packed = world.pack(&["upload", utf8(&archive)]);
    let said = text(&packed.stderr);
    assert!(said.contains("no python3.4 in /opt/no/python/bin or on PATH"), "{said}");
    assert_eq!(packed.status.code(), Some(82), "{said}");

    let world = World::new();
    let env = environment(&world);
    let whole = fs::read(tar(&world, "whole.tar.gz", &["-C", utf8(&env), "."])).expect("reads");
    let cut = world.path("cut.tar.gz");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("writes");
    check_refused(&world, &cut, &["cut.tar.gz", "cut short", "copy or pack it again"], 83);
    fs::write(world.path("notes"), "text").expect("writes");
    let other = tar(&world, "other.tar.gz", &["-C", utf8(world.directory.path()), "notes"]);
    check_refused(&world, &other, &["other.tar.gz holds no Python environment"], 83);
    fs::write(world.path("env.tar.lz4"), b"\x04\x22\x4d\x18").expect("writes");
    check_refused(&world, &world.path("env.tar.lz4"), &["lz4", "pack it as .tar.gz or .tar.zst"], 83);
    std::os::unix::fs::symlink("/etc/hostname", env.join("share")).expect("links");
    let hostile = tar(&world, "hostile.tar.gz", &["-C", utf8(&env), "."]);
    check_refused(&world, &hostile, &["hostile.tar.gz", "\"share\"", "leads out", "/etc/hostname"], 83);
    fs::create_dir(env.join("conda-meta")).expect("creates");
    fs::remove_file(env.join("share")).expect("removes");
    fs::write(env.join("conda-meta/a-1-0.json"), r#"{"prefix_placeholder": "/opt/placeholder"}"#).expect("writes");
    let fixed = tar(&world, "fixed.tar.gz", &["-C", utf8(&env), "."]);
    check_refused(&world, &fixed, &["one path alone", "without --dest-prefix"], 83);
}

/// The archive of each layer, by its name.
fn layers(world: &World, arguments: &[&str]) -> Vec<(String, String)> {
    let report = world.pack_json(&[&["upload"], arguments].concat());
    let word = |layer: &serde_json::Value, key: &str| layer[key].as_str().expect(key).to_owned();
    report["layers"]
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| (word(layer, "name"), word(layer, "archive")))
        .collect()
}

#[test]
fn upload_splits_an_archive_into_the_layers_of_its_environment() {
    let world = World::new();
    let env = environment_with_pip(&world);
    let direct = layers(&world, &["--venv", utf8(&env)]);
    let archive = tar(&world, "env.tar.gz", &["-C", utf8(&env), "."]);
    fs::rename(&env, world.path("gone")).expect("moves");
    assert!(direct.iter().any(|(name, _)| name == "thing") && direct.len() > 2, "{direct:?}");
    assert_eq!(layers(&world, &[utf8(&archive)]), direct);
    let launcher = world.path("env-python");
    let output = world.pack(&["launcher", utf8(&archive), "-o", utf8(&launcher)]);
    assert!(!text(&output.stderr).contains("warning"), "{}", text(&output.stderr));
    succeeded(&output, "launcher");
    let shown = world.run(&launcher, &["-c", SHOW]);
    assert!(shown.contains(" True True thing "), "{shown}");
}

#[cfg(feature = "index")]
#[test]
fn archives_of_venv_pack_start_and_split() {
    let world = World::new();
    let tools = installed("venv-pack-tools", &["venv-pack2==0.9.2", "setuptools<81"]);
    let env = environment_with_pip(&world);
    let direct = layers(&world, &["--venv", utf8(&env)]);
    for name in ["packed.tar.gz", "packed.tgz", "packed.tar", "packed.zip"] {
        let archive = world.path(name);
        let pack = ["-p", utf8(&env), "-o", utf8(&archive), "--quiet"];
        succeeded(&world.command(tools.join("bin/venv-pack")).args(pack).output().expect("starts"), "venv-pack");
        check(&world, &archive);
    }
    assert_eq!(layers(&world, &[utf8(&world.path("packed.tar.gz"))]), direct);
}
