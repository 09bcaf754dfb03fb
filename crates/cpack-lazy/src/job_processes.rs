//! The processes of a job: those in its mount namespace.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exit_of::Held;

/// How often processes are looked for again: each round may miss what was forked during it.
const ROUNDS: usize = 10;

/// Between two rounds: killed processes are gone by then.
const PAUSE: Duration = Duration::from_millis(5);

/// The processes in one mount namespace.
#[derive(Debug, Clone, Copy)]
pub struct JobProcesses {
    /// The process whose end the caller of the job sees.
    main: Pid,
    namespace: u64,
}

impl JobProcesses {
    /// Those that share the namespace of the process `main`.
    pub fn with(main: Pid) -> io::Result<Self> {
        let namespace = fs::metadata(namespace_of(&process(main)))?.ino();
        Ok(Self { main, namespace })
    }

    /// Ends them all. The main one ends with the exit code `code`, if the kernel lets this process see to it, else like the
    /// others by `SIGKILL`. Returns whether there was any.
    ///
    /// `device` is the last descriptor of `/dev/fuse`: while it is open, processes that read wait. It is closed after all of them were
    /// stopped or killed, so that none goes on with the error that the kernel answers then.
    pub fn end(&self, code: u8, device: OwnedFd) -> bool {
        let found = self.find();
        Self::signal(&found, Signal::SIGSTOP);
        let is_there = found.contains(&self.main);
        let held = if is_there { Held::new(self.main).ok() } else { None };
        let others: Vec<Pid> = found.iter().copied().filter(|pid| held.is_none() || *pid != self.main).collect();
        Self::signal(&others, Signal::SIGKILL);
        drop(device);
        if let Some(held) = held {
            let _ = held.exit_with(code);
        }
        for _ in 0..ROUNDS {
            let left = self.find();
            if left.is_empty() {
                break;
            }
            Self::signal(&left, Signal::SIGKILL);
            std::thread::sleep(PAUSE);
        }
        !found.is_empty()
    }

    fn signal(processes: &[Pid], signal: Signal) {
        for pid in processes {
            // It may have ended meanwhile.
            let _ = kill(*pid, signal);
        }
    }

    fn find(&self) -> Vec<Pid> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        let shares =
            |pid: &Pid| fs::metadata(namespace_of(&process(*pid))).is_ok_and(|found| found.ino() == self.namespace);
        pids.filter(shares).collect()
    }
}

fn process(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn namespace_of(process: &Path) -> PathBuf {
    process.join("ns/mnt")
}
