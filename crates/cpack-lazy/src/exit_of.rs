//! Makes another process exit with a chosen code.
//!
//! A signal cannot do that, and the exit code is all that many callers see. So the process is traced until it enters its next
//! system call, which is made to be `exit_group`. The process that traces owns the user namespace of the other one, so it may
//! do that whatever Yama says (`ptrace_scope`), unless a filter of system calls forbids it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long the process may compute before it enters a system call. It is killed then.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1500);

/// A process that runs no further than to its next stop, until this is dropped. Then it is killed.
///
/// Only the thread that began may trace. It is left behind if the kernel lets it wait.
#[derive(Debug)]
pub(crate) struct Held {
    code: Sender<u8>,
    ended: Receiver<()>,
}

impl Held {
    /// Holds `process`. It may be stopped by a signal, wait in the kernel, and have threads. `None` if that is not allowed, or not
    /// done in time: the process is in the middle of `execve` then.
    pub(crate) fn new(process: Pid, patience: Duration) -> Option<Self> {
        let ((held, is_held), (code, asked), (end, ended)) = (channel(), channel(), channel());
        let given_up = Arc::new(AtomicBool::new(false));
        let is_late = Arc::clone(&given_up);
        let trace = move || {
            // Later the process may be gone, and its number another's.
            if is_late.load(Ordering::SeqCst) {
                return;
            }
            let began = ptrace::seize(process, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL)
                .and_then(|()| ptrace::interrupt(process));
            if held.send(began.is_ok()).is_ok()
                && let Ok(code) = asked.recv()
            {
                let _ = exit_with(process, code);
            }
            let _ = end.send(());
        };
        thread::Builder::new().spawn(trace).ok()?;
        let is_held = is_held.recv_timeout(patience);
        given_up.store(is_held.is_err(), Ordering::SeqCst);
        is_held.is_ok_and(|held| held).then_some(Self { code, ended })
    }

    /// Makes the process exit with `code`, if it can be done. It has ended, or is about to.
    pub(crate) fn exit_with(self, code: u8) {
        let _ = self.code.send(code);
        let _ = self.ended.recv();
    }
}

/// Makes a process that this thread traces exit with `code`.
fn exit_with(process: Pid, code: u8) -> io::Result<()> {
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

#[cfg(test)]
mod lazy {
    use std::ffi::CString;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;
    use std::{fs, process};

    use cpack_test::process::wait_until;
    use nix::unistd::{ForkResult, execv, fork, pause};

    use super::*;
    use crate::{enter_and_mount, receive, send};

    /// A child that does `work` and exits with the code that this gives.
    #[expect(clippy::exit, reason = "the child has no caller to return to")]
    #[expect(unsafe_code, reason = "the child makes system calls, as a fork of a process with threads may")]
    fn child(work: impl FnOnce() -> i32) -> Pid {
        // SAFETY: the child allocates a few bytes at most; it is one thread, and ends here.
        match unsafe { fork() }.expect("forks") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => process::exit(work()),
        }
    }

    /// How a child ends, whatever stops its tracer sees meanwhile.
    fn end_of(child: Pid) -> WaitStatus {
        loop {
            let seen = waitpid(child, None).expect("a child");
            if matches!(seen, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                return seen;
            }
        }
    }

    #[test]
    fn held_process_exits_with_the_code() {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        // Its parent sees how it ends, so that parent is another process than this one, which traces.
        let parent = child(|| {
            let sleeper = child(|| {
                pause();
                7
            });
            let _ = std::io::Write::write_all(&mut theirs, &sleeper.as_raw().to_ne_bytes());
            match end_of(sleeper) {
                WaitStatus::Exited(_, code) => code,
                _ => 8,
            }
        });
        drop(theirs);
        let mut pid = [0; 4];
        std::io::Read::read_exact(&mut ours, &mut pid).expect("a process");
        let held = Held::new(Pid::from_raw(i32::from_ne_bytes(pid)), Duration::from_secs(60)).expect("holds it");
        held.exit_with(89);
        assert_eq!(end_of(parent), WaitStatus::Exited(parent, 89));
    }

    #[test]
    fn process_that_waits_in_execve_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let place = tempfile::tempdir().expect("a directory");
        let mount = place.path().join("mount");
        fs::create_dir(&mount).expect("creates");
        let script = place.path().join("script");
        fs::write(&script, format!("#!{}/python\n", mount.display())).expect("writes");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("sets the mode");
        let program = CString::new(script.into_os_string().into_encoded_bytes()).expect("a path");
        let waits = child(|| {
            let mounted = enter_and_mount(&mount).map_err(std::io::Error::other);
            match mounted.and_then(|device| send(&theirs, device)) {
                Ok(()) => execv(&program, &[&program]).map_or(7, |never| match never {}),
                Err(_) => 8,
            }
        });
        drop(theirs);
        // Nothing answers what the kernel asks of it.
        let device = receive(&ours).expect("a device");
        wait_until("the process waits for the file system", || {
            fs::read_to_string(format!("/proc/{waits}/stat")).is_ok_and(|stat| stat.contains(") D "))
        });
        assert!(Held::new(waits, Duration::from_millis(100)).is_none());
        drop(device);
        // Its `execve` failed, or the thread that was left behind traces it by now, and has ended.
        assert!(matches!(end_of(waits), WaitStatus::Exited(_, 7) | WaitStatus::Signaled(..)));
    }
}
