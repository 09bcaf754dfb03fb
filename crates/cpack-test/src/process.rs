//! Child processes that do not outlive the test, and what other processes do.

#![expect(unsafe_code, reason = "pre_exec is unsafe")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// A server. It is killed when the value is dropped, and by the kernel when the thread that started it ends.
#[derive(Debug)]
pub struct Server(pub Child);

impl Server {
    /// Starts `command`. Panics with `install` if it is missing.
    pub fn start(command: &mut Command, install: &str) -> Self {
        // SAFETY: prctl is a single system call, which is allowed between fork and exec.
        unsafe { command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into)) };
        let name = command.get_program().to_string_lossy().into_owned();
        match command.spawn() {
            Ok(child) => Self(child),
            Err(error) => panic!("{name} cannot be started ({error}): install {install}"),
        }
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directories below `/proc` of the processes that run `executable`.
pub fn processes_of(executable: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    all.filter(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == executable)).collect()
}

/// Waits up to a minute.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(done(), "not within a minute: {what}");
}

/// Waits until no process runs `executable`.
pub fn wait_until_none_runs(executable: &Path) {
    wait_until("no process is left", || processes_of(executable).is_empty());
}
