//! Removes files that have not been used for long: what programs cached below `user/`, and shared pieces of archives.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use crate::listing::list;

/// A file that was neither read nor written for this long is removed. Mounts with `noatime` tell of writes alone:
/// there a program computes again what it cached so long ago.
pub(super) const UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// The same while the cache is over its limit or the disk nearly full. Longer than the day for which a file system may put off
/// the time of a read (`relatime`).
pub(super) const UNUSED_IN_NEED: Duration = Duration::from_secs(2 * 24 * 3600);

/// Removes the files below `directory` that were not used for `unused`, and the directories that were empty for that long.
/// Follows no links. Stops at `deadline`. A file that cannot be removed is left to a later clean-up.
///
/// A process that has such a file open keeps it. One that is about to open it finds a cache without it, which programs expect
/// of a cache.
pub(super) fn remove(directory: &Path, unused: Duration, deadline: Option<Instant>) -> u64 {
    let Some(before) = SystemTime::now().checked_sub(unused) else { return 0 };
    let before = before.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    remove_below(directory, before, deadline).unwrap_or_default()
}

fn remove_below(directory: &Path, before: i64, deadline: Option<Instant>) -> io::Result<u64> {
    let mut removed = 0;
    for (name, _) in list(directory)? {
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            break;
        }
        // Of the entry itself, whatever a link leads to.
        let path = directory.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            removed += remove_below(&path, before, deadline).unwrap_or_default();
            if metadata.mtime() < before {
                let _ = fs::remove_dir(&path);
            }
        } else if metadata.mtime().max(metadata.atime()) < before {
            removed += u64::from(fs::remove_file(&path).is_ok());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::os::unix::fs::symlink;

    const HOUR: Duration = Duration::from_secs(3600);

    fn set_times(path: &Path, read: Duration, written: Duration) {
        let now = SystemTime::now();
        let times = FileTimes::new().set_accessed(now - read).set_modified(now - written);
        File::open(path).and_then(|file| file.set_times(times)).expect("sets the times");
    }

    #[test]
    fn files_that_programs_cached_go_by_the_age_of_their_last_use() {
        let directory = tempfile::tempdir().expect("a directory");
        let user = directory.path().join("user");
        let outside = directory.path().join("outside");
        fs::create_dir_all(user.join("numba/old")).expect("makes");
        fs::create_dir_all(user.join("empty")).expect("makes");
        for (name, read, written) in
            [("numba/old/x", UNUSED, UNUSED), ("numba/read", HOUR, UNUSED), ("written", UNUSED, HOUR)]
        {
            fs::write(user.join(name), name).expect("writes");
            set_times(&user.join(name), read + HOUR, written + HOUR);
        }
        fs::write(&outside, "kept").expect("writes");
        set_times(&outside, UNUSED * 2, UNUSED * 2);
        symlink(&outside, user.join("link")).expect("links");
        symlink(directory.path(), user.join("up")).expect("links");
        set_times(&user.join("empty"), UNUSED * 2, UNUSED * 2);
        assert_eq!(remove(&user, UNUSED, Some(Instant::now() - HOUR)), 0);
        assert_eq!(remove(&user, UNUSED, None), 1);
        assert!(!user.join("numba/old/x").exists() && !user.join("empty").exists());
        for kept in ["numba/old", "numba/read", "written", "link"] {
            assert!(user.join(kept).exists(), "{kept}");
        }
        assert!(outside.exists());
        assert_eq!(remove(&directory.path().join("missing"), UNUSED, None), 0);
    }
}
