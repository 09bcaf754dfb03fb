//! A lazy start, on the side of the process that becomes Python.
//!
//! ```text
//! this process        its namespace          guard                 server
//! fork ───────────────────────────────────▶  fork ──────────────▶  manifest, directories, tree
//!      ◀──────────────────────────────────────────────────────────  "ready": cache, key
//! unshare ──────────▶ mount FUSE
//!      ── /dev/fuse ──────────────────────────────────────────────▶ greets the kernel
//!                                            ◀── /dev/fuse ─────
//!                                            ── "guarded" ──────▶
//!      ◀──────────────────────────────────────────────────────────  "served"
//! exec Python         reads files ◀───────────────────────────────▶ answers
//! ```
//!
//! Guard and server stay outside of the namespaces: the mount goes with the last process in there, and the server sees that and
//! ends. Both are no children of Python, and write nothing but errors.
//!
//! **The mount is not at the environment's own place.** That must stay free for the finished tree, which is renamed there without
//! replacing; and a process outside of the namespace would find an empty directory there. `served/<key>` is as stable a path.
//!
//! **Before anything is fetched** a child tries what the node must allow, all of it: whether it does is known in milliseconds. A
//! node that does not, or an environment that cannot be served, is started eagerly, and `CPACK_LOG` says why.

use std::io;
use std::path::{Path, PathBuf};

use cpack_fault::point;
use cpack_format::exit::Exit;
use cpack_format::job::Start;
use cpack_lazy::{enter_and_mount, send};
use cpack_node::cache::{Cache, Environment, lease_tree};
use cpack_node::timing::{Phase, Role, Timing};
use nix::errno::Errno;
use nix::sys::statfs::statfs;

use super::JobStart;
use super::guard::guard;
use super::server::{Greeting, served_message};
use crate::error::BootError;
use crate::message::say;
use crate::processes::{child, detached, hear, tell, wait};
use crate::watch::wait_unless_hung_up;

/// Why a start is not lazy, for people.
type Reason = String;

impl JobStart<'_> {
    /// Has the environment served by another process, in namespaces that this one enters. `None` if that is not wanted, or not
    /// possible: the start is eager then.
    pub(super) fn serve(&self, when: Start, timing: &mut Timing) -> Option<(Cache, String, Environment)> {
        let served = match when {
            Start::Eager => return None,
            _ if self.settings.writable => Err("a writable copy is wanted (CPACK_WRITABLE)".to_owned()),
            Start::Auto if self.job().trace.is_empty() => {
                Err("the job has no trace; cluster-pack upload --trace makes one".to_owned())
            }
            Start::Auto | Start::Lazy => self.try_serve(when, timing),
        };
        if let Err(reason) = &served {
            let wanted = match (&self.settings.record, when) {
                (Some(_), _) => "nothing can be recorded (CPACK_RECORD)",
                (None, Start::Auto) => "CPACK_START=auto is eager here",
                (None, _) => "CPACK_START=lazy is not possible here",
            };
            // Who records waits for a file.
            if self.settings.log || self.settings.record.is_some() {
                say(&format!("{wanted}, so the environment is built first: {reason}"));
            }
        }
        served.ok()
    }

    fn try_serve(&self, when: Start, timing: &mut Timing) -> Result<(Cache, String, Environment), Reason> {
        if std::process::id() == 1 {
            return Err("this is process 1, which would have to wait for the server".into());
        }
        probe()?;
        let job = nix::unistd::getpid();
        let server = detached(|socket| guard(self, when, socket, job))
            .map_err(|e| format!("no server could be started: {e}"))?;
        let gone = |e: io::Error| format!("the server ended: {e}");
        let hear_server = || {
            wait_unless_hung_up(&server, self.arguments);
            hear(&server).map_err(gone)
        };
        let Greeting { root, key } = Greeting::parse(&hear_server()?)?;
        point("lazy.greeted").map_err(gone)?;
        timing.mark(Phase::Plan);
        let found = self.node.caches().find(|cache| *cache.root() == *root);
        let cache = found.ok_or_else(|| format!("{} is gone", root.display()))?;
        let place = cache.served_place(&key).map_err(|e| format!("{}: {e}", root.display()))?;
        let device = enter_and_mount(&place).map_err(|refused| refused.to_string())?;
        point("lazy.mounted").map_err(gone)?;
        send(&server, device).map_err(gone)?;
        timing.counts.fetched = served_message::parse(&hear_server()?);
        point("lazy.served").map_err(gone)?;
        let lease = lease_tree(&place).ok_or_else(|| format!("{} cannot be read", place.display()))?;
        timing.role = Role::LazyStart;
        timing.mark(Phase::Link);
        let _ = self.served.set(place.clone());
        Ok((cache, key, Environment { path: place, lease }))
    }

    /// Why this start failed: `error`, or the end of the server, which makes everything fail that asks it.
    ///
    /// Mostly the guard has ended this process before. It has not if it was killed with the server.
    pub(super) fn or_unserved(&self, error: BootError) -> BootError {
        if error.exit() == Exit::Stopped {
            return error;
        }
        // Unlike attributes, the kernel remembers none of these figures: it asks the server.
        match self.served.get().map(PathBuf::as_path).map(statfs) {
            Some(Err(Errno::ENOTCONN | Errno::ECONNABORTED)) => BootError::Unserved,
            _ => error,
        }
    }
}

/// Tries in a child whether this node allows namespaces and a mount in them. `Err` says what it refuses.
pub(crate) fn probe() -> Result<(), Reason> {
    let failed = |e: io::Error| format!("no child could be started: {e}");
    let (child, answer) = child(|socket| {
        let message = enter_and_mount(Path::new("/")).err().map(|refused| refused.to_string());
        let _ = tell(&socket, message.unwrap_or_default().as_bytes());
        0
    })
    .map_err(failed)?;
    let answer = hear(&answer);
    wait(child);
    match answer.map_err(failed)?.as_slice() {
        [] => Ok(()),
        refused => Err(format!("this node refuses {}", String::from_utf8_lossy(refused))),
    }
}
