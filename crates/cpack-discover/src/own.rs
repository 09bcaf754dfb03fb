//! Files of the virtual environment or the interpreter itself, which are not packed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::model::{PythonInfo, PythonKind};
use super::prefix::is_python_name;
use super::prefix_files::below;

/// Folders from which unowned files are packed if the prefix is a project's folder too.
const INSTALLED: [&[u8]; 4] = [b"bin", b"lib", b"share", b"etc"];

/// Recognises files that no distribution owns and that are not packed.
#[derive(Debug)]
pub(super) struct OwnFiles {
    /// `lib/python3.11`.
    library: Vec<u8>,
    /// `lib/python3.11/site-packages`.
    site: Vec<u8>,
    /// Whether the prefix is a project's folder too.
    is_project: bool,
    is_conda: bool,
    /// Files of conda's own interpreter.
    interpreter: HashSet<Vec<u8>>,
    /// Whether it is a conda environment that is packed whole.
    is_whole: bool,
}

impl OwnFiles {
    pub(super) fn new(prefix: &Path, python: &PythonInfo, is_whole: bool) -> Self {
        let library = format!("lib/{}", python.lib_name).into_bytes();
        let is_conda = python.kind == PythonKind::Conda;
        let project = ["pyproject.toml", "setup.py", "setup.cfg", ".git"];
        Self {
            site: [&library[..], b"/site-packages"].concat(),
            library,
            is_project: !is_conda && project.iter().any(|name| prefix.join(name).exists()),
            is_conda,
            interpreter: if is_conda { conda_interpreter(prefix) } else { HashSet::new() },
            is_whole,
        }
    }

    /// Whether the file at `path`, which no distribution owns, is left out.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        if self.is_whole {
            // What conda could not remove it renames.
            let is_trash = path.ends_with(b".c~") || path.ends_with(b".conda_trash");
            let is_hook = path.ends_with(b"/site-packages/_cpack_overlays.pth");
            return is_trash || is_hook || (!path.contains(&b'/') && self.is_top_level_own(path));
        }
        let Some(cut) = path.iter().position(|b| *b == b'/') else { return self.is_top_level_own(path) };
        let (top, rest) = (path.get(..cut).unwrap_or(path), path.get(cut + 1..).unwrap_or_default());
        match top {
            b"bin" => is_bin_own(rest) || self.interpreter.contains(path),
            b"include" => self.is_conda || rest.starts_with(b"python"),
            b"lib" => self.is_library_own(path) || self.interpreter.contains(path),
            _ => (self.is_project && !INSTALLED.contains(&top)) || self.interpreter.contains(path),
        }
    }

    fn is_top_level_own(&self, name: &[u8]) -> bool {
        let made_by_tools = [&b"pyvenv.cfg"[..], b"CACHEDIR.TAG", b"lib64", b"pip-selfcheck.json"];
        self.is_project || name.first() == Some(&b'.') || made_by_tools.contains(&name)
    }

    fn is_library_own(&self, path: &[u8]) -> bool {
        if let Some(name) = below(path, &self.site) {
            return matches!(name, b"_virtualenv.py" | b"_virtualenv.pth" | b"_cpack_overlays.pth");
        }
        // The standard library, and files of another version of Python.
        below(path, &self.library).is_some() || is_other_version(path)
    }
}

/// Whether a path is in the library folder of a version of Python.
pub(super) fn is_other_version(path: &[u8]) -> bool {
    let folder = path.strip_prefix(b"lib/").and_then(|rest| rest.split(|b| *b == b'/').next());
    folder.is_some_and(|name| {
        name.len() > 6 && name.iter().any(u8::is_ascii_digit) && is_python_name(OsStr::from_bytes(name))
    })
}

fn is_bin_own(name: &[u8]) -> bool {
    let scripts = [&b"activate"[..], b"Activate.ps1", b"deactivate.", b"pydoc.bat"];
    is_python_name(OsStr::from_bytes(name)) || scripts.iter().any(|script| name.starts_with(script))
}

/// The files of conda's package `python`, as `conda-meta` lists them.
fn conda_interpreter(prefix: &Path) -> HashSet<Vec<u8>> {
    #[derive(serde::Deserialize)]
    struct Record {
        name: String,
        #[serde(default)]
        files: Vec<String>,
    }
    let records = fs::read_dir(prefix.join("conda-meta")).into_iter().flatten().flatten();
    let python = records.filter(|entry| entry.file_name().as_bytes().starts_with(b"python"));
    let parsed = python.filter_map(|entry| serde_json::from_slice::<Record>(&fs::read(entry.path()).ok()?).ok());
    parsed.filter(|record| record.name == "python").flat_map(|r| r.files).map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_files_are_those_of_the_virtual_environment() {
        let mut own = OwnFiles {
            library: b"lib/python3.11".to_vec(),
            site: b"lib/python3.11/site-packages".to_vec(),
            is_project: false,
            is_conda: false,
            interpreter: HashSet::new(),
            is_whole: false,
        };
        for (path, expected) in [
            ("pyvenv.cfg", true),
            (".lock", true),
            ("lib64", true),
            ("model.bin", false),
            ("bin/python3.11", true),
            ("bin/activate.fish", true),
            ("bin/deactivate.bat", true),
            ("bin/ipython3", false),
            ("include/python3.11/Python.h", true),
            ("include/site/python3.11/greenlet/greenlet.h", false),
            ("lib/python3.11/site-packages/_virtualenv.pth", true),
            ("lib/python3.11/site-packages/mine.py", false),
            ("lib/python3.10/site-packages/mine.py", true),
            ("lib/libx.so", false),
            ("src/project/a.py", false),
            ("share/x", false),
        ] {
            assert_eq!(own.contains(path.as_bytes()), expected, "{path}");
        }
        own.is_project = true;
        for (path, expected) in [("src/project/a.py", true), ("README.md", true), ("share/x", false)] {
            assert_eq!(own.contains(path.as_bytes()), expected, "{path}");
        }
    }
}
