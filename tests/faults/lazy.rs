//! Lazy starts: each of their processes killed or stopped at every step that it passes, then a plain start, then a check of
//! every byte. Kills at random instants are in `bootstrap/tests/boot/lazy/kills.rs`.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use cpack_format::exit::Exit;
use cpack_test::process::{processes_of, wait_until, wait_until_none_runs};
use cpack_test::small_world::{World, entries, spawn, succeed};

use crate::inspect::{check, left_over, let_time_pass, remove};
use crate::kills::{is_of_lazy_starts, packages, steps};
use crate::random::Part;

/// Prints the digest of all that the environment has but its records.
const READ_ALL: &str = "import alpha, hashlib, os, sys\n\
    digest = hashlib.sha256()\n\
    for base, directories, files in os.walk(sys.prefix):\n\
    \x20   directories[:] = sorted(name for name in directories if name != '.cpack')\n\
    \x20   for name in sorted(files):\n\
    \x20       with open(os.path.join(base, name), 'rb') as file:\n\
    \x20           digest.update(name.encode() + file.read())\n\
    print(digest.hexdigest())";

/// A lazy start that fills to the end, on an empty cache.
fn lazily(world: &World) -> Command {
    entries(&world.path("cache")).iter().for_each(|path| remove(path));
    let mut command = world.command(&["-c", READ_ALL]);
    command.env("CPACK_START", "lazy").env("CPACK_FILL", "full").env("CPACK_THREADS", "2");
    command
}

#[test]
fn lazy_start_ends_when_pyspark_hangs_up_before_python_runs() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let mut command = world.command(&["-m", "pyspark.daemon"]);
    command.env("CPACK_START", "lazy").env("CPACK_FAULTS", "server.listed=sleep3000").stdin(Stdio::piped());
    let mut daemon = spawn(&mut command);
    drop(daemon.stdin.take());
    let output = daemon.wait_with_output().expect("ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(Exit::Stopped.code().into()), "{error}");
    assert_eq!(error, "cpack-boot: stopped before Python ran: the caller closed standard input\n");
    wait_until_none_runs(&world.path("env-python"));
}

#[test]
fn lazy_start_names_the_server_if_all_else_is_killed_before_python_runs() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let launcher = world.path("env-python");
    let job = spawn(lazily(&world).env("CPACK_FAULTS", "boot.exec=stop"));
    let own = std::path::Path::new("/proc").join(job.id().to_string());
    let is_stopped = || std::fs::read_to_string(own.join("stat")).is_ok_and(|stat| stat.contains(") T "));
    wait_until("the job's process is about to become Python", is_stopped);
    let others: Vec<_> = processes_of(&launcher).into_iter().filter(|process| *process != own).collect();
    // Stopped, none of them sees another one end.
    for signal in ["-STOP", "-KILL"] {
        succeed(Command::new("kill").arg(signal).args(others.iter().filter_map(|process| process.file_name())));
    }
    wait_until("the server has ended", || processes_of(&launcher) == [own.clone()]);
    succeed(Command::new("kill").arg("-CONT").arg(job.id().to_string()));
    let output = job.wait_with_output().expect("ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error, "cpack-boot: the server of this environment was ended before Python ran\n");
    assert_eq!(output.status.code(), Some(Exit::Internal.code().into()));
}

#[test]
fn lazy_start_survives_or_ends_in_one_line_whichever_process_is_killed_or_stopped_at_whichever_step() {
    let world = World::with(crate::boot(), &packages(), |_| {});
    let launcher = world.path("env-python");
    let _part = Part::once("a kill at every named step of a lazy start");
    let whole = world.run(&["-c", READ_ALL]);
    let passed = steps(&mut lazily(&world), &world.path("tmp/steps"));
    wait_until_none_runs(&launcher);
    let missed: Vec<_> =
        cpack_fault::STEPS.iter().filter(|step| is_of_lazy_starts(step) && !passed.contains_key(**step)).collect();
    assert_eq!(missed, [] as [&&str; 0], "declared, and passed by nothing");
    let mut ended = 0;
    for (step, count) in &passed {
        let mut faults: Vec<_> =
            BTreeSet::from([1, count.div_ceil(2)]).iter().map(|at| format!("{step}=kill@{at}")).collect();
        // Guard and server notice when the other stands still; the guard only until it has handed over, and the witness until it watches.
        if step.starts_with("server.") || ["guard.device", "witness.device"].contains(&step.as_str()) {
            faults.push(format!("{step}=stop@1"));
        }
        for fault in faults {
            let mut job = spawn(lazily(&world).env("CPACK_FAULTS", &fault));
            wait_until(&format!("{fault}: the job has ended"), || job.try_wait().expect("waits").is_some());
            for stopped in processes_of(&launcher) {
                let _ = Command::new("kill").arg("-CONT").args(stopped.file_name()).stderr(Stdio::null()).status();
            }
            let output = job.wait_with_output().expect("ends");
            let (status, error) = (output.status, String::from_utf8_lossy(&output.stderr));
            wait_until_none_runs(&launcher);
            // Until the server has taken over, its end or the guard's makes the start an eager one.
            let before =
                ["server.listed=kill@1", "server.device=kill@1", "guard.witnessed=kill@1", "guard.device=kill@1"];
            assert!(status.success() || !before.contains(&fault.as_str()), "{fault}: {status}: {error}");
            if status.signal() == Some(9) || status.code() == Some(Exit::Internal.code().into()) {
                ended += 1;
            } else {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(status.success() && said == whole, "{fault}: {status}: {said}{error}");
            }
            assert!(!error.contains("Traceback") && error.lines().count() <= 1, "{fault}: {error}");
            assert_eq!(succeed(&mut world.command(&["-c", READ_ALL])), whole, "{fault}");
            check(&world.cache());
            let_time_pass(&world.cache());
            succeed(world.command(&["--cpack", "gc", "--all", "--json"]).env("CPACK_CACHE_LIMIT", "1T"));
            assert_eq!(left_over(&world.cache()), [] as [std::path::PathBuf; 0], "{fault}");
        }
    }
    assert!(ended > 10, "only {ended} jobs ended");
}
