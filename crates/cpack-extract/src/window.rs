//! Windows: parts of local archives, mapped instead of read.
//!
//! A byte that is read is copied once more than one that is mapped: for an archive in page cache that took 0.4 s of a core a
//! GiB. Two things make it safe:
//!
//! - A file is mapped if only this user and root may write to it, and if it lies on a local file system. What is decoded is
//!   then what was verified before. Other files are copied first, since their bytes may change in between.
//! - Touching a page that the file no longer has raises SIGBUS. A file that was cut short while it was read has to end the start
//!   with one line and the code of a damaged artifact, as one that is too short from the beginning does. Nothing else is done by
//!   the handler; it leaves to the next clean-up what a killed process leaves.

use std::cell::Cell;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::ptr;
use std::sync::Once;

use cpack_format::exit::Exit;
use memmap2::{Advice, MmapMut, MmapOptions};
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::unistd::Uid;

/// Shorter parts are read: a mapping costs four system calls more than a read.
const MIN: usize = 128 << 10;

/// Where a page of the page cache stays what it is, and pages are there or not: no server that may fail.
const LOCAL: [FsType; 6] = [
    statfs::EXT4_SUPER_MAGIC,
    statfs::XFS_SUPER_MAGIC,
    statfs::BTRFS_SUPER_MAGIC,
    statfs::F2FS_SUPER_MAGIC,
    statfs::TMPFS_MAGIC,
    statfs::OVERLAYFS_SUPER_MAGIC,
];

/// A part of a file, mapped for one thread. What is written to it stays in it.
#[derive(Debug)]
pub(crate) struct Window {
    map: MmapMut,
    notice: Box<Notice>,
}

/// What is said if the file is cut short meanwhile.
#[derive(Debug)]
struct Notice {
    map: std::ops::Range<usize>,
    line: Vec<u8>,
}

thread_local! {
    /// That of the window that this thread has.
    static NOTICE: Cell<*const Notice> = const { Cell::new(ptr::null()) };
}

impl Window {
    /// Maps `len` bytes at `offset` of `file`, if that is safe and worth while. `line` is said if the file is cut short before the
    /// window is dropped. A thread has one window at a time.
    pub(crate) fn new(file: &File, offset: u64, len: usize, line: impl FnOnce() -> String) -> Option<Self> {
        if len < MIN || offset.checked_add(len as u64)? > mappable(file)? {
            return None;
        }
        install();
        let map = map(file, offset, len)?;
        let start = map.as_ptr() as usize;
        let notice = Box::new(Notice { map: start..start + len, line: format!("{}\n", line()).into_bytes() });
        NOTICE.set(&raw const *notice);
        // Where the pages are not in memory yet, all of them are asked for at once.
        let _ = map.advise(Advice::WillNeed);
        Some(Self { map, notice })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.map
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        debug_assert!(ptr::eq(NOTICE.get(), &raw const *self.notice), "one window at a time");
        NOTICE.set(ptr::null());
    }
}

/// The length of `file`, if it may be mapped.
fn mappable(file: &File) -> Option<u64> {
    let is_own = |metadata: &Metadata| {
        let owner = metadata.uid();
        (owner == 0 || owner == Uid::effective().as_raw()) && metadata.mode() & 0o022 == 0
    };
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && is_own(metadata))?;
    let kind = fstatfs(file).ok()?.filesystem_type();
    LOCAL.contains(&kind).then_some(metadata.len())
}

#[expect(unsafe_code, reason = "others could change a mapped file; see the head of the file")]
fn map(file: &File, offset: u64, len: usize) -> Option<MmapMut> {
    // SAFETY: other users may not write to the file. If this one cuts it short, `on_bus_error` ends the process.
    unsafe { MmapOptions::new().offset(offset).len(len).map_copy(file) }.ok()
}

/// Installs the handler, once.
#[expect(unsafe_code, reason = "a handler of signals must not do most things")]
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let action = SigAction::new(SigHandler::SigAction(on_bus_error), SaFlags::SA_SIGINFO, SigSet::empty());
        // SAFETY: the handler only reads what this thread wrote, and calls write, signal and _exit, which a handler may.
        let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
    });
}

#[expect(unsafe_code, reason = "a handler of signals is called with raw pointers")]
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo_t with an address for SIGBUS; a notice lives until NOTICE is cleared.
    unsafe {
        let address = (*info).si_addr() as usize;
        if let Some(notice) = NOTICE.get().as_ref().filter(|notice| notice.map.contains(&address)) {
            libc::write(libc::STDERR_FILENO, notice.line.as_ptr().cast(), notice.line.len());
            libc::_exit(Exit::Artifact.code().into());
        }
        // Not ours: the access fails again, as it does without a handler.
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A file of `len` bytes with this mode.
    fn file(len: usize, mode: u32) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![7; len]).expect("writes");
        file.set_permissions(std::fs::Permissions::from_mode(mode)).expect("chmod");
        file
    }

    fn window(file: &File, offset: u64, len: usize) -> Option<Window> {
        Window::new(file, offset, len, || "it was cut short".into())
    }

    #[test]
    fn window_is_made_of_what_is_long_and_there_and_nobody_else_may_change() {
        let own = file(2 * MIN, 0o644);
        assert!(window(&own, 0, MIN).is_some() && window(&own, 77, 2 * MIN - 77).is_some());
        assert!(window(&own, 0, MIN - 1).is_none(), "reading is cheaper");
        assert!(window(&own, 1, 2 * MIN).is_none(), "behind the end");
        assert!(window(&own, u64::MAX, MIN).is_none());
        for mode in [0o664, 0o646, 0o666] {
            assert!(window(&file(2 * MIN, mode), 0, MIN).is_none(), "{mode:o}");
        }
        let directory = File::open("/").expect("opens");
        assert!(window(&directory, 0, MIN).is_none());
    }

    #[test]
    fn window_keeps_what_is_written_to_it() {
        let own = file(2 * MIN, 0o600);
        let mut one = window(&own, 5, MIN).expect("a window");
        one.bytes().fill(1);
        drop(one);
        assert!(window(&own, 5, MIN).expect("a window").bytes().iter().all(|byte| *byte == 7));
    }
}
