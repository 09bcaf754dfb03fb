//! Containers that start together: one cache, many processes, some of which stand still or die.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cpack_test::process::wait_until;
use cpack_test::small_world::{World, assert_fails, entries, file, nodes, spawn, standard_packages, succeed};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CODE: &str = "import alpha, beta, large; print(alpha.NAME, beta.NAME)";
const SEEN: &str = "alpha beta\n";

/// An archive of the store that answers nothing: a process that opens it hangs until it is put back.
struct Hanging {
    archive: PathBuf,
    aside: PathBuf,
}

impl Hanging {
    fn new(world: &World, package: &str) -> Self {
        let layer = world.manifest.layers.iter().find(|l| l.name == package).expect("a package");
        let key = cpack_store::Key::layer(&layer.archive.digest);
        let archive = world.path("store").join(key.as_str());
        let aside = world.path("aside");
        fs::rename(&archive, &aside).expect("renames");
        nix::unistd::mkfifo(&archive, nix::sys::stat::Mode::from_bits_truncate(0o644)).expect("a fifo");
        Self { archive, aside }
    }

    /// Waits until this process hangs: it holds a claim and has begun to build.
    fn wait_for_victim(&self, world: &World, victim: &Child) {
        // A lock file is there before its process has locked it.
        let holds = || {
            let locks = fs::read_to_string("/proc/locks").expect("reads");
            let files =
                entries_or_none(&world.cache().join("locks")).into_iter().filter_map(|path| fs::metadata(path).ok());
            let inodes: Vec<_> = files.map(|file| format!(":{}", file.ino())).collect();
            let own = format!(" WRITE {} ", victim.id());
            locks.lines().any(|lock| {
                let file = lock.split_whitespace().nth(5).unwrap_or_default();
                lock.contains("FLOCK") && lock.contains(&own) && inodes.iter().any(|inode| file.ends_with(inode))
            })
        };
        wait_until("the process has claimed and begun a layer", || !staging_of(world).is_empty() && holds());
    }

    fn put_back(&self) {
        fs::rename(&self.aside, &self.archive).expect("renames");
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("signals");
}

fn staging_of(world: &World) -> Vec<PathBuf> {
    entries(&world.cache().join("staging"))
}

/// Makes what dead processes left old enough to be cleaned up.
fn let_time_pass(world: &World) {
    for path in staging_of(world) {
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(path).and_then(|f| f.set_times(fs::FileTimes::new().set_modified(old))).expect("sets the time");
    }
}

/// Lets starts clean up what dead processes left long ago, as each does that puts up a new environment.
///
/// None takes longer for it than a second, and leaves the rest to the next: on a busy machine it takes several.
fn let_starts_clean_up(world: &World) {
    let_time_pass(world);
    for start in 0..40 {
        let mut packages = standard_packages();
        packages[0].1.extend(nodes(&[("site/more.py", file(&format!("START = {start}\n")))]));
        let other = World::with(crate::boot(), &packages, |_| {});
        succeed(other.command(&["-c", "import more"]).env("CPACK_CACHE_DIR", world.path("cache")));
        if staging_of(world).is_empty() {
            break;
        }
    }
    world.check_cache();
}

#[test]
fn thirty_two_starts_at_once_share_the_work() {
    let world = World::new(crate::boot());
    let children: Vec<_> = (0..32).map(|_| spawn(&mut world.command(&["-c", CODE]))).collect();
    for child in children {
        let output = child.wait_with_output().expect("ends");
        assert_eq!((String::from_utf8_lossy(&output.stdout), output.stderr.len()), (SEEN.into(), 0));
    }
    let count =
        |name: &str| -> u64 { world.metrics().iter().map(|m| m["layers"][name].as_u64().expect("a number")).sum() };
    assert_eq!(count("built"), world.manifest.layers.len() as u64, "each layer by one of them");
    assert_eq!(world.metrics().len(), 32);
    world.check_cache();
}

#[test]
fn locks_that_exclude_nobody_cost_work_and_nothing_else() {
    let world = World::new(crate::boot());
    let locks = world.cache().join("locks");
    let children: Vec<_> = (0..12).map(|_| spawn(&mut world.command(&["-c", CODE]))).collect();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A lock whose file is gone excludes no process that comes later.
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for path in entries_or_none(&locks) {
                    let _ = fs::remove_file(path);
                }
            }
        });
        for child in children {
            let output = child.wait_with_output().expect("ends");
            assert_eq!((String::from_utf8_lossy(&output.stdout), output.stderr.len()), (SEEN.into(), 0));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    world.check_cache();
}

fn entries_or_none(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

#[test]
fn start_that_is_killed_anywhere_leaves_nothing_that_is_used() {
    let world = World::new(crate::boot());
    for round in 0..30u64 {
        let mut child = spawn(&mut world.command(&["-c", CODE]));
        // Somewhere in the 200 ms that a cold start takes here; each round finds what the others left.
        std::thread::sleep(Duration::from_millis(round * 37 % 200));
        child.kill().expect("kills");
        child.wait().expect("ends");
        if round % 5 == 4 {
            assert_eq!(world.run(&["-c", CODE]), SEEN);
            remove(&world.cache().join("environments"));
            remove(&world.cache().join("layers"));
        }
    }
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    let_starts_clean_up(&world);
}

/// Removes what is in a directory of the cache.
fn remove(directory: &Path) {
    for path in entries(directory) {
        cpack_node::cache::remove_tree(&path, None).expect("removes");
    }
}

#[test]
fn holder_that_is_stopped_is_overtaken_and_harmless_when_it_goes_on() {
    let world = World::new(crate::boot());
    let hanging = Hanging::new(&world, "large");
    let stopped = spawn(&mut world.command(&["-c", CODE]));
    hanging.wait_for_victim(&world, &stopped);
    signal(&stopped, Signal::SIGSTOP);
    hanging.put_back();
    let started = Instant::now();
    assert_eq!(succeed(world.command(&["-c", CODE]).env("CPACK_STALL_TIMEOUT", "0.5")), SEEN);
    assert!(started.elapsed() >= Duration::from_millis(500), "the start waited for no holder");
    // The fifo has no name any more: a process that hangs in opening it is woken by a kill only.
    signal(&stopped, Signal::SIGTERM);
    signal(&stopped, Signal::SIGCONT);
    let output = stopped.wait_with_output().expect("ends");
    assert!(!output.status.success() && output.stdout.is_empty());
    assert_eq!(world.run(&["-c", CODE]), SEEN);
    // A thread that hangs in the kernel may be ended before it removes what it began: the next clean-up does.
    let_starts_clean_up(&world);
}

#[test]
fn holder_that_dies_is_not_waited_for() {
    let world = World::new(crate::boot());
    let hanging = Hanging::new(&world, "large");
    let mut dead = spawn(&mut world.command(&["-c", CODE]));
    hanging.wait_for_victim(&world, &dead);
    hanging.put_back();
    dead.kill().expect("kills");
    dead.wait().expect("ends");
    // Were it waited for, the test would take a day.
    assert_eq!(succeed(world.command(&["-c", CODE]).env("CPACK_STALL_TIMEOUT", "86400")), SEEN);
    assert_eq!(staging_of(&world).len(), 1, "left behind by the dead");
    let_starts_clean_up(&world);
}

#[test]
fn sigterm_ends_a_cold_start_and_what_it_began() {
    let world = World::new(crate::boot());
    let hanging = Hanging::new(&world, "large");
    let child = spawn(&mut world.command(&["-c", CODE]));
    hanging.wait_for_victim(&world, &child);
    signal(&child, Signal::SIGTERM);
    let output = child.wait_with_output().expect("ends");
    let by = std::os::unix::process::ExitStatusExt::signal(&output.status);
    assert_eq!(by, Some(Signal::SIGTERM as i32), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty() && output.stderr.starts_with(b"cpack-boot: stopped"));
    assert_eq!(staging_of(&world), [] as [PathBuf; 0]);
    hanging.put_back();
    assert_eq!(world.run(&["-c", CODE]), SEEN);
}

#[test]
fn pyspark_s_daemon_stops_when_its_caller_goes_and_nobody_else_does() {
    let world = World::new(crate::boot());
    let hanging = Hanging::new(&world, "large");
    let mut daemon = spawn(world.command(&["-m", "pyspark.daemon", "pyspark.worker"]).stdin(Stdio::piped()));
    hanging.wait_for_victim(&world, &daemon);
    assert!(daemon.try_wait().expect("a state").is_none());
    drop(daemon.stdin.take());
    let output = daemon.wait_with_output().expect("ends");
    assert_fails(&output, 88, "closed standard input");
    assert_eq!(staging_of(&world), [] as [PathBuf; 0]);
    hanging.put_back();
    // A script's pipe is hung up as soon as it was written.
    let mut script = spawn(world.command(&["-"]).stdin(Stdio::piped()));
    drop(script.stdin.take());
    assert!(script.wait_with_output().expect("ends").status.success());
}

#[test]
fn clean_up_during_a_run_takes_nothing_that_is_used() {
    let world = World::new(crate::boot());
    let code = "import sys, alpha\nprint('ready', flush=True)\nsys.stdin.readline()\n\
                import beta, large, data\nprint(beta.NAME)";
    let mut running = spawn(world.command(&["-c", code]).stdin(Stdio::piped()));
    let mut ready = [0; 6];
    std::io::Read::read_exact(running.stdout.as_mut().expect("a pipe"), &mut ready).expect("reads");
    let gc = succeed(world.command(&["--cpack", "gc", "--all"]).env("CPACK_INTERPRETER", "1"));
    assert!(gc.contains("in use"), "{gc}");
    std::io::Write::write_all(running.stdin.as_mut().expect("a pipe"), b"\n").expect("writes");
    let output = running.wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "beta\n", "{}", String::from_utf8_lossy(&output.stderr));
    succeed(&mut world.command(&["--cpack", "gc", "--all"]));
    assert_eq!(entries(&world.cache().join("environments")), [] as [PathBuf; 0]);
    assert_eq!(world.run(&["-c", CODE]), SEEN);
}
