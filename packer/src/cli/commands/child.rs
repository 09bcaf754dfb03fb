//! What commands that start a program have in common.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

/// The exit code of a child as shells report it, of one that a signal ended, too.
pub(super) fn exit_of(status: ExitStatus) -> u8 {
    status.code().or_else(|| Some(128 + status.signal()?)).and_then(|c| u8::try_from(c).ok()).unwrap_or(1)
}
