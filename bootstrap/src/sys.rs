//! The few libc calls that no safe wrapper offers, each behind a safe function.
//!
//! Rust's runtime changes the process before `main`: it ignores `SIGPIPE` and opens `/dev/null` on closed standard
//! descriptors. Whoever becomes Python must hand on what it was given, so [`at_start`] tells how things were: it is
//! recorded by a function of `.init_array`, which runs before the runtime.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How the process was started, as far as Rust's runtime changes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AtStart {
    /// `SIGPIPE` was ignored.
    pub sigpipe_ignored: bool,
    /// Which of the descriptors 0, 1 and 2 were closed.
    pub closed: [bool; 3],
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

/// How the process was started.
pub fn at_start() -> AtStart {
    let record = RECORD.load(Ordering::Relaxed);
    AtStart {
        sigpipe_ignored: record & RECORDED_SIGPIPE != 0,
        closed: [record & 1 != 0, record & 2 != 0, record & 4 != 0],
    }
}

/// Undoes what Rust's runtime did to the process: the last step before `exec`.
#[expect(unsafe_code, reason = "signal(2) and close(2) on descriptors that the runtime opened have no safe wrapper")]
pub fn restore(start: AtStart) {
    if !start.sigpipe_ignored {
        // SAFETY: setting a signal to its default action has no precondition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
    for (fd, closed) in (0..).zip(start.closed) {
        if closed {
            // SAFETY: the descriptor is `/dev/null`, opened by the runtime and owned by nobody else.
            unsafe { libc::close(fd) };
        }
    }
}

/// Keeps glibc from loading the host's name service modules into a static executable.
///
/// The modules that `/etc/nsswitch.conf` names were made for the host's glibc; loaded into this one they end the
/// process (seen: SIGABRT, SIGFPE, SIGSEGV). Only the built-in sources are asked from here on.
pub fn plain_name_service() {
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

/// The path that this process was executed by, as the kernel noted it. Known without `/proc`.
#[expect(unsafe_code, reason = "getauxval(3) has no safe wrapper")]
pub fn executed_path() -> Option<PathBuf> {
    // SAFETY: getauxval has no precondition; it gives 0 for what the kernel did not pass.
    let address = unsafe { libc::getauxval(libc::AT_EXECFN) };
    let pointer = address as *const libc::c_char;
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the kernel placed a NUL-terminated string at AT_EXECFN, which stays for the life of the process.
    let name = unsafe { CStr::from_ptr(pointer) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// What [`rename`] does when the destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It fails with `EEXIST`.
    Fail,
    /// The two change places.
    Exchange,
}

/// `renameat2(2)`. File systems and kernels without it answer `EINVAL` or `ENOSYS`.
#[expect(unsafe_code, reason = "musl and older glibc have no renameat2")]
pub fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    let flags = match existing {
        Existing::Fail => libc::RENAME_NOREPLACE,
        Existing::Exchange => libc::RENAME_EXCHANGE,
    };
    let [from, to] = [from, to].map(|path| std::ffi::CString::new(path.as_os_str().as_bytes()));
    let (from, to) = (from?, to?);
    // SAFETY: both paths are NUL-terminated and live until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `FS_TOPDIR_FL` of `linux/fs.h`: `chattr +T`.
pub(crate) const TOP_OF_HIERARCHY: libc::c_int = 0x2_0000;

/// Has ext4 lay each subdirectory that `directory` will get into a part of the disk of its own, as it does with those of the
/// root directory. File systems without such parts refuse.
///
/// Left to itself it lays new files near their directory's parent. Without a journal it passes over every inode there that
/// was freed within the last minutes, one by one and for each file anew: on a node that had just cleaned up, a new file took
/// 120 µs beside what was gone, and 4 µs elsewhere.
#[expect(unsafe_code, reason = "FS_IOC_SETFLAGS has no safe wrapper")]
pub fn spread_subdirectories(directory: impl AsFd) -> io::Result<()> {
    let flags = [inode_flags(&directory)? | TOP_OF_HIERARCHY, 0];
    // SAFETY: the kernel reads an int, or the two that its request number says, and they live until it returns.
    let result = unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), libc::FS_IOC_SETFLAGS, flags.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What `lsattr` shows.
#[expect(unsafe_code, reason = "FS_IOC_GETFLAGS has no safe wrapper")]
pub(crate) fn inode_flags(file: impl AsFd) -> io::Result<libc::c_int> {
    let mut flags = [0, 0];
    // SAFETY: the kernel writes an int, or the two that its request number says, and they live until it returns.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::FS_IOC_GETFLAGS, flags.as_mut_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(flags[0]) }
}

/// Duplicates a descriptor to the first free number from `least` on, kept across `exec`.
#[expect(unsafe_code, reason = "a raw descriptor that outlives this program is what is wanted")]
pub fn duplicate_for_exec(fd: impl AsFd, least: RawFd) -> io::Result<RawFd> {
    // SAFETY: the source is open for the duration of the call; the new descriptor is given to the next program.
    let new = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD, least) };
    if new == -1 { Err(io::Error::last_os_error()) } else { Ok(new) }
}

/// From here on SIGTERM, SIGINT and SIGHUP only set what [`stop_signal`] returns, unless they were ignored.
///
/// `exec` gives them their default action again.
#[expect(unsafe_code, reason = "sigaction(2): a handler that stores to one atomic")]
pub fn catch_stop_signals() {
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
pub fn stop_signal() -> Option<i32> {
    Some(STOP_SIGNAL.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Ends the process by the signal, so that whoever waits for it sees why.
#[expect(unsafe_code, reason = "signal(2) and raise(3)")]
pub fn die_by(signal: i32) {
    // SAFETY: neither call has a precondition; the default action of the caught signals ends the process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}
