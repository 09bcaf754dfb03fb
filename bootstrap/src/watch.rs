//! Stopping a cold start when nobody wants it any more.
//!
//! SIGTERM, SIGINT and SIGHUP stop it, and so does the hang-up of standard input where the arguments are PySpark's
//! daemon or worker: `spark.stop()` closes that pipe and then waits. A script that is piped in shows a hang-up at once,
//! so nobody else's standard input is looked at; it is never read.
//!
//! Workers notice between two pieces. One that hangs in a read of a file system or store that does not answer never
//! does, so after a short grace the watching thread itself removes what was begun and ends the process. YARN sends
//! SIGKILL 250 ms after SIGTERM: what is not removed by then is left to a later clean-up.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cpack_artifact::exit::Exit;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// How long the workers have to end in order.
const GRACE: Duration = Duration::from_millis(120);

/// How often the reasons to stop are looked at, in milliseconds.
const INTERVAL: u16 = 20;

/// Whether somebody wants this start to end.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
    hung_up: Arc<AtomicBool>,
    done: Arc<AtomicBool>,
}

/// Ends the watching when it is dropped.
#[derive(Debug)]
pub struct Watching(Arc<AtomicBool>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stop {
    /// Starts to watch, for a process with these arguments.
    pub fn watch(arguments: &[OsString]) -> (Self, Watching) {
        let stop = Self::default();
        let hang_up_counts = is_pyspark(arguments);
        sys::catch_stop_signals();
        let watched = stop.clone();
        let spawned = std::thread::Builder::new().name("watch".into()).stack_size(64 << 10);
        // Without the thread a signal is noticed at the end, which is better than not to start.
        let _ = spawned.spawn(move || watched.run(hang_up_counts));
        let watching = Watching(Arc::clone(&stop.done));
        (stop, watching)
    }

    /// The flag that others look at.
    pub fn flag(&self) -> &AtomicBool {
        &self.stopped
    }

    /// Whether to stop.
    pub fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) || self.hung_up.load(Ordering::Relaxed) || sys::stop_signal().is_some()
    }

    /// The reason, for people.
    pub fn reason(&self) -> String {
        match sys::stop_signal() {
            Some(signal) => format!("signal {signal}"),
            None if self.hung_up.load(Ordering::Relaxed) => "the caller closed standard input".into(),
            None => "no reason".into(),
        }
    }

    fn run(&self, hang_up_counts: bool) {
        while !self.is_set() {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            if hang_up_counts {
                self.hung_up.store(is_hung_up(), Ordering::Relaxed);
            } else {
                std::thread::sleep(Duration::from_millis(INTERVAL.into()));
            }
        }
        self.stopped.store(true, Ordering::Relaxed);
        std::thread::sleep(GRACE);
        if !self.done.load(Ordering::Relaxed) {
            self.end();
        }
    }

    /// Ends the process although some of its threads do not.
    fn end(&self) {
        crate::cache::remove_own_staging();
        crate::say(&format!("cpack-boot: stopped before Python ran: {}", self.reason()));
        if let Some(signal) = sys::stop_signal() {
            sys::die_by(signal);
        }
        std::process::exit(Exit::Stopped.code().into());
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
    fn only_pyspark_s_own_processes_have_a_caller_that_hangs_up() {
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
