//! What makes a directory a virtual environment (PEP 405), beside the files of its packages.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What an interpreter of this version is called in `bin/`: `python`, `python3`, `python3.11`.
pub fn interpreter_names(version: &str) -> [String; 3] {
    ["python".into(), "python3".into(), format!("python{}", minor_in_names(version))]
}

/// `X.Y` of a version as a part of names: one that a job or manifest makes up cannot lead out of a directory.
pub fn minor_in_names(version: &str) -> String {
    crate::job::minor(version).replace('/', "")
}

/// The file that tells CPython where its standard library is. `python` is the interpreter behind the environment's.
pub fn pyvenv_cfg(python: &Path, version: &str, sees_system: bool) -> Vec<u8> {
    let home = python.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().as_bytes();
    let rest = format!(
        "\nimplementation = CPython\nversion = {version}\nversion_info = {version}\n\
         include-system-site-packages = {sees_system}\n"
    );
    [b"home = ", home, rest.as_bytes()].concat()
}
