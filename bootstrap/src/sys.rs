//! The few libc calls that no safe wrapper offers, each behind a safe function.
//!
//! Rust's runtime changes the process before `main`: it ignores `SIGPIPE` and opens `/dev/null` on closed standard
//! descriptors. Python must get them as this process got them, so a function of `.init_array`, which runs before the
//! runtime, records how they were ([`at_start`]).

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How the process was started, as far as Rust's runtime changes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AtStart {
    pub(crate) sigpipe_ignored: bool,
    /// Which of the descriptors 0, 1 and 2 were closed.
    pub(crate) closed: [bool; 3],
}

const RECORDED_SIGPIPE: u32 = 1 << 8;

static RECORD: AtomicU32 = AtomicU32::new(0);

/// The signal that asked the process to stop, or 0.
static STOP_SIGNAL: AtomicI32 = AtomicI32::new(0);

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[expect(unsafe_code, reason = "only code that runs before Rust's runtime sees what the process was started with")]
static INIT: extern "C" fn() = {
    extern "C" fn record() {
        let mut record = 0;
        for fd in 0..3 {
            // SAFETY: F_GETFD takes no pointer and changes nothing; a bad descriptor is an error, not undefined.
            if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
                record |= 1 << fd;
            }
        }
        // SAFETY: an all-zero sigaction is a valid value, and the call only writes it.
        let ignored = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction == libc::SIG_IGN
        };
        RECORD.store(record | if ignored { RECORDED_SIGPIPE } else { 0 }, Ordering::Relaxed);
    }
    record
};

pub(crate) fn at_start() -> AtStart {
    let record = RECORD.load(Ordering::Relaxed);
    AtStart {
        sigpipe_ignored: record & RECORDED_SIGPIPE != 0,
        closed: [record & 1 != 0, record & 2 != 0, record & 4 != 0],
    }
}

/// Undoes what Rust's runtime did to the process: the last step before `exec`.
#[expect(unsafe_code, reason = "signal(2) and close(2) on descriptors that the runtime opened have no safe wrapper")]
pub(crate) fn restore(start: AtStart) {
    if !start.sigpipe_ignored {
        // SAFETY: setting a signal to its default action has no precondition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    for (fd, closed) in (0..).zip(start.closed) {
        if closed {
            // SAFETY: the descriptor is `/dev/null`, which the runtime opened; no other code owns it.
            unsafe { libc::close(fd) };
        }
    }
}

/// Keeps glibc from loading the host's name service modules into a static executable.
///
/// The modules that `/etc/nsswitch.conf` names were made for the host's glibc; loaded into this one they end the
/// process (seen: SIGABRT, SIGFPE, SIGSEGV). From here on glibc asks only its built-in sources.
pub(crate) fn plain_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "glibc's only way to ignore nsswitch.conf")]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, service: *const libc::c_char) -> libc::c_int;
        }
        let databases = [c"passwd", c"group", c"services", c"networks", c"protocols", c"initgroups"];
        for (database, service) in databases.map(|d| (d, c"files")).into_iter().chain([(c"hosts", c"files dns")]) {
            // SAFETY: both are NUL-terminated and static; no other thread runs yet.
            unsafe { __nss_configure_lookup(database.as_ptr(), service.as_ptr()) };
        }
    }
}

/// The path that this process was executed by, as the kernel passed it. Works without `/proc`.
#[expect(unsafe_code, reason = "getauxval(3) has no safe wrapper")]
pub(crate) fn executed_path() -> Option<PathBuf> {
    // SAFETY: getauxval has no precondition; it returns 0 for an entry that the kernel did not pass.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let pointer = address as *const libc::c_char;
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the kernel placed a NUL-terminated string at AT_EXECFN, which stays for the life of the process.
    let name = unsafe { CStr::from_ptr(pointer) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// From here on SIGTERM, SIGINT and SIGHUP only set what [`stop_signal`] returns, unless they were ignored.
///
/// `exec` gives them their default action again.
#[expect(unsafe_code, reason = "sigaction(2): a handler that stores to one atomic")]
pub(crate) fn catch_stop_signals() {
    extern "C" fn note(signal: libc::c_int) {
        STOP_SIGNAL.store(signal, Ordering::Relaxed);
    }
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: zeroed is a valid sigaction; the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_DFL {
                action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// The signal that asked this process to stop since [`catch_stop_signals`].
pub(crate) fn stop_signal() -> Option<i32> {
    Some(STOP_SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Ends the process by the signal, so that the parent process sees why.
#[expect(unsafe_code, reason = "signal(2) and raise(3)")]
pub(crate) fn die_by(signal: i32) {
    // SAFETY: neither call has a precondition; the default action of the caught signals ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Forks. Returns the child's process id, or `None` in the child.
///
/// Fails if this process has other threads: a lock that one of them holds would be held in the child for ever.
#[expect(unsafe_code, reason = "fork(2) has no safe wrapper")]
pub(crate) fn fork() -> io::Result<Option<nix::unistd::Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: this is the only thread, so the child may do all that this process may.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Ignores signals that are meant for the job, which this process serves until it has ended. The kernel's `SIGKILL` ends both.
#[expect(unsafe_code, reason = "signal(2)")]
pub(crate) fn ignore_job_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGTSTP, libc::SIGPIPE] {
        // SAFETY: ignoring a signal has no precondition.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Gives `SIGTERM` its default action again after [`ignore_job_signals`].
#[expect(unsafe_code, reason = "signal(2)")]
pub(crate) fn obey_termination() {
    // SAFETY: setting a signal to its default action has no precondition.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) };
}

/// Names this process in lists of processes (`/proc/<pid>/comm`). A forked process has its parent's name: `pkill` with the name of
/// a launcher would end what serves its job, too.
pub(crate) fn take_name(name: &CStr) {
    let _ = nix::sys::prctl::set_name(name);
}

/// Gives children of this process their default handling, so that they can be waited for.
#[expect(unsafe_code, reason = "signal(2)")]
pub(crate) fn expect_children() {
    // SAFETY: setting a signal to its default action has no precondition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Lets this thread, and those that it starts, have only what others leave of processors and disks.
#[expect(unsafe_code, reason = "setpriority(2) and ioprio_set(2)")]
pub(crate) fn be_idle() {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: neither call takes a pointer; 0 is the calling thread. What is refused changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE);
    }
}

/// Lets glibc give large buffers back to the kernel as soon as they are freed, and lets threads share its heaps.
///
/// By itself it keeps buffers up to 32 MiB once one was freed, in a heap for each thread: a server whose budget was 64 MiB
/// took 205 MiB.
#[expect(unsafe_code, reason = "mallopt(3)")]
pub(crate) fn keep_no_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition; values that are refused change nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
