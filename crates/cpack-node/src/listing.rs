//! Reading a directory whole. A walk that holds none open while it is below it needs no descriptor for each level.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::path::Path;

/// Names and kinds of all that is in the directory `path`. Links are not followed.
pub fn list(path: &Path) -> io::Result<Vec<(OsString, FileType)>> {
    // An entry keeps its directory open.
    let named = |entry: io::Result<fs::DirEntry>| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)));
    fs::read_dir(path)?.map(named).collect()
}
