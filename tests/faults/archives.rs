//! Archives that other tools wrote: starts that are killed, fail or run out of space at any step, then a normal start.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cpack_test::small_world::{World, entries, noise, python, spawn, succeed};

use crate::disks::{narrow, only_the_cache, well_or_one_line, with_mounts};
use crate::inspect::{check, remove};
use crate::kills::{CODE, SEEN};
use crate::random::Part;

/// A tar of a virtual environment with the modules that [`CODE`] imports.
fn archive(world: &World) -> PathBuf {
    let (venv, path) = (world.path("venv"), world.path("env.tar.gz"));
    let site = venv.join(format!("lib/python{}/site-packages", python().minor));
    fs::create_dir_all(site.join("data")).expect("creates");
    fs::create_dir_all(venv.join("bin")).expect("creates");
    fs::write(site.join("alpha.py"), "NAME = 'alpha'\n").expect("writes");
    fs::write(site.join("beta.py"), "NAME = 'beta'\n").expect("writes");
    fs::write(site.join("data/__init__.py"), "").expect("writes");
    for i in 0..20 {
        fs::write(site.join(format!("data/{i}.bin")), noise(60_000, i)).expect("writes");
    }
    // Directories without byte-code are left open for Python's own.
    let compile = ["-m", "compileall", "-q"];
    assert!(Command::new(&python().path).args(compile).arg(&site).status().expect("starts").success());
    fs::write(venv.join("bin/tool"), "#!/old/venv/bin/python\nprint()\n").expect("writes");
    std::os::unix::fs::symlink(&python().path, venv.join("bin/python")).expect("links");
    let home = python().path.parent().expect("a directory").display();
    fs::write(venv.join("pyvenv.cfg"), format!("home = {home}\nversion = {}\n", python().version)).expect("writes");
    let tar = ["czf", &path.display().to_string(), "-C", &venv.display().to_string(), "."].map(str::to_owned);
    assert!(Command::new("tar").args(tar).status().expect("starts").success());
    path
}

fn start(world: &World) -> Command {
    let mut command = world.command_of(crate::boot(), &["--cpack", "exec"]);
    command.arg(world.path("env.tar.gz")).args(["-c", CODE]);
    only_the_cache(world, &mut command);
    command
}

/// How often a cold start passes each step.
fn steps(world: &World) -> BTreeMap<String, u64> {
    let log = world.path("tmp/steps");
    assert_eq!(succeed(start(world).env("CPACK_FAULT_LOG", &log)), SEEN);
    let mut steps = BTreeMap::new();
    for step in fs::read_to_string(log).expect("steps").lines() {
        *steps.entry(step.to_owned()).or_default() += 1;
    }
    steps
}

fn empty(world: &World) {
    entries(&world.path("cache")).iter().for_each(|path| remove(path));
}

#[test]
fn archive_start_that_is_killed_at_any_step_leaves_nothing_that_is_used() {
    let world = narrow();
    let _part = Part::once("starts of an archive that are killed");
    archive(&world);
    let steps = steps(&world);
    assert!(steps.contains_key("layer.file") && steps.contains_key("tree.renamed"), "{steps:?}");
    for (step, count) in steps {
        for at in [1, count.div_ceil(2)] {
            empty(&world);
            let output = spawn(start(&world).env("CPACK_FAULTS", format!("{step}=kill@{at}"))).wait_with_output();
            let status = output.expect("ends").status;
            assert!(!status.success(), "{step} {at}: {status}");
            check(&world.cache());
            assert_eq!(succeed(&mut start(&world)), SEEN, "after a kill at {step} {at}");
            assert_eq!(check(&world.cache()).environments, 1);
        }
    }
}

#[test]
fn archive_start_survives_error_at_any_step() {
    let world = narrow();
    let _part = Part::once("errors in starts of an archive");
    archive(&world);
    for (step, _) in steps(&world) {
        for errno in [5, 28] {
            empty(&world);
            let mut command = start(&world);
            let output = command.env("CPACK_FAULTS", format!("{step}=E{errno}@1")).output().expect("starts");
            well_or_one_line(&output, &format!("{step} with errno {errno}"));
            check(&world.cache());
            assert_eq!(succeed(&mut start(&world)), SEEN, "after {step} with errno {errno}");
        }
    }
}

#[test]
fn archive_start_on_full_disk_ends_in_one_line_and_leaves_nothing_half() {
    let world = narrow();
    let _part = Part::once("starts of an archive on full disks");
    let path = archive(&world);
    let cache = world.path("cache");
    for limit in ["size=100k", "size=800k", "nr_inodes=20", "nr_inodes=60"] {
        let script = format!(
            "mount -t tmpfs -o mode=777,{limit} tmpfs {cache}\n\
             code=0; $as {boot} --cpack exec {path} -c \"$CODE\" || code=$?\n\
             find {cache} -type f >&2\n\
             exit $code",
            cache = cache.display(),
            boot = crate::boot().display(),
            path = path.display(),
        );
        let mut command = with_mounts(&world, &script);
        let output = only_the_cache(&world, &mut command).current_dir("/").output().expect("starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // A layer that was whole before the tree did not fit may stay, and so may the note of it.
        let half = |line: &&str| line.contains("/staging/") || line.contains("/environments/");
        let left: Vec<&str> = said.lines().skip(1).filter(half).collect();
        assert!(output.status.code() == Some(87) && left.is_empty(), "{limit}: {}: {said}", output.status);
    }
}
