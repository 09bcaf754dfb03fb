//! Kills: of the server of a lazy start, of its guard, of Python, and of what fills.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cpack_format::exit::Exit;
use cpack_test::archives::{Node, Nodes};
use cpack_test::process::{processes_of, wait_until, wait_until_none_runs};
use cpack_test::small_world::{World, file, nodes, noise, spawn, succeed};

use super::{lazily, text};

#[test]
fn lazy_start_ends_the_job_if_what_serves_it_is_killed_or_stopped() {
    let waits = "time.sleep(60)";
    let computes = "[sum(range(1000)) for _ in iter(int, 1)]";
    let threads = "[threading.Thread(target=time.sleep, args=[60]).start() for _ in range(4)]";
    // Asks the server all the time, in all of its processes.
    let reads = "import large; fd = os.open(large.__path__[0] + '/lib.so', os.O_RDONLY)\n\
                 while True: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.pread(fd, 1 << 20, 1 << 20)";
    let server = ("the server of this environment was ", &["cpack-server"][..]);
    let guard = ("the guard of this environment's server was ended", &["cpack-guard"][..]);
    let both = ("server and guard of this environment were ended", &["cpack-guard", "cpack-server"][..]);
    let world = World::new(crate::boot());
    let launcher = world.path("env-python");
    for (number, ((said, victims), signal, work)) in [
        (server, "KILL", waits),
        (server, "STOP", waits),
        (server, "KILL", computes),
        (server, "KILL", threads),
        (server, "KILL", reads),
        (server, "STOP", reads),
        (guard, "KILL", waits),
        (guard, "KILL", computes),
        (guard, "KILL", threads),
        (guard, "KILL", reads),
        (both, "KILL", waits),
        (both, "KILL", computes),
        (both, "KILL", threads),
        (both, "KILL", reads),
    ]
    .into_iter()
    .enumerate()
    {
        let code = format!(
            "import os, sys, threading, time\n\
             children = [os.fork() for _ in range(2)]\n\
             print('up', flush=True)\n\
             {work}\n\
             time.sleep(60)\n\
             print('survived')"
        );
        let mut job = spawn(&mut lazily(&world, &format!("lazy-{number}"), "off", &["-c", &code]));
        let mut first = [0; 3];
        std::io::Read::read_exact(job.stdout.as_mut().expect("a pipe"), &mut first).expect("reads");
        let processes: Vec<_> = victims.iter().map(|name| named(&launcher, name)).collect();
        if let [guard, _] = processes.as_slice() {
            // It would see the server die first.
            succeed(Command::new("kill").args(["-STOP", guard]));
        }
        succeed(Command::new("kill").arg(format!("-{signal}")).args(processes));
        let output = job.wait_with_output().expect("ends");
        wait_until_none_runs(&launcher);
        assert!(!text(&output.stdout).contains("survived"));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(Exit::Internal.code().into()), "{number}: {}: {error}", output.status);
        assert!(
            error.starts_with(&format!("cpack-boot: {said}")) && error.lines().count() == 1,
            "{victims:?}: {error}"
        );
    }
}

/// How many rounds run side by side: they wait most of the time.
const WORLDS: u64 = 4;

#[test]
fn lazy_start_leaves_nothing_that_later_starts_trip_over_whichever_processes_are_killed_when() {
    let asked = std::env::var("CPACK_FAULT_ROUNDS").ok().map(|asked| asked.parse::<u64>().expect("a number of rounds"));
    let rounds = asked.unwrap_or(200);
    std::thread::scope(|scope| {
        for first in 0..WORLDS {
            scope.spawn(move || {
                let world = World::with(crate::boot(), &packages(), |_| {});
                (first..rounds).step_by(WORLDS as usize).for_each(|round| kill_in(&world, round));
            });
        }
    });
}

/// As few as show a file that is not read, or not read to its end.
fn packages() -> Vec<(&'static str, Nodes)> {
    let alpha = nodes(&[("site/alpha/__init__.py", file("NAME = 'alpha'\n"))]);
    let data: Vec<_> = (0..20).map(|i| (format!("site/data/f{i}.txt"), file("text"))).collect();
    let data: Vec<_> = data.iter().map(|(path, node)| (path.as_str(), node.clone())).collect();
    let large = nodes(&[("site/large/lib.so", Node::Executable(noise(3 << 20, 7)))]);
    vec![("alpha", alpha), ("data", nodes(&data)), ("large", large)]
}

const READ_ALL: &str = "import alpha, os, sys\n\
    for base, _, files in os.walk(sys.prefix):\n\
    \x20   [open(os.path.join(base, name), 'rb').read() for name in files]\n\
    print('read')";

/// A lazy start of which one process is killed, or two, or all, as the end of a container does; then a plain start.
fn kill_in(world: &World, round: u64) {
    let launcher = world.path("env-python");
    let place = world.user_directory("lazy");
    let mut job = spawn(&mut lazily(world, "lazy", "full", &["-c", READ_ALL]));
    std::thread::sleep(Duration::from_millis(round * 7 % 150));
    let mut processes = processes_of(&launcher);
    let python = Path::new("/proc").join(job.id().to_string());
    if !processes.contains(&python) {
        processes.push(python.clone());
    }
    let count = processes.len();
    let killed = [1, 2, count][(round / 3 % 3) as usize];
    let victims = (0..killed).map(|other| &processes[(round as usize + other) % count]);
    let victims = victims.filter_map(|path| path.file_name());
    // They may have ended meanwhile.
    let _ = Command::new("kill").arg("-KILL").args(victims).stderr(Stdio::null()).status();
    wait_until("the job has ended", || job.try_wait().expect("waits").is_some());
    let output = job.wait_with_output().expect("ends");
    let (status, error) = (output.status, text(&output.stderr));
    let ended = status.code().is_none() || status.code() == Some(Exit::Internal.code().into());
    // If all are killed, and Python not first, it sees the others gone for an instant.
    let may_see = killed == count && processes.get(round as usize % count) != Some(&python);
    assert!(may_see || ended || text(&output.stdout) == "read\n", "round {round}: {status}: {error}");
    let lines = |word: &str| error.lines().filter(|line| line.starts_with(word)).count();
    assert!(lines("cpack-boot:") <= 1 && !error.contains("internal fault"), "round {round}: {error}");
    assert!(may_see || lines("") <= 1 && !error.contains("Traceback"), "round {round}: {error}");
    wait_until_none_runs(&launcher);
    let output = succeed(world.command(&["-c", READ_ALL]).env("CPACK_CACHE_DIR", &place));
    assert_eq!(output, "read\n", "round {round}");
    cpack_node::cache::remove_tree(&place, None).expect("removes");
}

/// The id of the process that runs the executable under this name.
fn named(executable: &Path, name: &str) -> String {
    let mut processes = processes_of(executable).into_iter();
    let process = processes.find(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
    process.as_deref().and_then(Path::file_name).and_then(|pid| pid.to_str()).expect(name).to_owned()
}
