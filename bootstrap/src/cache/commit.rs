//! Renaming what was built into its place: the one step that makes it exist for others.

use std::fs;
use std::io;
use std::path::Path;

use cpack_artifact::fault::point;

use crate::sys::{self, Existing};

/// Who published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// This process.
    Ours,
    /// Another process, meanwhile: what was built here is to be discarded.
    Theirs,
}

/// Renames the directory `staged` to `place` unless there is one.
///
/// Where the file system cannot rename without replacing, plain `rename(2)` does: it refuses to replace a directory
/// that is not empty, and nothing empty is ever published.
pub(super) fn publish(staged: &Path, place: &Path) -> io::Result<Published> {
    let result = match sys::rename(staged, place, Existing::Fail) {
        Err(e) if is_unsupported(&e) => fs::rename(staged, place),
        result => result,
    };
    match result {
        Ok(()) => Ok(Published::Ours),
        Err(e) if is_there(&e) => Ok(Published::Theirs),
        Err(e) => Err(e),
    }
}

/// Puts the directory `staged` in the place of another; what was there, if anything, is at `staged` afterwards.
pub(super) fn exchange(staged: &Path, place: &Path) -> io::Result<()> {
    match point("move").and_then(|()| sys::rename(staged, place, Existing::Exchange)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(staged, place),
        // Not atomic: for an instant there is none, and whoever starts then builds it or waits for the lock.
        Err(e) if is_unsupported(&e) => {
            let aside = staged.with_extension("old");
            fs::rename(place, &aside)?;
            fs::rename(staged, place)?;
            fs::rename(&aside, staged)
        }
        result => result,
    }
}

fn is_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_wins_and_the_second_keeps_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let [a, b, place] = ["a", "b", "place"].map(|name| directory.path().join(name));
        for staged in [&a, &b] {
            fs::create_dir(staged).expect("creates");
            fs::write(staged.join("who"), staged.display().to_string()).expect("writes");
        }
        assert_eq!(publish(&a, &place).expect("publishes"), Published::Ours);
        assert_eq!(publish(&b, &place).expect("loses"), Published::Theirs);
        assert_eq!(fs::read_to_string(place.join("who")).expect("reads"), a.display().to_string());
        exchange(&b, &place).expect("exchanges");
        assert_eq!(fs::read_to_string(place.join("who")).expect("reads"), b.display().to_string());
        assert_eq!(fs::read_to_string(b.join("who")).expect("reads"), a.display().to_string());
    }
}
