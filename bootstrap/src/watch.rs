//! Stops a cold start whose caller has given up.
//!
//! SIGTERM, SIGINT and SIGHUP stop it, and so does the hang-up of standard input if the arguments are PySpark's daemon or
//! worker: `spark.stop()` closes that pipe and then waits. A script that is piped in shows a hang-up at once, so standard
//! input is polled for PySpark alone; it is never read.
//!
//! Workers check the request ([`Stop`]) between two pieces. A worker that hangs in a read of a file system or store checks
//! nothing, so after a short grace the watching thread itself removes the staging directories and ends the process. YARN
//! sends SIGKILL 250 ms after SIGTERM: a later clean-up removes what is left then.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpack_format::exit::Exit;
use cpack_node::cache::remove_own_staging;
use cpack_node::stop::Stop;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::message::say;
use crate::sys;

/// How long the workers have to end by themselves.
const GRACE: Duration = Duration::from_millis(120);

/// Milliseconds between two checks for a signal or a hang-up.
const INTERVAL: u16 = 20;

/// Ends the watching when it is dropped.
#[derive(Debug)]
pub(crate) struct Watching(Arc<AtomicBool>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the watching thread of a process with these arguments.
pub(crate) fn watch(arguments: &[OsString]) -> (Stop, Watching) {
    let stop = Stop::default();
    let watching = Watching(Arc::default());
    let watcher = Watcher { stop: stop.clone(), done: Arc::clone(&watching.0), hang_up_counts: is_pyspark(arguments) };
    sys::catch_stop_signals();
    let spawned = std::thread::Builder::new().name("watch".into()).stack_size(64 << 10);
    // Without the thread a signal is noticed just before `exec`.
    let _ = spawned.spawn(move || watcher.run());
    (stop, watching)
}

struct Watcher {
    stop: Stop,
    done: Arc<AtomicBool>,
    hang_up_counts: bool,
}

impl Watcher {
    fn run(&self) {
        let reason = loop {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            if let Some(signal) = sys::stop_signal() {
                break format!("signal {signal}");
            }
            if !self.hang_up_counts {
                std::thread::sleep(Duration::from_millis(INTERVAL.into()));
            } else if is_hung_up() {
                break HUNG_UP.to_owned();
            }
        };
        self.stop.set(reason);
        std::thread::sleep(GRACE);
        if !self.done.load(Ordering::Relaxed) {
            self.end();
        }
    }

    /// Ends the process although some of its threads hang.
    fn end(&self) {
        remove_own_staging();
        if let Some(signal) = sys::stop_signal() {
            say(&stopped(&self.stop.reason()));
            sys::die_by(signal);
        }
        leave(&self.stop.reason());
    }
}

const HUNG_UP: &str = "the caller closed standard input";

fn stopped(reason: &str) -> String {
    format!("stopped before Python ran: {reason}")
}

#[expect(clippy::exit, reason = "the caller is gone, and other threads of this process may hang")]
fn leave(reason: &str) -> ! {
    say(&stopped(reason));
    std::process::exit(Exit::Stopped.code().into());
}

/// Waits until the server of a lazy start says something or ends, and ends this process if PySpark hangs up meanwhile. A process
/// that enters a namespace may have no watching thread.
pub(crate) fn wait_unless_hung_up(server: &UnixStream, arguments: &[OsString]) {
    if !is_pyspark(arguments) {
        return;
    }
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(server.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::empty())];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let [said, hung_up] = fds.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    if said.is_empty() && hung_up.contains(PollFlags::POLLHUP) {
        leave(HUNG_UP);
    }
}

/// Whether the arguments start PySpark's daemon or worker: `-m pyspark.daemon`, `-m pyspark.worker`, and the modules
/// that Spark 4 adds beside them.
fn is_pyspark(arguments: &[OsString]) -> bool {
    let module = arguments.windows(2).find(|pair| pair[0] == "-m").map(|pair| pair[1].to_string_lossy());
    module.is_some_and(|m| m.starts_with("pyspark.") && (m.ends_with("daemon") || m.ends_with("worker")))
}

/// Waits a moment for the other end of standard input to go away.
fn is_hung_up() -> bool {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::empty())];
    let ready = poll(&mut fds, PollTimeout::from(INTERVAL));
    ready.is_ok_and(|n| n > 0) && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hang_up_counts_only_for_pyspark_s_own_processes() {
        for (arguments, watched) in [
            (&["-m", "pyspark.daemon"][..], true),
            (&["-m", "pyspark.worker"], true),
            (&["-m", "pyspark.daemon", "pyspark.worker"], true),
            (&["-u", "-m", "pyspark.sql.worker.plan_data_source_read_worker"], true),
            (&["-m", "pyspark.sql.connect.streaming.worker"], true),
            (&["-m", "mymodule"], false),
            (&["pyspark.daemon"], false),
            (&["-"], false),
            (&[], false),
        ] {
            let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
            assert_eq!(is_pyspark(&arguments), watched, "{arguments:?}");
        }
    }
}
