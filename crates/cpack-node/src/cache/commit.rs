//! Renaming a built directory into its place: the one step that makes it exist for other processes.

use std::fs;
use std::io;
use std::path::Path;

use cpack_fault::point;

use crate::sys::{self, Existing};

/// Whose directory is in the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// This process's.
    Ours,
    /// Another process's, which was faster: the caller discards its own.
    Theirs,
}

/// Renames the directory `staged` to `place` unless there is one.
///
/// If the file system cannot rename without replacing, plain `rename(2)` serves: it refuses to replace a directory that is
/// not empty, and no empty directory is ever committed.
pub(super) fn commit(staged: &Path, place: &Path) -> io::Result<Committed> {
    let result = match sys::rename(staged, place, Existing::Fail) {
        Err(e) if is_unsupported(&e) => fs::rename(staged, place),
        result => result,
    };
    match result {
        Ok(()) => Ok(Committed::Ours),
        Err(e) if is_there(&e) => Ok(Committed::Theirs),
        Err(e) => Err(e),
    }
}

/// Puts the directory `staged` in the place of another, which is at `staged` afterwards, if there was one.
pub(super) fn exchange(staged: &Path, place: &Path) -> io::Result<()> {
    match point("move").and_then(|()| sys::rename(staged, place, Existing::Exchange)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::rename(staged, place),
        // Not atomic: for an instant there is none, and a process that starts then builds it or waits for the claim.
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
        assert_eq!(commit(&a, &place).expect("publishes"), Committed::Ours);
        assert_eq!(commit(&b, &place).expect("loses"), Committed::Theirs);
        assert_eq!(fs::read_to_string(place.join("who")).expect("reads"), a.display().to_string());
        exchange(&b, &place).expect("exchanges");
        assert_eq!(fs::read_to_string(place.join("who")).expect("reads"), b.display().to_string());
        assert_eq!(fs::read_to_string(b.join("who")).expect("reads"), a.display().to_string());
    }
}
