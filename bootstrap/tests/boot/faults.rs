//! What goes wrong on nodes: each ends in a working start or in one line.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_format::job::FILE_NAME;
use cpack_format::launcher::appendix;
use cpack_store::Key;
use cpack_test::small_world::{
    World, as_nobody, assert_fails, cache_name, entries, file, is_root, nodes, python, standard_packages, succeed,
    succeed_elsewhere, write_executable,
};

const CODE: &str = "import alpha, beta; print(alpha.NAME, beta.NAME)";
const SEEN: &str = "alpha beta\n";

fn archive(world: &World, package: &str) -> PathBuf {
    let layer = world.manifest.layers.iter().find(|l| l.name == package).expect("a package");
    world.path("store").join(Key::layer(&layer.archive.digest).as_str())
}

/// Changes one byte of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("writes");
}

#[test]
fn damaged_layer_is_named_and_nothing_of_it_is_used() {
    let world = World::new(crate::boot());
    let archive = archive(&world, "large");
    let whole = fs::read(&archive).expect("reads");
    let size = whole.len() as u64;
    for at in [10, size / 2, size - 40] {
        flip(&archive, at);
        assert_fails(&world.command(&["-c", CODE]).output().expect("starts"), 83, "layer large 1.0");
        fs::write(&archive, &whole).expect("repairs");
    }
    for len in [0, 1, size / 2, size - 1] {
        fs::write(&archive, &whole[..usize::try_from(len).expect("small")]).expect("truncates");
        assert_fails(&world.command(&["-c", CODE]).output().expect("starts"), 83, "large");
    }
    fs::remove_file(&archive).expect("removes");
    assert_fails(&world.command(&["-c", CODE]).output().expect("starts"), 84, "no such object");
    assert_eq!(entries(&world.cache().join("environments")), [] as [PathBuf; 0]);
    fs::write(&archive, &whole).expect("repairs");
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    world.check_cache();
}

#[test]
fn damaged_launcher_or_manifest_is_refused() {
    let world = World::new(crate::boot());
    let launcher = world.path("env-python");
    let whole = fs::read(&launcher).expect("reads");
    let bad = world.path("bad-python");
    let boot = fs::metadata(env!("CARGO_BIN_EXE_cpack-boot")).expect("stat").len();
    for at in [boot + 60, boot + 1000, whole.len() as u64 - 30] {
        let mut bytes = whole.clone();
        bytes[usize::try_from(at).expect("small")] ^= 4;
        cpack_test::small_world::write_executable(&bad, &bytes);
        assert_fails(&world.command_of(&bad, &["-c", CODE]).output().expect("starts"), 83, "copy the launcher again");
    }
    let mut other = world.job.clone();
    other.environment = cpack_format::Digest::of(b"another");
    let mixed = world.write_launcher("mixed", &other);
    assert_fails(&world.command_of(&mixed, &["-c", CODE]).output().expect("starts"), 83, "digest");
    let newer = String::from_utf8(other.to_bytes()).expect("text").replace("\"format\":1", "\"format\":99");
    let output = world.command_of(&bad, &[]).env("CPACK_JOB", &newer).output().expect("starts");
    assert_fails(&output, 83, "copy the launcher again");
    let bare = world.path("bare");
    cpack_test::small_world::write_executable(&bare, &fs::read(env!("CARGO_BIN_EXE_cpack-boot")).expect("reads"));
    assert_fails(&world.command_of(&bare, &[]).env("CPACK_JOB", &newer).output().expect("starts"), 83, "upgrade");
}

#[test]
fn cache_that_others_control_is_bypassed() {
    let world = World::new(crate::boot());
    let name = world.cache().file_name().expect("a name").to_owned();
    let place = world.path("cache").join(&name);
    let prepare: [(&str, &dyn Fn()); 3] = [
        ("writable by all", &|| {
            let _ = as_nobody(Command::new("mkdir").arg(&place)).status().expect("mkdir");
            fs::set_permissions(&place, Permissions::from_mode(0o777)).expect("chmod");
        }),
        ("a link", &|| symlink(world.path("home"), &place).expect("links")),
        ("another user's", &|| {
            // Only root can make a directory that belongs to another user.
            if is_root() {
                fs::create_dir(&place).expect("creates");
            } else {
                symlink("/usr", &place).expect("links");
            }
        }),
    ];
    for (what, prepare) in prepare {
        prepare();
        assert_eq!(succeed_elsewhere(&mut world.command(&["-c", CODE]), "is not used"), SEEN, "{what}");
        assert!(world.path("home/.cache").join(&name).join("environments").is_dir(), "{what}");
        cpack_node::cache::remove_tree(&world.path("home/.cache"), None).expect("removes");
        assert_eq!(entries(&place.join("environments")), [] as [PathBuf; 0], "{what}");
        let _ = fs::remove_dir(&place).or_else(|_| fs::remove_file(&place));
    }
}

#[test]
fn without_a_place_to_write_to_it_says_so() {
    let world = World::new(crate::boot());
    let closed = world.path("closed");
    fs::create_dir(&closed).expect("creates");
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).expect("chmod");
    let mut command = world.command(&["-c", CODE]);
    command.env("CPACK_CACHE_DIR", &closed).env("HOME", &closed).env("TMPDIR", &closed).current_dir(&closed);
    assert_fails(&command.output().expect("starts"), 87, "CPACK_CACHE_DIR");
    // One place that may be written to is enough.
    assert_eq!(succeed_elsewhere(command.env("TMPDIR", world.path("tmp")), "Permission denied"), SEEN);
}

/// A scheduler's `TMPDIR` that is not in the container, `HOME=/`, and a working directory that is closed.
#[test]
fn start_with_a_stale_tmpdir_uses_the_temporary_directories_of_python() {
    let world = World::new(crate::boot());
    let closed = world.path("closed");
    fs::create_dir(&closed).expect("creates");
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).expect("chmod");
    let here = world.path("").display().to_string();
    // The world may be below /tmp: it is kept while /tmp and /var/tmp are replaced by empty ones.
    let hide = |mode: &str| {
        format!(
            "mount --bind {here} /mnt && mount -t tmpfs -o mode=1777 tmpfs /tmp && mkdir -p {here} && \
             mount --bind /mnt {here} && mount -o remount,{mode} /tmp && mount -t tmpfs -o mode=1777 tmpfs /var/tmp"
        )
    };
    for (mode, expected) in [("rw", "/tmp"), ("ro", "/var/tmp")] {
        let mut command = with_mounts_running(&world, &hide(mode), "import sys, alpha; print(sys.prefix)");
        command.env("HOME", "/").env("TMPDIR", "/scratch/job-17").env_remove("CPACK_CACHE_DIR");
        command.env_remove("CPACK_METRICS").current_dir(&closed);
        let prefix = succeed(&mut command);
        assert!(prefix.starts_with(&format!("{expected}/{}/environments/", cache_name())), "{mode}: {prefix}");
    }
}

#[test]
fn chosen_directory_that_is_not_there_is_made_or_named() {
    let world = World::new(crate::boot());
    let chosen = world.path("home/not/yet");
    assert_eq!(succeed(world.command(&["-c", CODE]).env("CPACK_CACHE_DIR", &chosen)), SEEN);
    for made in [chosen.clone(), world.path("home/not"), chosen.join(world.cache().file_name().expect("a name"))] {
        assert_eq!(fs::metadata(&made).expect("made").permissions().mode() & 0o7777, 0o700, "{}", made.display());
    }
    // Where it cannot be made the next place serves, and the user that chose it is told.
    for nowhere in ["/nowhere/at/all", "/etc/not/allowed"] {
        let mut command = world.command(&["-c", CODE]);
        assert_eq!(succeed_elsewhere(command.env("CPACK_CACHE_DIR", nowhere), nowhere), SEEN);
        cpack_node::cache::remove_tree(&world.path("home/.cache"), None).expect("removes");
    }
}

#[test]
fn chosen_directory_comes_before_one_that_has_layers() {
    let world = World::new(crate::boot());
    let mut packages = standard_packages();
    packages[0].1.extend(nodes(&[("site/more.py", file(""))]));
    let other = World::with(crate::boot(), &packages, |_| {});
    succeed(other.command(&["-c", "import more"]).env("HOME", world.path("home")).env_remove("CPACK_CACHE_DIR"));
    let environments = |cache: PathBuf| entries(&cache.join("environments")).len();
    let home = world.path("home/.cache").join(cache_name());
    assert_eq!((environments(home.clone()), entries(&world.path("cache")).len()), (1, 0));
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    assert_eq!((environments(home), environments(world.cache())), (1, 1));
}

/// Runs a shell script with mounts of its own, as the user of the tests.
fn with_mounts(world: &World, prepare: &str) -> Command {
    with_mounts_running(world, prepare, CODE)
}

fn with_mounts_running(world: &World, prepare: &str, code: &str) -> Command {
    let launcher = world.path("env-python").display().to_string();
    let run = format!("exec {launcher} -c '{code}'");
    let script = if is_root() {
        format!("{prepare} && exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c \"{run}\"")
    } else {
        format!("{prepare} && {run}")
    };
    let mut command = world.command_of(Path::new("unshare"), &[]);
    if is_root() {
        // As root again: mounting is what needs it.
        std::os::unix::process::CommandExt::uid(&mut command, 0);
        std::os::unix::process::CommandExt::gid(&mut command, 0);
        command.args(["--mount", "sh", "-c", &script]);
    } else {
        command.args(["--map-root-user", "--mount", "sh", "-c", &script]);
    }
    command
}

#[test]
fn full_read_only_and_noexec_disks_are_left_for_the_next_place() {
    let world = World::new(crate::boot());
    let cache = world.path("cache").display().to_string();
    for (options, reason) in
        [("size=1m", "1 MiB free"), ("nr_inodes=40", "No space left"), ("noexec", "noexec"), ("ro", "read-only")]
    {
        let prepare = format!("mount -t tmpfs -o mode=777,{options} tmpfs {cache}");
        assert_eq!(succeed_elsewhere(&mut with_mounts(&world, &prepare), reason), SEEN, "{options}");
        let home = world.path("home/.cache");
        cpack_node::cache::remove_tree(&home, None).expect("removes");
        assert!(!home.exists());
    }
    // Everywhere: one line.
    let everywhere: Vec<String> = ["cache", "home", "tmp", "work"]
        .map(|name| format!("mount -t tmpfs -o mode=777,size=1m tmpfs {}", world.path(name).display()))
        .into();
    let output = with_mounts(&world, &everywhere.join(" && ")).output().expect("starts");
    assert_fails(&output, 87, "No space left");
}

#[test]
fn disk_that_is_full_of_unused_environments_has_room() {
    let world = World::new(crate::boot());
    let mut packages = standard_packages();
    packages[3].1.insert("more".into(), cpack_test::archives::Node::File(cpack_test::small_world::noise(6 << 20, 9)));
    let other = World::with(crate::boot(), &packages, |_| {});
    let (cache, closed) = (world.path("cache").display().to_string(), world.path("closed"));
    fs::create_dir(&closed).expect("creates");
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).expect("chmod");
    // Half a day passes between the two.
    let prepare = format!(
        "mount -t tmpfs -o mode=777,size=18m tmpfs {cache} && {setpriv} {first} -c pass && \
         find {cache} -name lease -o -name state | xargs touch -d '12 hours ago'",
        setpriv = if is_root() { "setpriv --reuid 65534 --regid 65534 --clear-groups" } else { "" },
        first = other.path("env-python").display(),
    );
    let mut command = with_mounts(&world, &prepare);
    command.env("HOME", &closed).env("TMPDIR", &closed).current_dir(&closed).env_remove("CPACK_METRICS");
    assert_eq!(succeed(&mut command), SEEN);
}

#[test]
fn deleted_file_is_found_and_repaired_by_verify() {
    let world = World::new(crate::boot());
    world.run(&["-c", CODE]);
    let site = world.environment().join(format!("lib/python{}/site-packages", python().minor));
    let damage: [(&str, &dyn Fn()); 3] = [
        ("deleted", &|| {
            fs::set_permissions(&site, Permissions::from_mode(0o755)).expect("chmod");
            fs::remove_file(site.join("beta.py")).expect("removes");
        }),
        ("changed", &|| {
            // In the tree and in the layer: they are one file.
            fs::set_permissions(site.join("beta.py"), Permissions::from_mode(0o644)).expect("chmod");
            fs::write(site.join("beta.py"), "NAME = 'changed'").expect("writes");
        }),
        ("without interpreter", &|| {
            fs::set_permissions(world.environment().join("bin"), Permissions::from_mode(0o755)).expect("chmod");
            fs::remove_file(world.environment().join("bin/python")).expect("removes");
        }),
    ];
    for (what, damage) in damage {
        damage();
        let report = succeed(&mut world.command(&["--cpack", "verify"]));
        assert!(report.contains("repaired"), "{what}: {report}");
        assert_eq!(world.run(&["-c", CODE]), SEEN, "{what}");
        assert_eq!(world.last_start(), "warm", "{what}");
        world.check_cache();
        let report = succeed(&mut world.command(&["--cpack", "verify"]));
        assert!(!report.contains("repaired"), "{what}: {report}");
    }
}

#[test]
fn after_a_power_loss_torn_files_are_found_without_being_asked() {
    let world = World::new(crate::boot());
    world.run(&["-c", CODE]);
    let site = world.environment().join(format!("lib/python{}/site-packages", python().minor));
    // As if written under another boot, and one file's bytes lost.
    let marks = entries(&world.cache().join("layers")).into_iter().map(|l| l.join("state"));
    for mark in marks.chain([world.environment().join(".cpack/lease")]) {
        let file = File::options().write(true).open(mark).expect("opens");
        file.write_all_at(b"00000000-0000-0000-0000-000000000000", 0).expect("writes");
    }
    fs::set_permissions(site.join("beta.py"), Permissions::from_mode(0o644)).expect("chmod");
    fs::write(site.join("beta.py"), "").expect("tears");
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    let layers = &world.metrics().pop().expect("a start")["layers"];
    assert_eq!((&layers["checked"], &layers["built"]), (&3.into(), &1.into()));
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    assert_eq!(world.last_start(), "warm");
    world.check_cache();
}

#[test]
fn interpreter_that_does_not_fit_is_refused_before_anything_is_fetched() {
    let world = World::with(crate::boot(), &standard_packages(), |job| {
        job.interpreter.soabi = "cpython-399-x86_64-linux-gnu".into();
    });
    let output = world.command(&["-c", CODE]).env("PATH", "/nowhere").output().expect("starts");
    assert_fails(&output, 82, "has the ABI");
    let output = world.command(&["-c", CODE]).env("CPACK_PYTHON", "/bin/false").output().expect("starts");
    assert_fails(&output, 82, "/bin/false");
    let output = world.command(&["-c", CODE]).env("CPACK_PYTHON", world.path("env-python")).output().expect("starts");
    assert_fails(&output, 82, "is a launcher");
    // As stores keep launchers: it would start the boot, which would ask it again.
    let script = format!("#!/bin/sh\nexec {} --cpack exec \"$0\" \"$@\"\n", crate::boot().display());
    let job = appendix(script.len() as u64, &[(FILE_NAME, &world.job.to_bytes())]);
    write_executable(&world.path("job"), &[script.into_bytes(), job].concat());
    let output = world.command(&["-c", CODE]).env("CPACK_PYTHON", world.path("job")).output().expect("starts");
    assert_fails(&output, 82, "is a launcher");
    assert!(!world.cache().join("layers").exists());
}

#[test]
fn settings_that_cannot_be_understood_are_named() {
    let world = World::new(crate::boot());
    let output = world.command(&["-c", CODE]).env("CPACK_THREADS", "many").output().expect("starts");
    assert_fails(&output, 80, "CPACK_THREADS");
}

#[test]
fn unreadable_proc_or_a_descriptor_limit_stop_nobody() {
    // One package has more levels than a start has descriptors.
    let deep = format!("site/{}__init__.py", "deep/".repeat(40));
    let packages = [standard_packages(), vec![("deep", nodes(&[(&deep, file(""))]))]].concat();
    let world = World::with(crate::boot(), &packages, |_| {});
    let launcher = world.path("env-python").display().to_string();
    let few = format!("ulimit -n 24; exec {launcher} -c '{CODE}'");
    for _ in 0..2 {
        assert_eq!(succeed(&mut world.command_of(Path::new("/bin/sh"), &["-c", &few])), SEEN);
    }
    let hidden = with_mounts(&world, "mount -t tmpfs tmpfs /proc").output().expect("starts");
    assert_eq!(String::from_utf8_lossy(&hidden.stdout), SEEN, "{}", String::from_utf8_lossy(&hidden.stderr));
}
