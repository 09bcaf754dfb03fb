//! A process beside this one: how it is started, and what the two say to each other.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::sys;

/// Longest message, in bytes.
const LONGEST: u64 = 64 << 10;

/// Runs `work` in a child, with the one end of a socket, and returns the child and the other end.
pub(crate) fn child(work: impl FnOnce(UnixStream) -> u8) -> io::Result<(Pid, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    match sys::fork()? {
        Some(child) => Ok((child, ours)),
        None => {
            drop(ours);
            end(work(theirs))
        }
    }
}

/// Runs `work` in a process that this one need not wait for: a child of its child, which ends at once.
pub(crate) fn detached(work: impl FnOnce(UnixStream) -> u8) -> io::Result<UnixStream> {
    let (child, socket) = child(|socket| match sys::fork() {
        Ok(None) => work(socket),
        Ok(Some(_)) | Err(_) => 0,
    })?;
    wait(child);
    Ok(socket)
}

/// Waits for a child that ends by itself.
pub(crate) fn wait(child: Pid) {
    while waitpid(child, None) == Err(Errno::EINTR) {}
}

/// Which of the standard streams a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    None,
    Error,
}

/// Closes all descriptors of this process but `kept` and those of `streams`: its parent's pipes would stay open.
pub(crate) fn leave_descriptors(kept: &[RawFd], streams: Streams) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && !kept.contains(number)) {
        // The one by which they were listed is closed already.
        let _ = nix::unistd::close(number);
    }
    if let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&nothing);
        let _ = nix::unistd::dup2_stdout(&nothing);
        if streams == Streams::None {
            let _ = nix::unistd::dup2_stderr(&nothing);
        }
    }
}

/// Ends this process without what its parent would do at its end.
#[expect(clippy::exit, reason = "a forked process has no caller to return to")]
pub(crate) fn end(code: u8) -> ! {
    std::process::exit(code.into())
}

/// Sends a message.
pub(crate) fn tell(mut socket: &UnixStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    socket.write_all(&[&length.to_le_bytes(), message].concat())
}

/// How long another process may stand still. A debugger that looks at it is done by then.
const STOPPED: Duration = Duration::from_secs(1);

/// Milliseconds between two looks at a process that has not said anything yet.
const INTERVAL: u16 = 500;

/// Waits until `process`, which has the other end of `socket`, says something or ends. False if it stays stopped instead.
pub(crate) fn is_heard(process: Pid, socket: &UnixStream) -> bool {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    while matches!(poll(&mut sockets, PollTimeout::from(INTERVAL)), Ok(0) | Err(Errno::EINTR)) {
        if stays_stopped(process) {
            return false;
        }
    }
    true
}

/// Whether a process is stopped now and a second later.
pub(crate) fn stays_stopped(process: Pid) -> bool {
    is_stopped(process) && {
        std::thread::sleep(STOPPED);
        is_stopped(process)
    }
}

fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Waits for a message. Fails if the other process ends first.
pub(crate) fn hear(mut socket: &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u64::from(u32::from_le_bytes(length)).min(LONGEST);
    let mut message = Vec::new();
    socket.take(length).read_to_end(&mut message)?;
    Ok(message)
}
