//! Makes another process exit with a chosen code.
//!
//! A signal cannot do that, and the exit code is all that many callers see. So the process is traced until it enters its next
//! system call, which is made to be `exit_group`. The process that traces owns the user namespace of the other one, so it may
//! do that whatever Yama says (`ptrace_scope`), unless a filter of system calls forbids it.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long the process may compute before it enters a system call. It is killed then.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A process that runs no further than to its next stop.
#[derive(Debug)]
pub(crate) struct Held(Pid);

impl Held {
    /// Holds `process`. It may be stopped by a signal, wait in the kernel, and have threads.
    pub(crate) fn new(process: Pid) -> io::Result<Self> {
        ptrace::seize(process, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)?;
        ptrace::interrupt(process)?;
        Ok(Self(process))
    }

    /// Makes the process exit with `code`.
    pub(crate) fn exit_with(self, code: u8) -> io::Result<()> {
        let Self(process) = self;
        let until = Instant::now() + PATIENCE;
        loop {
            match stop_of(process, until)? {
                WaitStatus::PtraceSyscall(_) => break,
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Ok(()),
                // The stop that was asked for, or the job's own signals, which it does not get any more.
                _ => ptrace::syscall(process, None)?,
            }
        }
        let mut registers = ptrace::getregs(process)?;
        registers.orig_rax = EXIT_GROUP;
        registers.rdi = code.into();
        ptrace::setregs(process, registers)?;
        ptrace::cont(process, None)?;
        // Killed before it runs again, it would end by that.
        stop_of(process, until).map(drop)
    }
}

/// The number of `exit_group(2)` on x86-64.
const EXIT_GROUP: u64 = 231;

/// Waits for the next stop of a traced process.
fn stop_of(process: Pid, until: Instant) -> io::Result<WaitStatus> {
    loop {
        match waitpid(process, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(WaitStatus::StillAlive) => return Err(io::ErrorKind::TimedOut.into()),
            result => return Ok(result?),
        }
    }
}
