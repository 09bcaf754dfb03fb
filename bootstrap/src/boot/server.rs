//! A lazy start, on the side of the processes that serve the environment: the server, and the guard that watches it.
//!
//! **The guard** is the server's parent. If the server ends or is stopped while the job needs it, programs would get `ENOTCONN` or
//! wait for ever; before that can look like a missing module the guard ends the job's processes, which are those in the mount
//! namespace, and says why. The server ends by itself, with code 0, only after the mount is gone.
//!
//! **The server** uses neither standard input nor output, and ignores the signals that end a job: Python may still have to clean
//! up, from modules that it did not read yet. While it serves it fills: it builds the environment in the node cache as an eager
//! start would, with the same claims ([`Fill`]). As soon as a layer is there, the server reads from it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cpack_format::exit::Exit;
use cpack_format::message::with_causes;
use cpack_lazy::{JobProcesses, LazyError, Served, Session, receive};
use cpack_node::building::{TreeInputs, ensure_tree, in_order};
use cpack_node::cache::{Cache, remove_own_staging};
use cpack_node::stop::Stop;
use cpack_node::timing::Timing;
use cpack_store::Store;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::JobStart;
use crate::error::BootError;
use crate::message::say;
use crate::processes::{child, end, hear, tell};
use crate::settings::{Fill, Settings};
use crate::sys;

/// How long a stopped server may stay stopped. A debugger that looks at it is done by then.
const STOPPED: Duration = Duration::from_secs(1);

/// How long the filling has to end after the job.
const GRACE: Duration = Duration::from_secs(1);

/// Threads that answer: some wait for the network while others answer what is there.
const ANSWERING: usize = 8;

/// Where the environment is served, as the server tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// The cache.
    pub(super) root: PathBuf,
    /// The environment's name there.
    pub(super) key: String,
}

impl Greeting {
    fn to_bytes(&self) -> Vec<u8> {
        [b"ready\0", self.key.as_bytes(), b"\0", self.root.as_os_str().as_bytes()].concat()
    }

    /// Parses what the server told. The error is its own.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let ready = bytes.strip_prefix(b"ready\0").and_then(|rest| {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let key = String::from_utf8(rest.get(..end)?.to_vec()).ok()?;
            Some(Self { root: PathBuf::from(OsStr::from_bytes(rest.get(end + 1..)?)), key })
        });
        ready.ok_or_else(|| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// The guard's whole life: it starts the server for the process `job`, tells that process when it serves, and watches it.
pub(super) fn guard(start: &JobStart<'_>, socket: &UnixStream, job: Pid) -> u8 {
    sys::ignore_job_signals();
    sys::expect_children();
    leave_descriptors(&[socket.as_raw_fd()]);
    let started = child(|to_guard| {
        leave_descriptors(&[socket.as_raw_fd(), to_guard.as_raw_fd()]);
        server(start, socket, &to_guard)
    });
    let Ok((server, from_server)) = started else { return Exit::Internal.code() };
    if hear(&from_server).is_err() {
        // It has told the job's process why.
        return 0;
    }
    let processes = JobProcesses::with(job);
    if tell(socket, b"guarded").is_err() {
        return 0;
    }
    let Some(ended) = watch(server) else { return 0 };
    let code = Exit::Internal.code();
    if processes.is_ok_and(|processes| processes.end(code)) {
        say(&format!(
            "the server of this environment {ended}: the processes that read from it were ended, with code {code}"
        ));
    }
    code
}

/// Waits until the server ends. How it did; `None` if its work was done.
fn watch(server: Pid) -> Option<String> {
    loop {
        match waitpid(server, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, 0)) => return None,
            Ok(WaitStatus::Exited(_, code)) => return Some(format!("ended with code {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(format!("was ended by {signal}")),
            Ok(WaitStatus::Stopped(_, _)) => {
                std::thread::sleep(STOPPED);
                if is_stopped(server) {
                    let _ = kill(server, Signal::SIGKILL);
                    return Some("was stopped".into());
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Some(format!("cannot be waited for: {errno}")),
        }
    }
}

fn is_stopped(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// Closes what this process got from the job's but needs not: pipes of the caller would stay open. Keeps standard error.
fn leave_descriptors(kept: &[RawFd]) {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && !kept.contains(number)) {
        // The one by which they were listed is closed already.
        let _ = nix::unistd::close(number);
    }
    if let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") {
        let _ = nix::unistd::dup2_stdin(&nothing);
        let _ = nix::unistd::dup2_stdout(&nothing);
    }
}

/// The server's whole life.
fn server(start: &JobStart<'_>, socket: &UnixStream, guard: &UnixStream) -> u8 {
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("internal fault: {panic}; please report it"));
        // The guard ends the job. A thread that is gone would leave a program waiting.
        std::process::abort();
    }));
    let prepared = Prepared::new(start).and_then(|prepared| Ok((prepared.open(start.settings)?, prepared)));
    let (served, prepared) = match prepared {
        Ok(ready) => ready,
        Err(reason) => {
            let _ = tell(socket, reason.as_bytes());
            return 0;
        }
    };
    let greeting = Greeting { root: prepared.cache.root().into(), key: prepared.inputs.key.into() };
    let begun = tell(socket, &greeting.to_bytes())
        .and_then(|()| receive(socket))
        .and_then(|device| Session::start(served, device, ANSWERING))
        .and_then(|session| tell(guard, b"serving").map(|()| session));
    // Without this the job's process would wait for one of the two to end.
    let Ok(session) = begun else { return 0 };
    serve(start, session, &prepared)
}

/// Answers until the mount is gone, and fills meanwhile.
fn serve(start: &JobStart<'_>, session: Session, prepared: &Prepared) -> u8 {
    let (stop, filled) = (Stop::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        if start.settings.fill != Fill::Off {
            scope.spawn(|| {
                prepared.fill(start, &stop);
                filled.store(true, Ordering::Release);
            });
        } else {
            filled.store(true, Ordering::Release);
        }
        if let Err(error) = session.run() {
            say(&format!("the environment cannot be served any longer: {error}"));
            end(Exit::Internal.code());
        }
        if start.settings.fill == Fill::Full {
            // The caller may wait for the end of standard error.
            let _ = File::options().write(true).open("/dev/null").map(|nothing| nix::unistd::dup2_stderr(&nothing));
            return;
        }
        stop.set("the job ended".into());
        let since = Instant::now();
        while !filled.load(Ordering::Acquire) && since.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(10));
        }
        if !filled.load(Ordering::Acquire) {
            remove_own_staging();
            end(0);
        }
    });
    0
}

/// What the server works with, until the end of its process.
struct Prepared {
    store: &'static dyn Store,
    cache: &'static Cache,
    inputs: TreeInputs<'static>,
}

impl Prepared {
    /// Reads the manifest and chooses interpreter and cache. The error is the reason for an eager start.
    fn new(start: &JobStart<'_>) -> Result<Self, String> {
        let failed = |error: BootError| with_causes(&error);
        let store: &'static dyn Store = Box::leak(start.open_store().map_err(failed)?);
        let plan = Box::leak(Box::new(start.plan(store).map_err(failed)?));
        if start.node.look_by(|cache| start.key_in(&plan.key, cache)).is_some() {
            return Err("the environment is there".into());
        }
        let wanted = in_order(plan.manifest.layers.iter().chain(&start.job().overlays));
        let cache = start.node.attempts(&wanted).next_cache(&mut Timing::start());
        let cache: &'static Cache = Box::leak(Box::new(cache.map_err(|error| with_causes(&error))?));
        let key: &'static str = start.key_in(&plan.key, cache).leak();
        let overlays = start.job().overlays.clone().leak();
        Ok(Self { store, cache, inputs: plan.inputs(key, overlays) })
    }

    /// Lists what is served.
    fn open(&self, settings: &Settings) -> Result<Served, String> {
        let report = Box::new(|line: &str| say(line));
        let served = Served::open(self.cache, &self.inputs, self.store, settings.threads(), report);
        served.map_err(|error: LazyError| with_causes(&error))
    }

    /// Builds the environment in the node cache. What fails is left to a later start: this one has what it needs.
    fn fill(&self, start: &JobStart<'_>, stop: &Stop) {
        if start.settings.fill == Fill::Idle {
            sys::be_idle();
        }
        let means = start.settings.means(self.store, stop);
        let mut timing = Timing::start();
        match ensure_tree(self.cache, &self.inputs, &means, &mut timing) {
            Ok((_, true)) => start.node.clean(self.cache, self.inputs.key, &mut timing),
            Ok((_, false)) => {}
            Err(error) if !stop.is_set() && start.settings.log => {
                say(&format!("the environment could not be built while it is served: {}", with_causes(&error)));
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greeting_is_read_as_it_was_told_and_anything_else_is_a_reason() {
        let greeting = Greeting { root: "/c/cpack-0".into(), key: "0a-b".into() };
        assert_eq!(Greeting::parse(&greeting.to_bytes()), Ok(greeting));
        assert_eq!(Greeting::parse(b"no store"), Err("no store".into()));
        assert_eq!(Greeting::parse(b"ready\0half"), Err("ready\0half".into()));
    }
}
