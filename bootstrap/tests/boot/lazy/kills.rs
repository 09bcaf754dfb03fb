//! Kills: of the server of a lazy start, of its guard, of Python, and of what fills.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use cpack_format::exit::Exit;
use cpack_test::small_world::{World, entries, succeed};

use super::{lazily, running, runs, text, wait_until};

#[test]
fn lazy_start_ends_the_job_if_the_server_is_killed_or_stopped_or_the_guard_killed() {
    let waits = "time.sleep(60)";
    let computes = "[sum(range(1000)) for _ in iter(int, 1)]";
    let threads = "[threading.Thread(target=time.sleep, args=[60]).start() for _ in range(4)]";
    // Asks the server all the time, in all of its processes.
    let reads = "import large; fd = os.open(large.__path__[0] + '/lib.so', os.O_RDONLY)\n\
                 while True: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED); os.pread(fd, 1 << 20, 1 << 20)";
    let server = "server of this environment was ";
    let guard = "guard of this environment's server was ended";
    for (victim, signal, work) in [
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
    ] {
        let world = World::new(crate::boot());
        let code = format!(
            "import os, sys, threading, time\n\
             children = [os.fork() for _ in range(2)]\n\
             print('up', flush=True)\n\
             {work}\n\
             time.sleep(60)\n\
             print('survived')"
        );
        let mut command = lazily(&world, "lazy", "off", &["-c", &code]);
        let mut job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut first = [0; 3];
        std::io::Read::read_exact(job.stdout.as_mut().expect("a pipe"), &mut first).expect("reads");
        let launcher = world.path("env-python");
        let server_process = server_of(&launcher);
        let pid = if victim == server { server_process } else { parent_of(server_process) };
        succeed(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]));
        let output = job.wait_with_output().expect("ends");
        wait_until("no process is left", || running(&launcher) == 0);
        assert!(!text(&output.stdout).contains("survived"));
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(Exit::Internal.code().into()), "{}: {error}", output.status);
        assert!(
            error.starts_with(&format!("cpack-boot: the {victim}")) && error.lines().count() == 1,
            "{victim}: {error}"
        );
    }
}

#[test]
fn lazy_start_leaves_nothing_that_later_starts_trip_over_whichever_process_is_killed_when() {
    let world = World::new(crate::boot());
    let launcher = world.path("env-python");
    let code = "import alpha, data, large, os, sys\n\
                for base, _, files in os.walk(sys.prefix):\n\
                \x20   [open(os.path.join(base, name), 'rb').read() for name in files]\n\
                print('read')";
    // As in tests/faults: the usual number, or the same multiple of it that the variable is of 200.
    let asked = std::env::var("CPACK_FAULT_ROUNDS").ok().map(|asked| asked.parse::<u64>().expect("a number of rounds"));
    for round in 0..asked.map_or(40, |asked| (asked * 40).div_ceil(200)) {
        let place = world.user_directory("lazy");
        let mut command = lazily(&world, "lazy", "full", &["-c", code]);
        let mut job = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        std::thread::sleep(std::time::Duration::from_millis(round * 7 % 150));
        let mut processes: Vec<_> =
            entries(Path::new("/proc")).into_iter().filter(|path| runs(path, &launcher)).collect();
        let python = Path::new("/proc").join(job.id().to_string());
        if !processes.contains(&python) {
            processes.push(python);
        }
        if let Some(victim) = processes.get(round as usize % processes.len().max(1)) {
            let pid = victim.file_name().and_then(|name| name.to_str()).expect("a number");
            // It may have ended meanwhile.
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        }
        wait_until("the job has ended", || job.try_wait().expect("waits").is_some());
        let output = job.wait_with_output().expect("ends");
        let (status, error) = (output.status, text(&output.stderr));
        let ended = status.code().is_none() || status.code() == Some(Exit::Internal.code().into());
        assert!(ended || text(&output.stdout) == "read\n", "round {round}: {status}: {error}");
        assert!(!error.contains("Traceback") && error.lines().count() <= 1, "round {round}: {error}");
        wait_until("no process is left", || running(&launcher) == 0);
        let output = succeed(world.command(&["-c", code]).env("CPACK_CACHE_DIR", &place));
        assert_eq!(output, "read\n", "round {round}");
        succeed(Command::new("chmod").args(["-R", "u+w"]).arg(&place));
        fs::remove_dir_all(&place).expect("removes");
    }
}

/// The server's process id: of the processes that run the executable, the one whose parent runs it, too.
fn server_of(executable: &Path) -> i32 {
    let processes = entries(Path::new("/proc")).into_iter().filter(|path| runs(path, executable));
    let pids = processes.filter_map(|path| path.file_name()?.to_str()?.parse().ok());
    let mut servers = pids.filter(|pid| runs(&Path::new("/proc").join(parent_of(*pid).to_string()), executable));
    servers.next().expect("a server")
}

fn parent_of(process: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap_or(0)
}
