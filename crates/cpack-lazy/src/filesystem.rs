//! Answers the kernel.
//!
//! Nothing in a served tree ever changes, so the kernel may keep all that it was told: names, missing ones too, attributes and
//! bytes. It is not asked to open files and directories: answering `ENOSYS` once makes it open them by itself and keep their
//! pages.
//!
//! **It is given nothing that it did not ask for.** It asks for 128 KiB at a time where a block has up to 1 MiB, so that giving it whole
//! blocks (`FUSE_NOTIFY_STORE`) halved the time of some starts. But the kernel waits inside of that call where no signal ends it. A
//! server that was killed there neither ended nor let go of `/dev/fuse`, and what read from it could not end either.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry,
    ReplyOpen, ReplyStatfs, Request, SessionACL,
};

use crate::served::Served;
use crate::tree::{Content, Node, ROOT};

/// How long the kernel may keep what it was told: always.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Longest answer to one read, in bytes. More than the kernel asks for unless a program reads directly.
const LONGEST_READ: u32 = 1 << 20;

const NEVER_CHANGES: Generation = Generation(0);

/// A file system that the kernel was told of.
#[derive(Debug)]
pub struct Session(fuser::Session<Answers>);

impl Session {
    /// Answers the kernel's greeting on `device`, `/dev/fuse` of a mount ([`crate::enter_and_mount`]).
    pub fn start(served: Arc<Served>, device: OwnedFd, threads: usize) -> io::Result<Self> {
        let user = nix::unistd::geteuid().as_raw();
        let group = nix::unistd::getegid().as_raw();
        let answers = Answers { served, user, group, since: SystemTime::now(), opens_directories: false };
        let mut config = Config::default();
        config.n_threads = Some(threads.max(1));
        config.acl = SessionACL::All;
        fuser::Session::from_fd(answers, device, SessionACL::All, config).map(Self)
    }

    /// Answers until the file system is mounted nowhere any more.
    pub fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

#[derive(Debug)]
struct Answers {
    served: Arc<Served>,
    user: u32,
    group: u32,
    since: SystemTime,
    /// Whether the kernel opens directories by itself (Linux 5.1).
    opens_directories: bool,
}

impl Answers {
    fn attributes(&self, index: u32, node: &Node) -> FileAttr {
        let kind = kind(node);
        FileAttr {
            ino: inode(index),
            size: node.size,
            blocks: node.size.div_ceil(512),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm: node.mode,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: self.user,
            gid: self.group,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// The entries of a directory after the first `skip`: its own, the one above, then its names.
    fn entries(&self, directory: u32, skip: u64) -> Option<impl Iterator<Item = (u64, u32, &OsStr)>> {
        let dots = [(directory, OsStr::new(".")), (directory, OsStr::new(".."))];
        let names = self.served.tree.names(directory)?.iter().map(|(name, node)| (*node, name.as_os_str()));
        let numbered = (1..).zip(dots.into_iter().chain(names)).map(|(next, (node, name))| (next, node, name));
        Some(numbered.skip(usize::try_from(skip).unwrap_or(usize::MAX)))
    }
}

fn kind(node: &Node) -> FileType {
    match node.content {
        Content::Directory(_) => FileType::Directory,
        Content::File { .. } | Content::OwnFile(_) => FileType::RegularFile,
        Content::Link { .. } | Content::OwnLink(_) => FileType::Symlink,
    }
}

/// The kernel calls the root 1.
fn inode(index: u32) -> INodeNo {
    INodeNo(u64::from(index) + 1)
}

fn index(inode: INodeNo) -> u32 {
    u32::try_from(inode.0.saturating_sub(1)).unwrap_or(u32::MAX)
}

impl Filesystem for Answers {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Older kernels lack some; each only saves requests.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        self.opens_directories = config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        let _ = config.set_max_write(LONGEST_READ);
        let _ = config.set_max_readahead(LONGEST_READ).or_else(|most| config.set_max_readahead(most));
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.served.child(index(parent), name) {
            Some((index, node)) => reply.entry(&FOR_EVER, &self.attributes(index, node), NEVER_CHANGES),
            None => match self.served.tree.node(ROOT) {
                // Inode 0 says that there is none, and may be kept: imports ask for many names that are not there.
                Some(root) => {
                    let none = FileAttr { ino: INodeNo(0), ..self.attributes(ROOT, root) };
                    reply.entry(&FOR_EVER, &none, NEVER_CHANGES);
                }
                None => reply.error(Errno::ENOENT),
            },
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.served.tree.node(index(inode)) {
            Some(node) => reply.attr(&FOR_EVER, &self.attributes(index(inode), node)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        match self.served.target(index(inode)) {
            Some(target) => reply.data(&target),
            None => reply.error(Errno::EIO),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.opens_directories {
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        }
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.served.read(index(inode), offset, size) {
            Some(bytes) => reply.data(&bytes),
            None => reply.error(Errno::EIO),
        }
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(entries) = self.entries(index(inode), offset) else { return reply.error(Errno::ENOTDIR) };
        for (next, index, name) in entries {
            let kind = self.served.tree.node(index).map_or(FileType::RegularFile, kind);
            if reply.add(self::inode(index), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let Some(entries) = self.entries(index(inode), offset) else { return reply.error(Errno::ENOTDIR) };
        for (next, index, name) in entries {
            let Some(node) = self.served.tree.node(index) else { continue };
            let attributes = self.attributes(index, node);
            if reply.add(self::inode(index), next, name, &FOR_EVER, &attributes, NEVER_CHANGES) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, 255, 4096);
    }
}
