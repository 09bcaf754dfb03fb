//! The files of a relocatable interpreter that are shipped as a layer.

use std::io;
use std::path::Path;

use cpack_discover::{FileStat, PythonInfo, walk_tree};

/// Directories of an interpreter's prefix that are not shipped: headers, manuals, its own tests, and packages that were
/// installed beside it.
const LEFT_OUT: [&str; 7] = ["include", "share/man", "share/doc", "lib/pkgconfig", "site-packages", "test", "idlelib"];

/// The files of the prefix of `python`'s base interpreter that executors need.
pub(super) fn files(python: &PythonInfo) -> io::Result<Vec<FileStat>> {
    let lib = format!("lib/{}/", python.lib_name);
    let skip = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        let inner = path.strip_prefix(&lib).unwrap_or(&path);
        LEFT_OUT.contains(&inner)
    };
    let mut found = walk_tree(&python.base_prefix, &skip)?;
    found.retain(|file| is_shipped(file, &python.lib_name));
    for file in &mut found {
        file.source = Some(python.base_prefix.join(&file.path).into());
    }
    Ok(found)
}

/// Whether a file is shipped. `bin` also holds scripts that name the directory where the interpreter was installed: they are not.
fn is_shipped(file: &FileStat, lib_name: &str) -> bool {
    let path = file.path.as_path();
    if !path.starts_with("bin") {
        return path.starts_with("lib") || path.starts_with("share") || path.starts_with("etc");
    }
    path == Path::new("bin").join(lib_name) || path == Path::new("bin/python") || path == Path::new("bin/python3")
}
