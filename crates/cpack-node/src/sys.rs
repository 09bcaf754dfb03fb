//! The few libc calls of the node cache that no safe wrapper offers, each behind a safe function.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What [`rename`] does if the destination exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// It fails with `EEXIST`.
    Fail,
    /// The two change places.
    Exchange,
}

/// `renameat2(2)`. File systems and kernels without it answer `EINVAL` or `ENOSYS`.
#[expect(unsafe_code, reason = "musl and older glibc have no renameat2")]
pub(crate) fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
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

/// Tells ext4 to put each later subdirectory of `directory` into a block group of its own, as it does for those of the root
/// directory. Other file systems refuse.
///
/// Otherwise ext4 puts new files near their directory's parent. Without a journal it skips every inode there that was freed
/// within the last minutes, one by one and for each file anew: on a node that had just cleaned up, a new file took 120 µs
/// near the removed files, and 4 µs elsewhere.
#[expect(unsafe_code, reason = "FS_IOC_SETFLAGS has no safe wrapper")]
pub fn spread_subdirectories(directory: impl AsFd) -> io::Result<()> {
    let flags = [inode_flags(&directory)? | TOP_OF_HIERARCHY, 0];
    // SAFETY: the kernel reads an int, or the two that its request number says, and they live until it returns.
    let result = unsafe { libc::ioctl(directory.as_fd().as_raw_fd(), libc::FS_IOC_SETFLAGS, flags.as_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The inode flags that `lsattr` shows.
#[expect(unsafe_code, reason = "FS_IOC_GETFLAGS has no safe wrapper")]
pub(crate) fn inode_flags(file: impl AsFd) -> io::Result<libc::c_int> {
    let mut flags = [0, 0];
    // SAFETY: the kernel writes an int, or the two that its request number says, and they live until it returns.
    let result = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::FS_IOC_GETFLAGS, flags.as_mut_ptr()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(flags[0]) }
}

/// Duplicates a descriptor to the first free number from `least` on, kept across `exec`.
#[expect(unsafe_code, reason = "a raw descriptor that outlives this program is what is wanted")]
pub(crate) fn duplicate_for_exec(fd: impl AsFd, least: RawFd) -> io::Result<RawFd> {
    // SAFETY: the source is open for the duration of the call; the new descriptor is given to the next program.
    let new = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD, least) };
    if new == -1 { Err(io::Error::last_os_error()) } else { Ok(new) }
}
