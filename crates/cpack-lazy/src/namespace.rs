//! Enters a user and mount namespace of its own and mounts a file system there.
//!
//! No privilege is needed where the kernel lets users make namespaces. In there this process keeps its user and group, and
//! nothing but the mount is different for it and its children. The mount goes with the last of them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

/// The step that this node refuses.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct Refused {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel answered.
    pub source: io::Error,
}

/// Enters new namespaces and mounts a file system at `place` there. Returns `/dev/fuse`, from which the kernel's requests are
/// read: this process may not go on to `place` before another one does that.
///
/// The process must have a single thread. After an error it may be in the namespaces: a caller that wants to know first
/// whether a node allows this tries in a child.
pub fn enter_and_mount(place: &Path) -> Result<OwnedFd, Refused> {
    let (user, group) = (geteuid(), getegid());
    let unshared = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    unshared.map_err(refused("user and mount namespaces"))?;
    // Groups can only be mapped by a process that gave up changing them.
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1")),
        ("gid_map", format!("{group} {group} 1")),
    ];
    for (name, text) in maps {
        let written = fs::write(Path::new("/proc/self").join(name), text);
        written.map_err(|source| Refused { step: "the users of a namespace", source })?;
    }
    // The kernel wants the device opened in the namespace that mounts.
    let device = open("/dev/fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(refused("/dev/fuse"))?;
    let options = format!(
        "fd={},rootmode=40555,user_id={user},group_id={group},allow_other,default_permissions",
        device.as_raw_fd()
    );
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some("cpack"), place, Some("fuse"), flags, Some(options.as_str())).map_err(refused("mount"))?;
    Ok(device)
}

fn refused(step: &'static str) -> impl FnOnce(nix::errno::Errno) -> Refused {
    move |errno| Refused { step, source: errno.into() }
}
