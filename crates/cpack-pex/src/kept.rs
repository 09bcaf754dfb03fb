//! Directories that are made from PEX files and kept for later starts.

use std::cmp::Reverse;
use std::fs;
use std::path::Path;

/// Removes all directories in `all` but the `kept` youngest. A process that still reads one of the others has it open, or
/// makes it again.
pub fn keep_youngest(all: &Path, kept: usize) {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let made = |entry: &fs::DirEntry| entry.metadata().and_then(|m| m.modified()).ok();
    let mut found: Vec<_> = entries.filter_map(|entry| Some((made(&entry)?, entry.path()))).collect();
    found.sort_by_key(|(made, _)| Reverse(*made));
    for (_, path) in found.into_iter().skip(kept) {
        // The next call tries again what cannot be removed now.
        let _ = fs::remove_dir_all(path);
    }
}
