//! The processes of a job: those in its mount namespace.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often processes are looked for again: each round may miss what was forked during it.
const ROUNDS: usize = 10;

/// The processes in one mount namespace.
#[derive(Debug, Clone, Copy)]
pub struct JobProcesses {
    namespace: u64,
}

impl JobProcesses {
    /// Those that share the namespace of the process `pid`.
    pub fn with(pid: i32) -> io::Result<Self> {
        let namespace = fs::metadata(namespace_of(Path::new("/proc").join(pid.to_string())))?.ino();
        Ok(Self { namespace })
    }

    /// Kills them all. Returns whether there was any.
    pub fn kill(&self) -> bool {
        let mut any = false;
        for _ in 0..ROUNDS {
            let found = self.find();
            if found.is_empty() {
                break;
            }
            any = true;
            for pid in found {
                // It may have ended meanwhile.
                let _ = kill(pid, Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        any
    }

    fn find(&self) -> Vec<Pid> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let shares =
            |path: &PathBuf| fs::metadata(namespace_of(path.clone())).is_ok_and(|found| found.ino() == self.namespace);
        let pid = |path: &PathBuf| path.file_name()?.to_str()?.parse().ok().map(Pid::from_raw);
        processes
            .map(|entry| entry.path())
            .filter_map(|path| Some((pid(&path)?, path)))
            .filter(|(_, path)| shares(path))
            .map(|(pid, _)| pid)
            .collect()
    }
}

fn namespace_of(process: PathBuf) -> PathBuf {
    process.join("ns/mnt")
}
