//! Many processes at once: starts that share layers, a clean-up that never stops, holders that stand still, locks that lie,
//! other users, and caches that an attacker prepared.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use cpack_test::small_world::{World, entries, file, is_root, nodes, spawn, succeed};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::inspect::{check, everything, let_time_pass, remove};
use crate::kills::{CODE, SEEN, packages};
use crate::random::{Part, say};

fn all_see(children: Vec<Child>, what: &str) {
    for child in children {
        let output = child.wait_with_output().expect("ends");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((&*String::from_utf8_lossy(&output.stdout), &*error), (SEEN, ""), "{what}: {}", output.status);
    }
}

/// Tells another thread that it is over, also where that is because of a panic.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Environments that differ in one package, with one cache.
fn relatives(count: usize) -> Vec<World> {
    let world = |i: usize| {
        let mut all = packages();
        all[0].1.extend(nodes(&[("site/more.py", file(&format!("NUMBER = {i}\n")))]));
        World::with(crate::boot(), &all, |_| {})
    };
    (0..count).map(world).collect()
}

#[test]
fn sixty_four_starts_share_the_work() {
    let _part = Part::once("64 starts at once, of one environment and of four that share layers");
    for environments in [1, 4] {
        let worlds = relatives(environments);
        let cache = worlds[0].path("cache");
        let start = |i: usize| spawn(worlds[i % environments].command(&["-c", CODE]).env("CPACK_CACHE_DIR", &cache));
        all_see((0..64).map(start).collect(), "64 starts");
        let metrics: Vec<_> = worlds.iter().flat_map(World::metrics).collect();
        let built: u64 = metrics.iter().map(|m| m["layers"]["built"].as_u64().expect("a number")).sum();
        let layers: BTreeSet<_> = worlds.iter().flat_map(|w| &w.manifest.layers).map(|l| l.content.to_hex()).collect();
        assert_eq!((built, metrics.len()), (layers.len() as u64, 64), "each layer by one of them");
        let seen = check(&worlds[0].cache());
        assert_eq!((seen.environments, seen.layers), (environments, layers.len()));
        assert_eq!(crate::inspect::left_over(&worlds[0].cache()), [] as [PathBuf; 0]);
    }
}

#[test]
fn environments_share_layers_while_gc_never_stops() {
    let worlds = relatives(4);
    let part = Part::new("environments that share layers, cleaned up all the time", 6);
    let cache = worlds[0].path("cache");
    let done = AtomicBool::new(false);
    let cleaned = std::thread::scope(|scope| {
        let cleaner = scope.spawn(|| {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                succeed(&mut worlds[0].command(&["--cpack", "gc", "--all"]));
                runs += 1;
            }
            runs
        });
        let running = Done(&done);
        for round in 0..part.rounds {
            let start = |i: usize| {
                let mut command = worlds[i % 4].command(&["-c", CODE]);
                spawn(command.env("CPACK_CACHE_DIR", &cache).env_remove("CPACK_METRICS"))
            };
            // Many at first, then those that find half of what they want.
            let count = if round == 0 { 64 } else { 8 };
            all_see((0..count).map(start).collect(), &format!("round {round}"));
        }
        drop(running);
        cleaner.join().expect("cleans")
    });
    assert!(cleaned > 3, "only {cleaned} clean-ups");
    check(&worlds[0].cache());
    let_time_pass(&worlds[0].cache());
    succeed(&mut worlds[0].command(&["--cpack", "gc", "--all"]));
    assert_eq!(everything(&worlds[0].cache()), [] as [PathBuf; 0]);
}

#[test]
fn starts_only_repeat_work_where_locks_exclude_nobody() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("locks that lie or are refused, 16 starts each");
    for fault in ["flock=lie", "flock=E37"] {
        let start = |_| spawn(world.command(&["-c", CODE]).env("CPACK_FAULTS", fault));
        all_see((0..16).map(start).collect(), fault);
        check(&world.cache());
        assert_eq!(crate::inspect::left_over(&world.cache()), [] as [PathBuf; 0], "{fault}");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}

/// A start stands still just before `exec`: nothing in `/proc` names its environment, and its lease excludes no other process.
/// Clean-up must notice that locks prove nothing on this file system.
#[test]
fn gc_takes_nothing_where_locks_exclude_nobody() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("clean-up where locks lie or are refused");
    for lie in ["flock=lie", "flock=E37"] {
        for kind in ["cold", "warm"] {
            let stopped = spawn(world.command(&["-c", CODE]).env("CPACK_FAULTS", format!("{lie},boot.exec=stop")));
            wait_until_stopped(&stopped);
            let_time_pass(&world.cache());
            for arguments in [&["--cpack", "gc", "--all"][..], &["--cpack", "gc", "--limit", "1"], &["--cpack", "gc"]] {
                let told = succeed(world.command(arguments).env("CPACK_FAULTS", lie));
                assert!(told.starts_with("removed 0 environments, 0 layers"), "{lie}, {kind}: {told}");
            }
            kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
            all_see(vec![stopped], lie);
            check(&world.cache());
        }
        // A builder is not taken for dead either, however long it stands still.
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
        let faults = format!("{lie},layer.sealed=stop@1");
        let stopped = spawn(world.command(&["-c", CODE]).env("CPACK_FAULTS", faults));
        wait_until_stopped(&stopped);
        let hours = SystemTime::now() - Duration::from_secs(3 * 3600);
        for path in crate::inspect::left_over(&world.cache()) {
            File::open(path).and_then(|f| f.set_times(FileTimes::new().set_modified(hours))).expect("sets the time");
        }
        succeed(world.command(&["--cpack", "gc", "--all"]).env("CPACK_FAULTS", lie));
        kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
        all_see(vec![stopped], lie);
        check(&world.cache());
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}

/// Waits until a child stops itself.
pub(crate) fn wait_until_stopped(child: &Child) {
    let pid = Pid::from_raw(child.id().cast_signed());
    match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("waits") {
        WaitStatus::Stopped(..) => {}
        status => panic!("it did not stop: {status:?}"),
    }
}

/// How long a waiter may take beyond the time for which it is told to be patient, on a machine that is busy.
const BOUND: Duration = Duration::from_secs(60);

#[test]
fn start_overtakes_holder_that_stands_still_anywhere() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("holders stopped by SIGSTOP at every step");
    let steps = [
        "staging.created",
        "layer.claimed",
        "layer.staged",
        "layer.file",
        "layer.extracted",
        "layer.sealed",
        "layer.state",
        "layer.published",
        "tree.claimed",
        "tree.directories",
        "tree.group",
        "tree.records",
        "tree.sealed",
        "tree.renamed",
        "tree.closed",
        "clean.removed",
        "boot.exec",
    ];
    for step in steps {
        let stopped = spawn(world.command(&["-c", CODE]).env("CPACK_FAULTS", format!("{step}=stop@1")));
        wait_until_stopped(&stopped);
        let started = Instant::now();
        let waiters = (0..3).map(|_| spawn(world.command(&["-c", CODE]).env("CPACK_STALL_TIMEOUT", "0.3"))).collect();
        all_see(waiters, step);
        assert!(started.elapsed() < BOUND, "{step}: {:?}", started.elapsed());
        check(&world.cache());
        // Gone on, it finds that all is done, and is harmless.
        kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
        all_see(vec![stopped], step);
        check(&world.cache());
        assert_eq!(crate::inspect::left_over(&world.cache()), [] as [PathBuf; 0], "{step}");
        entries(&world.path("cache")).iter().for_each(|path| remove(path));
    }
}

/// A clean-up and a start each stand still at a point that the other cannot see. The environment keeps its layers.
#[test]
fn gc_keeps_layer_that_is_linked_behind_its_back() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("clean-ups and starts stopped between their looks");
    let (clean, start) = (&["--cpack", "gc", "--all"][..], &["-c", CODE][..]);
    for (stops, step, meanwhile) in
        [(clean, "clean.looked", start), (clean, "clean.unused", start), (start, "tree.claimed", clean)]
    {
        succeed(&mut world.command(start));
        entries(&world.cache().join("environments")).iter().for_each(|path| remove(path));
        let_time_pass(&world.cache());
        let stopped = spawn(world.command(stops).env("CPACK_FAULTS", format!("{step}=stop@1")));
        wait_until_stopped(&stopped);
        succeed(&mut world.command(meanwhile));
        kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
        assert!(stopped.wait_with_output().expect("ends").status.success(), "{step}");
        let seen = check(&world.cache());
        assert_eq!((seen.environments, seen.layers), (1, world.manifest.layers.len()), "{step}");
        assert_eq!(crate::inspect::left_over(&world.cache()), [] as [PathBuf; 0], "{step}");
    }
}

/// A start with a private copy stands still when the copy is made and not leased yet.
#[test]
fn gc_keeps_private_copy_that_is_just_made() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("a private copy and a clean-up");
    let mut start = world.command(&["-c", CODE]);
    let stopped = spawn(start.env("CPACK_WRITABLE", "1").env("CPACK_FAULTS", "private.filled=stop"));
    wait_until_stopped(&stopped);
    let_time_pass(&world.cache());
    succeed(&mut world.command(&["--cpack", "gc", "--all"]));
    kill(Pid::from_raw(stopped.id().cast_signed()), Signal::SIGCONT).expect("signals");
    all_see(vec![stopped], "a private copy");
    let_time_pass(&world.cache());
    succeed(&mut world.command(&["--cpack", "gc", "--all"]));
    assert_eq!(everything(&world.cache()), [] as [PathBuf; 0]);
}

#[test]
fn two_users_of_one_node_never_meet() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("two users on one node");
    if !is_root() {
        say("faults: two users: needs root to be two, so this part checks one user's cache alone");
    }
    let cache = world.path("cache");
    fs::set_permissions(&cache, Permissions::from_mode(0o1777)).expect("chmod");
    let users: &[u32] = if is_root() { &[65534, 65533] } else { &[0] };
    let start = |i: usize| {
        let mut command = world.command(&["-c", CODE]);
        if is_root() {
            command.uid(users[i % 2]).gid(users[i % 2]);
        }
        spawn(command.env("HOME", "/nonexistent").env("TMPDIR", "/nonexistent").env_remove("CPACK_METRICS"))
    };
    all_see((0..8).map(start).collect(), "two users");
    let roots = entries(&cache);
    assert_eq!(roots.len(), users.len());
    for root in roots {
        let metadata = fs::metadata(&root).expect("stat");
        assert!(root.ends_with(format!("cpack-{}", metadata.uid())) && metadata.mode() & 0o7777 == 0o700);
        assert_eq!(check(&root).environments, 1);
    }
}

/// A start whose places are `shared/` and the working directory.
fn in_shared(world: &World) -> Command {
    let mut command = world.command(&["-c", CODE]);
    command.env("TMPDIR", world.path("shared")).env("HOME", "/nonexistent");
    command.env_remove("CPACK_CACHE_DIR").env_remove("CPACK_METRICS");
    command
}

/// What an attacker may do in `/tmp`, and what the user's own mistakes open.
#[test]
fn start_bypasses_cache_that_attacker_prepared() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let _part = Part::once("caches that an attacker prepared");
    let name = world.cache().file_name().expect("a name").to_owned();
    let (shared, outside) = (world.path("shared"), world.user_directory("outside"));
    let place = shared.join(&name);
    let mode = |path: &PathBuf, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
    let ours = || {
        fs::create_dir(&place).expect("creates");
        cpack_test::small_world::own(place.clone());
    };
    let theirs = |path: &PathBuf| {
        if is_root() {
            chown(path, Some(65533), Some(65533)).expect("chown");
        }
    };
    let cases: [(&str, &dyn Fn()); 8] = [
        ("a link to a directory of the user's own", &|| symlink(&outside, &place).expect("links")),
        ("a link to nowhere", &|| symlink("/nonexistent", &place).expect("links")),
        ("a file", &|| fs::write(&place, "").expect("writes")),
        ("a fifo", &|| nix::unistd::mkfifo(&place, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a fifo")),
        ("open to the group", &|| {
            ours();
            mode(&place, 0o770);
        }),
        ("open to all", &|| {
            ours();
            mode(&place, 0o1777);
        }),
        ("a parent that is open to the group", &|| mode(&shared, 0o775)),
        ("a parent that is open to all and not sticky", &|| mode(&shared, 0o777)),
    ];
    let foreign: [(&str, &dyn Fn()); 2] = [
        ("another user's", &|| {
            fs::create_dir(&place).expect("creates");
            theirs(&place);
        }),
        ("below another user's", &|| theirs(&shared)),
    ];
    // Only root can give files away.
    let foreign = if is_root() { &foreign[..] } else { &[] };
    for (what, prepare) in cases.iter().chain(foreign) {
        fs::create_dir(&shared).expect("creates");
        mode(&shared, 0o1777);
        prepare();
        assert_eq!(succeed(&mut in_shared(&world)), SEEN, "{what}");
        assert_eq!(entries(&place.join("environments")), [] as [PathBuf; 0], "{what}: used");
        assert_eq!(entries(&outside), [] as [PathBuf; 0], "{what}: followed");
        // The working directory served.
        assert_eq!(check(&world.path("work").join(&name)).environments, 1, "{what}");
        entries(&world.path("work")).iter().for_each(|path| remove(path));
        let _ = fs::remove_file(&place);
        remove(&shared);
    }
    // As it should be, it is used.
    fs::create_dir(&shared).expect("creates");
    mode(&shared, 0o1777);
    assert_eq!(succeed(&mut in_shared(&world)), SEEN);
    assert_eq!(check(&place).environments, 1);
}
