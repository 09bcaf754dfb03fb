//! A lazy start, on the side of the guard: the process that watches the server, and has the node cache filled.
//!
//! If the server ends or is stopped while the job needs it, programs would get `ENOTCONN`, which looks like a missing module, or
//! wait for ever. The guard ends the job's processes, which are those in the mount namespace, and says why. It keeps `/dev/fuse`
//! open until it has stopped them: until then they wait. The server ends with code 0 only after the mount is gone. The server
//! does the same if the guard is killed ([`super::server`]), and a third process, the witness, if both are killed at once: it
//! waits for the end of a socket whose other end only they have, and has `/dev/fuse` open, too. It does nothing else.
//!
//! **Filling** ([`Fill`]) is an eager start that ends where Python would run, in a process of its own: it claims and shares layers
//! as all eager starts do, and what goes wrong there harms no job. As soon as a layer is there, servers read from it.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use cpack_fault::point;
use cpack_format::exit::Exit;
use cpack_format::job::Start;
use cpack_lazy::{Demand, JobProcesses, receive, send};
use cpack_node::timing::{Role, Timing};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::JobStart;
use super::server::{DONE, server};
use crate::message::say;
use crate::processes::{Streams, child, hear, is_heard, leave_descriptors, stays_stopped, tell};
use crate::settings::Fill;
use crate::sys;

/// The guard tells the witness that the job's processes are stopped: what waits for the server may go on.
const STOPPED_JOB: &[u8] = b"stopped";

/// The guard's whole life: it starts the server for the process `job`, and watches it.
///
/// Only the server keeps `socket`, which leads to the job's process: whichever of the two ends early, that one notices.
pub(super) fn guard(start: &JobStart<'_>, when: Start, socket: UnixStream, job: Pid) -> u8 {
    sys::ignore_job_signals();
    sys::expect_children();
    sys::take_name(c"cpack-guard");
    leave_descriptors(&[socket.as_raw_fd()], Streams::Error);
    let code = Exit::Internal.code();
    // The server inherits this end of the socket, too.
    let Ok((witness_pid, witness)) = child(|both| self::witness(&both, job)) else { return code };
    if point("guard.witnessed").is_err() {
        return code;
    }
    let to_witness = &witness;
    let Ok(demand) = Demand::shared() else { return code };
    let Ok((server, from_server)) =
        child(move |to_guard| server(start, when, job, [&socket, &to_guard, to_witness], demand))
    else {
        return code;
    };
    if !is_heard(server, &from_server) {
        // The job's process, which waits for it too, starts eagerly then.
        let _ = kill(server, Signal::SIGKILL);
    }
    // If there is none, the server has told the job's process why.
    let Ok(device) = receive(&from_server) else { return 0 };
    let processes = JobProcesses::with(job);
    // The witness may ask for the job's namespaces until Python is executed, not later: the kernel would let it wait for the server,
    // and the server's end would have to wait for it. If it has ended, guard and server still watch each other.
    let sent = send(&witness, &device).and_then(|()| point("guard.device"));
    if sent.is_ok() && is_heard(witness_pid, &witness) {
        let _ = hear(&witness);
    } else {
        let _ = kill(witness_pid, Signal::SIGKILL);
    }
    if tell(&from_server, b"guarded").and_then(|()| point("guard.guarded")).is_err() {
        // The job starts eagerly, and needs neither.
        let _ = tell(&witness, DONE);
        return 0;
    }
    let filler =
        if start.settings.fill == Fill::Off { None } else { child(|socket| fill(start, &socket, demand)).ok() };
    let ended = watch(server);
    let _ = point("guard.ended");
    if let (Some((filler, _)), Fill::Idle) = (filler, start.settings.fill) {
        let _ = kill(filler, Signal::SIGTERM);
    }
    let let_go = || {
        let _ = tell(&witness, STOPPED_JOB);
        drop(device);
    };
    let ended_job = ended.is_some() && processes.is_ok_and(|processes| processes.end(code, let_go));
    let _ = tell(&witness, DONE);
    if let (Some(ended), true) = (&ended, ended_job) {
        say(&format!(
            "the server of this environment {ended}: the processes that read from it were ended, with code {code}"
        ));
    }
    ended.map_or(0, |_| code)
}

/// The witness's whole life: it ends the job if guard and server, the only ones with the other end of the socket, are both gone.
fn witness(both: &UnixStream, job: Pid) -> u8 {
    sys::take_name(c"cpack-witness");
    leave_descriptors(&[both.as_raw_fd()], Streams::Error);
    let Ok(device) = receive(both).and_then(|device| point("witness.device").map(|()| device)) else { return 0 };
    let Ok(processes) = JobProcesses::with(job) else { return 0 };
    let _ = tell(both, b"watching");
    let mut device = Some(device);
    while let Ok(message) = hear(both) {
        match message.as_slice() {
            STOPPED_JOB => device = None,
            _ => return 0,
        }
    }
    let code = Exit::Internal.code();
    if processes.end(code, || drop(device)) {
        say(&format!(
            "server and guard of this environment were ended: the processes that read from it were ended, with code {code}"
        ));
    }
    0
}

/// Waits until the server ends. How it did; `None` if its work was done.
fn watch(server: Pid) -> Option<String> {
    loop {
        match waitpid(server, Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, 0)) => return None,
            Ok(WaitStatus::Exited(_, code)) => return Some(format!("ended with code {code}")),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(format!("was ended by {signal}")),
            Ok(WaitStatus::Stopped(_, _)) => {
                if stays_stopped(server) {
                    let _ = kill(server, Signal::SIGKILL);
                    return Some("was stopped".into());
                }
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Some(format!("cannot be waited for: {errno}")),
        }
    }
}

/// The filler's whole life. What fails is left to a later start: the job has what it needs.
fn fill(start: &JobStart<'_>, socket: &UnixStream, demand: &'static Demand) -> u8 {
    // Its messages are not about the job, and the caller may wait for the end of standard error.
    leave_descriptors(&[socket.as_raw_fd()], Streams::None);
    sys::take_name(c"cpack-filler");
    cpack_events::forked("cpack-filler");
    // As in every cold start: the watching thread stops the work.
    sys::obey_termination();
    if start.settings.fill == Fill::Idle {
        sys::be_idle();
        // It is of no use once the guard is killed, which takes the job along.
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    }
    let mut timing = Timing::start();
    timing.role = Role::Filler;
    let materials = match start.settings.fill {
        Fill::Idle => start.materials_behind(demand),
        _ => start.materials(),
    };
    let built = materials.and_then(|materials| start.build_from(&materials, &mut timing));
    let _ = cpack_events::write();
    let outcome = built.as_ref().map_or_else(|error| format!("{:?}", error.exit()), |_| "built".into());
    start.note(&timing, &outcome);
    built.map_or_else(|error| error.exit().code(), |_| 0)
}
