//! A lazy start, on the side of the process that serves the environment.
//!
//! It uses neither standard input nor output, and ignores the signals that end a job: Python may still have to clean up, by
//! modules that it did not read yet. It ends with the mount.
//!
//! Guard and server watch each other, the one by waiting for its child, the other by a socket that is closed when its peer ends.
//! If one is killed, the other ends the job. If both are killed at once, the witness does ([`super::guard`]).

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use cpack_fault::point;
use cpack_format::exit::Exit;
use cpack_format::job::Start;
use cpack_format::manifest::Layer;
use cpack_format::message::with_causes;
use cpack_lazy::{Demand, Fetched, JobProcesses, Manner, Served, Session, receive, send};
use cpack_node::building::{TreeInputs, in_order};
use cpack_node::cache::Cache;
use cpack_node::timing::{Role, Timing};
use cpack_store::Store;
use nix::unistd::{Pid, getppid};

use super::{JobStart, trace};
use crate::error::BootError;
use crate::message::say;
use crate::processes::{Streams, hear, is_heard, leave_descriptors, tell};
use crate::settings::Fill;
use crate::sys;

/// Threads that answer: some wait for the network while others answer what is there.
const ANSWERING: usize = 8;

/// Guard or server tells the witness that there is nothing to watch.
pub(super) const DONE: &[u8] = b"done";

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

    /// Parses what the server told. The error is its own: why it cannot serve.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let ready = bytes.strip_prefix(b"ready\0").and_then(|rest| {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let key = String::from_utf8(rest.get(..end)?.to_vec()).ok()?;
            Some(Self { root: PathBuf::from(OsStr::from_bytes(rest.get(end + 1..)?)), key })
        });
        ready.ok_or_else(|| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// What the server says once it answers: how many bytes it fetched until then.
pub(super) mod served_message {
    pub(super) fn to_bytes(fetched: u64) -> Vec<u8> {
        format!("served {fetched}").into_bytes()
    }

    /// The bytes; 0 if the message has none.
    pub(in super::super) fn parse(bytes: &[u8]) -> u64 {
        let text = String::from_utf8_lossy(bytes);
        text.strip_prefix("served ").and_then(|fetched| fetched.parse().ok()).unwrap_or(0)
    }
}

/// The server's whole life: it tells the process `job` what it can serve, gets `/dev/fuse` from it, shares that with the guard, and
/// answers. `witness` is the guard's end of its socket, whose last end the witness sees.
pub(super) fn server(
    start: &JobStart<'_>,
    when: Start,
    job: Pid,
    [to_job, guard, witness]: [&UnixStream; 3],
    demand: &'static Demand,
) -> u8 {
    sys::take_name(c"cpack-server");
    cpack_events::forked("cpack-server");
    leave_descriptors(&[to_job, guard, witness].map(|socket| socket.as_raw_fd()), Streams::Error);
    sys::keep_no_freed_memory();
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("internal fault: {panic}; please report it"));
        // The guard ends the job. A thread that is gone would leave a program waiting.
        std::process::abort();
    }));
    let mut timing = Timing::start();
    timing.role = Role::Server;
    let prepared = Prepared::new(start, when).and_then(|prepared| Ok((prepared.open(start, demand)?, prepared)));
    let (served, Prepared { cache, inputs, .. }) = match prepared {
        Ok(ready) => ready,
        Err(reason) => {
            let _ = tell(to_job, reason.as_bytes());
            return 0;
        }
    };
    let served = Arc::new(served);
    served.work_behind();
    let greeting = Greeting { root: cache.root().into(), key: inputs.key.into() };
    // If it goes wrong the job's process sees the socket close, and starts eagerly.
    let begun = begin(&served, &greeting, job, to_job, guard);
    let Ok(ended) = begun.map(Session::run) else {
        let _ = tell(witness, DONE);
        served.close();
        return 0;
    };
    let _ = point("server.ended");
    // The mount is gone as soon as the job is, and what is to be said then may be said still.
    drop(ENDING.lock());
    served.close();
    cache.remove_unused_pieces();
    let Fetched { all, ahead } = served.fetched();
    (timing.counts.fetched, timing.counts.ahead) = (all, ahead);
    // A trace that cannot be written harms no job.
    let _ = cpack_events::write();
    start.note(&timing, if ended.is_ok() { "served" } else { "failed" });
    match ended {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("the environment cannot be served any longer: {error}"));
            Exit::Internal.code()
        }
    }
}

/// Has the job's process mount the file system, and shares it with the guard.
fn begin(
    served: &Arc<Served>,
    greeting: &Greeting,
    job: Pid,
    to_job: &UnixStream,
    guard: &UnixStream,
) -> io::Result<Session> {
    point("server.listed")?;
    tell(to_job, &greeting.to_bytes())?;
    let device = receive(to_job)?;
    point("server.device")?;
    let (for_guard, for_job) = (device.try_clone()?, device.try_clone()?);
    let session = Session::start(Arc::clone(served), device, ANSWERING)?;
    send(guard, for_guard)?;
    if !is_heard(getppid(), guard) {
        return Err(io::Error::other("the guard stands still"));
    }
    hear(guard)?;
    point("server.guarded")?;
    let (processes, guard) = (JobProcesses::with(job)?, guard.try_clone()?);
    thread::spawn(move || watch(&guard, processes, for_job));
    tell(to_job, &served_message::to_bytes(served.fetched().all))?;
    // Python needs the server from here on.
    let _ = point("server.served");
    Ok(session)
}

/// Held while the job is ended and the reason said.
static ENDING: Mutex<()> = Mutex::new(());

/// Waits until the guard is gone, which outlives the server unless it is killed. Then nothing would end the job if the server
/// died, so the job ends now. The mount goes with it, and the server ends as always.
fn watch(mut guard: &UnixStream, processes: JobProcesses, device: OwnedFd) {
    let mut byte = [0];
    while guard.read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
    let _ending = ENDING.lock();
    let code = Exit::Internal.code();
    if processes.end(code, || drop(device)) {
        say(&format!(
            "the guard of this environment's server was ended: the processes that read from it were ended, with code {code}"
        ));
    }
}

/// What the server works with, until the end of its process.
struct Prepared {
    store: &'static dyn Store,
    cache: &'static Cache,
    inputs: TreeInputs<'static>,
}

impl Prepared {
    /// Reads the manifest and chooses interpreter and cache. The error is the reason for an eager start.
    fn new(start: &JobStart<'_>, when: Start) -> Result<Self, String> {
        let failed = |error: BootError| with_causes(&error);
        let store: &'static dyn Store = Box::leak(start.open_store().map_err(failed)?);
        let plan = Box::leak(Box::new(start.plan(store).map_err(failed)?));
        // The warm path does not find an interpreter behind a shim: it was asked only now.
        if start.settings.record.is_none() && start.node.look_by(|cache| start.key_in(&plan.key, cache)).is_some() {
            return Err("the environment is there".into());
        }
        let wanted = in_order(plan.manifest.layers.iter().chain(&start.job().overlays));
        let cache = start.node.attempts(&wanted).next_cache(&mut Timing::start());
        let cache: &'static Cache = Box::leak(Box::new(cache.map_err(|error| with_causes(&error))?));
        if when == Start::Auto {
            let is_there = |layer: &Layer| cache.lease_layer(layer).is_some();
            trace::pays(&plan.manifest.layers, &start.job().trace, is_there)?;
        }
        let key: &'static str = start.key_in(&plan.key, cache).leak();
        Ok(Self { store, cache, inputs: plan.inputs(key, &[]) })
    }

    /// Lists what is served.
    fn open(&self, start: &JobStart<'_>, demand: &'static Demand) -> Result<Served, String> {
        let settings = start.settings;
        let record = settings.record.as_deref().map(trace::recorder).transpose()?;
        let manner = Manner {
            threads: settings.threads(),
            report: Box::new(|line: &str| say(line)),
            trace: &start.job().trace,
            record,
            patience: settings.stall_timeout,
            demand,
            shares: settings.fill != Fill::Off,
        };
        Served::open(self.cache, &self.inputs, self.store, manner).map_err(|error| with_causes(&error))
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
        assert_eq!(served_message::parse(&served_message::to_bytes(77)), 77);
        assert_eq!(served_message::parse(b"served"), 0);
    }
}
