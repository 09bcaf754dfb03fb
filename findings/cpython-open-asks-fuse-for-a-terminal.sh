#!/usr/bin/env bash
# `open(path, 'rb')` of CPython 3.11 (and 3.13.0) asks each file whether it is a terminal, and a FUSE file system is asked each time.
#
# It is how `open` chooses a buffer, and imports read modules by it, too. A disk answers inside of the kernel. FUSE has no way to
# say that it knows no `ioctl`: the kernel remembers `ENOSYS` for `open`, `flush` and `access`, not for `ioctl`. So a file whose
# name, attributes and bytes the kernel keeps still costs a request, two changes of process, whenever Python opens it. `os.open` and
# `os.read` cost none.
#
# Seen with: CPython 3.11.7, fuser 0.18.0, Linux 6.18, as root.
# Output:    requests of 100 reads of a file that the kernel keeps: 100 ioctl by open(), 0 by os.open()
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir src place
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.1.0"
edition = "2021"
[dependencies]
fuser = { version = "=0.18.0", default-features = false }
TOML
cat > src/main.rs <<'RUST'
use fuser::*;
use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, UNIX_EPOCH};

const LONG: Duration = Duration::from_secs(86400);
const BYTES: &[u8] = b"a small file\n";
static ASKED: AtomicU32 = AtomicU32::new(0);

struct OneFile;

fn attributes(inode: u64) -> FileAttr {
    let (kind, perm) = if inode == 1 { (FileType::Directory, 0o755) } else { (FileType::RegularFile, 0o644) };
    FileAttr {
        ino: INodeNo(inode), size: BYTES.len() as u64, blocks: 1, atime: UNIX_EPOCH, mtime: UNIX_EPOCH, ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH, kind, perm, nlink: 1, uid: 0, gid: 0, rdev: 0, flags: 0, blksize: 4096,
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_NO_OPEN_SUPPORT);
        Ok(())
    }
    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&LONG, &attributes(2), Generation(0));
    }
    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&LONG, &attributes(inode.0));
    }
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }
    fn read(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, _: u32, _: OpenFlags, _: Option<LockOwner>, reply: ReplyData) {
        reply.data(BYTES.get(offset as usize..).unwrap_or_default());
    }
    fn ioctl(&self, _: &Request, _: INodeNo, _: FileHandle, _: IoctlFlags, _: u32, _: &[u8], _: u32, reply: ReplyIoctl) {
        ASKED.fetch_add(1, SeqCst);
        reply.error(Errno::ENOSYS);
    }
}

/// Requests of the kernel while Python reads the file 100 times.
fn asked(read: &str) -> u32 {
    let before = ASKED.load(SeqCst);
    let code = format!("import os\nfor i in range(100):\n    {read}");
    assert!(Command::new("python3").args(["-I", "-S", "-c", &code]).status().expect("starts").success());
    ASKED.load(SeqCst) - before
}

fn main() {
    let mut options = Config::default();
    options.mount_options = vec![MountOption::RO, MountOption::NoAtime];
    let mount = spawn_mount(OneFile, "place", &options).expect("mounts");
    asked("open('place/file', 'rb').read()");
    let by_open = asked("open('place/file', 'rb').read()");
    let by_calls = asked("f = os.open('place/file', os.O_RDONLY); os.read(f, 99); os.close(f)");
    drop(mount);
    println!("requests of 100 reads of a file that the kernel keeps: {by_open} ioctl by open(), {by_calls} by os.open()");
}
RUST
cargo build --quiet 2> build.log || { cat build.log; exit 1; }
found=$(target/debug/finding)
echo "$found"
[ "$found" = "requests of 100 reads of a file that the kernel keeps: 100 ioctl by open(), 0 by os.open()" ]
