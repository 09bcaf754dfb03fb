//! A lazy start, on the side of the process that serves the environment.
//!
//! It uses neither standard input nor output, and ignores the signals that end a job: Python may still have to clean up, by
//! modules that it did not read yet. It ends with the mount.

use std::ffi::OsStr;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use cpack_format::exit::Exit;
use cpack_format::message::with_causes;
use cpack_lazy::{Served, Session, receive, send};
use cpack_node::building::{TreeInputs, in_order};
use cpack_node::cache::Cache;
use cpack_node::timing::Timing;
use cpack_store::Store;

use super::JobStart;
use crate::error::BootError;
use crate::message::say;
use crate::processes::{Streams, hear, leave_descriptors, tell};
use crate::settings::Settings;
use crate::sys;

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

/// The server's whole life: it tells the job's process what it can serve, gets `/dev/fuse` from it, shares that with the guard, and
/// answers.
pub(super) fn server(start: &JobStart<'_>, job: &UnixStream, guard: &UnixStream) -> u8 {
    leave_descriptors(&[job.as_raw_fd(), guard.as_raw_fd()], Streams::Error);
    sys::keep_no_freed_memory();
    std::panic::set_hook(Box::new(|panic| {
        say(&format!("internal fault: {panic}; please report it"));
        // The guard ends the job. A thread that is gone would leave a program waiting.
        std::process::abort();
    }));
    let prepared = Prepared::new(start).and_then(|prepared| Ok((prepared.open(start.settings)?, prepared)));
    let (served, Prepared { cache, inputs, .. }) = match prepared {
        Ok(ready) => ready,
        Err(reason) => {
            let _ = tell(job, reason.as_bytes());
            return 0;
        }
    };
    let greeting = Greeting { root: cache.root().into(), key: inputs.key.into() };
    let begun = tell(job, &greeting.to_bytes())
        .and_then(|()| receive(job))
        .and_then(|device| Ok((device.try_clone()?, Session::start(served, device, ANSWERING)?)))
        .and_then(|(device, session)| send(guard, device).map(|()| session))
        .and_then(|session| hear(guard).map(|_| session))
        .and_then(|session| tell(job, b"served").map(|()| session));
    // If it went wrong the job's process sees the socket close, and starts eagerly.
    let Ok(session) = begun else { return 0 };
    match session.run() {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("the environment cannot be served any longer: {error}"));
            Exit::Internal.code()
        }
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
    fn new(start: &JobStart<'_>) -> Result<Self, String> {
        let failed = |error: BootError| with_causes(&error);
        let store: &'static dyn Store = Box::leak(start.open_store().map_err(failed)?);
        let plan = Box::leak(Box::new(start.plan(store).map_err(failed)?));
        // The warm path does not find an interpreter behind a shim: it was asked only now.
        if start.node.look_by(|cache| start.key_in(&plan.key, cache)).is_some() {
            return Err("the environment is there".into());
        }
        let wanted = in_order(plan.manifest.layers.iter().chain(&start.job().overlays));
        let cache = start.node.attempts(&wanted).next_cache(&mut Timing::start());
        let cache: &'static Cache = Box::leak(Box::new(cache.map_err(|error| with_causes(&error))?));
        let key: &'static str = start.key_in(&plan.key, cache).leak();
        Ok(Self { store, cache, inputs: plan.inputs(key, &[]) })
    }

    /// Lists what is served.
    fn open(&self, settings: &Settings) -> Result<Served, String> {
        let report = Box::new(|line: &str| say(line));
        let served = Served::open(self.cache, &self.inputs, self.store, settings.threads(), report);
        served.map_err(|error| with_causes(&error))
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
