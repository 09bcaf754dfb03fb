//! What file systems do to a start: full, without inodes, read-only, without links, locks or room for names. Each time the
//! environment is put up elsewhere, or one line says why not; never is half of it used.
//!
//! Mounts are made in a mount namespace of the test's own, by root where the tests run as root; all that is started runs
//! unprivileged.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use cpack_format::exit::Exit;
use cpack_test::small_world::{NOT_USED, World, assert_fails, entries, is_root, nodes, succeed, succeed_elsewhere};

use crate::inspect::{check, everything, let_time_pass, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::Part;

/// A shell script with mounts of its own: `$as` before a command runs it as the user of the tests.
pub(crate) fn with_mounts(world: &World, script: &str) -> Command {
    let mut command = world.command_of(Path::new("unshare"), &[]);
    command.env_remove("CPACK_METRICS").env("CODE", CODE).env("START", world.path("env-python"));
    if is_root() {
        command.uid(0).gid(0).env("as", "setpriv --reuid 65534 --regid 65534 --clear-groups");
        command.args(["--mount", "sh", "-ec", script]);
    } else {
        command.env("as", "").args(["--map-root-user", "--mount", "sh", "-ec", script]);
    }
    command
}

/// A world in which the cache's place is the only one.
pub(crate) fn narrow() -> World {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let closed = world.path("closed");
    fs::create_dir(&closed).expect("creates");
    fs::set_permissions(&closed, Permissions::from_mode(0o555)).expect("chmod");
    world
}

pub(crate) fn only_the_cache<'a>(world: &World, command: &'a mut Command) -> &'a mut Command {
    let closed = world.path("closed");
    command.env("HOME", &closed).env("TMPDIR", &closed).current_dir(&closed).env_remove("CPACK_METRICS")
}

/// A start went well in silence, or failed in one line with a code of the table and without running Python.
pub(crate) fn well_or_one_line(output: &Output, what: &str) -> bool {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() {
        assert_eq!((&*out, &*error), (SEEN, ""), "{what}");
        return true;
    }
    let known = |code| Exit::MEANINGS.iter().any(|(exit, _)| i32::from(exit.code()) == code && *exit != Exit::Internal);
    assert!(output.status.code().is_some_and(known), "{what}: {}: {error}", output.status);
    assert!(out.is_empty() && error.starts_with("cpack-boot: ") && error.lines().count() == 1, "{what}: {error}");
    false
}

#[test]
fn start_on_disk_that_fills_up_leaves_nothing_half() {
    let world = narrow();
    let part = Part::new("disks and inodes that run out", 24);
    let mut random = part.random();
    let (cache, copy) = (world.path("cache"), world.user_directory("copy"));
    let mut failed = 0;
    for round in 0..part.rounds {
        // Spread evenly over all that may be too little, so that chance does not decide how many starts fail.
        let mut between = |least: usize, range: usize| least + (round * range + random.below(range)) / part.rounds;
        let limit = match round % 2 {
            0 => format!("size={}k", between(40, 5000)),
            _ => format!("nr_inodes={}", between(2, 400)),
        };
        let (cache, copy) = (cache.display(), copy.display());
        // What is there after the failure is looked at, then there is room and the next start must go well.
        let script = format!(
            "mount -t tmpfs -o mode=777,{limit} tmpfs {cache}\n\
             code=0; $as \"$START\" -c \"$CODE\" || code=$?\n\
             $as cp -a {cache}/. {copy}/ \n\
             mount -o remount,size=64m,nr_inodes=9999 {cache}\n\
             $as \"$START\" -c \"$CODE\" > {copy}/next\n\
             exit $code"
        );
        let mut command = with_mounts(&world, &script);
        let output = only_the_cache(&world, &mut command).current_dir("/").output().expect("starts");
        failed += usize::from(!well_or_one_line(&output, &limit));
        assert_eq!(fs::read_to_string(world.path("copy/next")).expect("a second start"), SEEN, "{limit}");
        let left = world.path("copy").join(world.cache().file_name().expect("a name"));
        let seen = check(&left);
        assert!(output.status.success() || seen.environments == 0, "{limit}: {seen:?}");
        entries(&world.path("copy")).iter().for_each(|path| remove(path));
    }
    assert!(failed * 4 > part.rounds && failed < part.rounds, "{failed} of {} failed", part.rounds);
}

#[test]
fn cache_uses_or_leaves_mounts_of_all_kinds() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("mounts");
    let name = world.cache().file_name().expect("a name").to_string_lossy().into_owned();
    let cache = world.path("cache").display().to_string();
    let home = world.path("home/.cache");
    let mount = |options: &str, at: &str| format!("mount -t tmpfs -o mode=777,{options} tmpfs {at}");
    let make =
        |directory: &str| format!("$as mkdir -m 700 -p {cache}/{name} && $as mkdir -p {cache}/{name}/{directory}");
    // Another file system in the place of a directory of the cache: renaming into it is refused (EXDEV).
    let other = |directory: &str| format!("{}; {}", make(directory), mount("", &format!("{cache}/{name}/{directory}")));
    let cases: [(&str, String, bool); 6] = [
        ("nosuid", mount("nosuid,nodev", &cache), false),
        ("noexec", mount("noexec", &cache), true),
        ("read-only", mount("ro", &cache), true),
        ("staging apart from layers", other("layers"), true),
        ("staging apart from environments", other("environments"), true),
        ("staging apart from all", other("staging"), true),
    ];
    for (what, prepare, left) in cases {
        let script = format!("{prepare}\n$as \"$START\" -c \"$CODE\"\n$as \"$START\" -c \"$CODE\"");
        let output = with_mounts(&world, &script).output().expect("starts");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), SEEN.repeat(2), "{what}: {error}");
        // The second start finds what the first has made, and asks nothing.
        let told = error.starts_with(NOT_USED) && error.lines().count() == 1;
        assert!(told == left && (left || error.is_empty()), "{what}: {error}");
        assert_eq!(home.exists(), left, "{what}");
        if left {
            assert_eq!(check(&home.join(&name)).environments, 1, "{what}");
            remove(&home);
        }
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}

/// Every step of a start that may fail fails once, with what file systems answer.
#[test]
fn start_survives_error_at_any_step() {
    let world = narrow();
    let part = Part::once("errors of file systems at every step");
    let mut random = part.random();
    let log = world.path("tmp/steps");
    // EPERM, EIO, EACCES, EXDEV, EMFILE, ENOSPC, EROFS, ENAMETOOLONG, EOPNOTSUPP, EDQUOT
    let errors = [1, 5, 13, 18, 24, 28, 30, 36, 95, 122];
    let mut first = world.command(&["-c", CODE]);
    assert_eq!(succeed(only_the_cache(&world, &mut first).env("CPACK_FAULT_LOG", &log)), SEEN);
    let text = fs::read_to_string(&log).expect("steps");
    let steps: std::collections::BTreeSet<_> = text.lines().collect();
    assert!(steps.len() > 15, "{steps:?}");
    // Each error in its turn, so that all of them happen; where is chance.
    let mut turn = random.below(errors.len());
    for step in steps {
        for _ in 0..3 * part.rounds {
            entries(&world.path("cache")).iter().for_each(|path| remove(path));
            turn += 1;
            let errno = errors[turn % errors.len()];
            let mut command = world.command(&["-c", CODE]);
            only_the_cache(&world, &mut command)
                .env("CPACK_FAULTS", format!("{step}=E{errno}@{}", 1 + random.below(2)));
            well_or_one_line(&command.output().expect("starts"), &format!("{step} with errno {errno}"));
            check(&world.cache());
            let mut next = world.command(&["-c", CODE]);
            assert_eq!(succeed(only_the_cache(&world, &mut next)), SEEN, "after {step} with errno {errno}");
            check(&world.cache());
        }
    }
}

#[test]
fn cache_copies_and_works_without_hard_links_or_locks() {
    let world = narrow();
    let _part = Part::once("file systems without hard links or locks");
    // EPERM (FAT), EXDEV (bind mounts), EOPNOTSUPP, EMLINK (ext4 after 65,000); ENOLCK (NFS), EOPNOTSUPP
    for fault in ["linkat=E1", "linkat=E18", "linkat=E95", "linkat=E31", "flock=E37", "flock=E95", "flock=lie"] {
        for start in ["cold", "warm"] {
            let mut command = world.command(&["-c", CODE]);
            let seen = succeed(only_the_cache(&world, &mut command).env("CPACK_FAULTS", fault));
            assert_eq!(seen, SEEN, "{fault}, {start}");
        }
        check(&world.cache());
        let tree = world.environment();
        let site = tree.join(format!("lib/python{}/site-packages/beta.py", cpack_test::small_world::python().minor));
        let links = fs::metadata(site).expect("stat").nlink();
        assert_eq!(links > 1, !fault.starts_with("linkat"), "{fault}");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}

/// `Name.py` and `name.py`, where a directory takes them for one: the second cannot be made (EEXIST).
#[test]
fn start_refuses_directory_that_ignores_case_in_one_line() {
    let mut all = packages();
    all[1].1.extend(nodes(&[("site/Beta.py", cpack_test::small_world::file("NAME = 'Beta'\n"))]));
    let world = World::with(crate::boot(), &all, |_| {});
    let _part = Part::once("directories that ignore case");
    // In the layer itself, and between two layers in the tree.
    for fault in ["layer.file=E17@3", "linkat=E17@3"] {
        let output = world.command(&["-c", CODE]).env("CPACK_FAULTS", fault).output().expect("starts");
        // The next place takes it, and the user that chose the first is told; or its one line names the reason.
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let well = output.status.success();
        assert_eq!(out, if well { SEEN } else { "" }, "{fault}: {error}");
        let words = if well { "File exists" } else { "upper from lower case" };
        assert!(error.lines().count() == 1 && error.contains(words) || well && error.is_empty(), "{fault}: {error}");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
    assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN);
    check(&world.cache());
}

#[test]
fn few_descriptors_long_names_and_odd_homes_stop_nobody_for_good() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("descriptors, names and homes");
    for limit in [4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20] {
        let script = format!("ulimit -n {limit}; exec \"$0\" -c '{CODE}'");
        let mut command = world.command_of(Path::new("/bin/sh"), &["-c", &script]);
        let output = command.arg(world.path("env-python")).env_remove("CPACK_METRICS").output().expect("starts");
        // With fewer than a dozen descriptors Python itself does not start, whatever it prints.
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || !error.contains("internal fault"), "{limit}: {error}");
        check(&world.cache());
        assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN, "after {limit} descriptors");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
    let mut deep = world.path("cache");
    while deep.as_os_str().len() < 3700 {
        deep.push("d".repeat(200));
    }
    for place in [deep.clone(), deep.join("e".repeat(255)), deep.join("e".repeat(256)), deep.join("x/".repeat(300))] {
        let mut command = world.command(&["-c", CODE]);
        let output = command.env("CPACK_CACHE_DIR", &place).output().expect("starts");
        let (seen, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(seen, SEEN, "{} bytes: the next place serves: {error}", place.as_os_str().len());
        // The user that chose a name that cannot be made is told so, once.
        assert!(error.is_empty() || error.starts_with(NOT_USED), "{error}");
        assert!(error.lines().count() < 2, "{error}");
    }
    let file = world.path("home/file");
    fs::write(&file, "").expect("writes");
    for home in ["/", "/proc", "/nonexistent", "relative", "", file.to_str().expect("UTF-8")] {
        let mut command = world.command(&["-c", CODE]);
        command.env("HOME", home).env_remove("CPACK_CACHE_DIR").env_remove("CPACK_METRICS");
        assert_eq!(succeed(&mut command), SEEN, "HOME={home}");
    }
}

/// Clocks that jump: what is from tomorrow, or from 1970, is neither waited for nor cleaned up while it is used.
#[test]
fn cache_survives_clocks_that_jump() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("clocks that jump");
    let year = Duration::from_secs(365 * 24 * 3600);
    assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN);
    for time in [SystemTime::now() + 50 * year, SystemTime::UNIX_EPOCH, SystemTime::now() - year] {
        for path in everything(&world.cache()) {
            for file in [path.clone(), path.join("state"), path.join(".cpack/lease")] {
                if let Ok(file) = File::open(file) {
                    file.set_times(FileTimes::new().set_modified(time)).expect("sets the time");
                }
            }
        }
        assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN);
        assert_eq!(world.last_start(), "warm");
        entries(&world.cache().join("environments")).iter().for_each(|path| remove(path));
        assert_eq!(succeed(&mut world.command(&["-c", CODE])), SEEN);
        check(&world.cache());
    }
    succeed(&mut world.command(&["--cpack", "gc", "--all"]));
    assert_eq!(entries(&world.cache().join("environments")), [] as [std::path::PathBuf; 0]);
}

/// A kill while the cache itself is made, and then the commands that look after it.
#[test]
fn gc_and_verify_work_on_cache_that_was_just_begun() {
    let world = narrow();
    let _part = Part::once("caches that were just begun");
    for step in ["cache.created", "layer.claimed"] {
        let mut command = world.command(&["-c", CODE]);
        let killed = only_the_cache(&world, &mut command).env("CPACK_FAULTS", format!("{step}=kill")).status();
        assert!(!killed.expect("starts").success());
        for arguments in [&["--cpack", "status"][..], &["--cpack", "verify"], &["--cpack", "gc", "--all"]] {
            let mut command = world.command(arguments);
            succeed(only_the_cache(&world, &mut command));
        }
        let_time_pass(&world.cache());
        let mut clean = world.command(&["--cpack", "gc"]);
        succeed(only_the_cache(&world, &mut clean));
        assert_eq!(everything(&world.cache()), [] as [std::path::PathBuf; 0], "{step}");
    }
    let mut elsewhere = world.command(&["-c", CODE]);
    elsewhere.env("CPACK_CACHE_DIR", world.path("closed"));
    assert_eq!(succeed_elsewhere(&mut elsewhere, "Permission denied"), SEEN);
    let mut nowhere = world.command(&["-c", CODE]);
    only_the_cache(&world, &mut nowhere).env("CPACK_CACHE_DIR", world.path("closed"));
    assert_fails(&nowhere.output().expect("starts"), 87, "CPACK_CACHE_DIR");
}
