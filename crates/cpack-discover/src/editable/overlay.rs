//! Collects the files of an overlay, with their paths in the overlay and on disk.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_format::SafePath;

use super::super::model::{FileKind, FileStat, Finding, FindingKind};
use super::super::walk;
use super::forms::is_of_other_abi;

/// The files of one overlay. If a path is added twice, the first file stays.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    /// `SOABI` of the interpreter. Extensions compiled for other interpreters are left out.
    soabi: &'a str,
    files: BTreeMap<SafePath, FileStat>,
    findings: Vec<Finding>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(soabi: &'a str) -> Self {
        Self { soabi, files: BTreeMap::new(), findings: Vec::new() }
    }

    /// `SOABI` of the interpreter that it is for.
    pub(super) fn soabi(&self) -> &'a str {
        self.soabi
    }

    /// Adds the file, or all files of the folder, at `path`, with the path `place` in the overlay. Hidden folders, byte-code and
    /// metadata of builds are left out. Links are replaced by the files to which they lead.
    pub(super) fn add(&mut self, place: &[u8], path: &Path) {
        let result = if path.is_dir() { self.add_folder(place, path) } else { self.add_file(place, path) };
        if let Err(error) = result {
            self.say(path, &error.to_string());
        }
    }

    fn add_folder(&mut self, place: &[u8], folder: &Path) -> std::io::Result<()> {
        let skip = |path: &[u8]| {
            let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
            name.first() == Some(&b'.') || name == b"__pycache__" || name.ends_with(b".egg-info")
        };
        let walked = walk::walk(folder, place, &skip)?;
        self.findings.extend(walked.findings);
        for file in walked.files {
            let inside = file.path.as_bytes().get(place.len() + 1..).unwrap_or_default();
            let source = folder.join(std::ffi::OsStr::from_bytes(inside));
            if file.path.as_bytes().ends_with(b".pyc") || is_of_other_abi(inside, self.soabi) {
                continue;
            }
            if matches!(file.kind, FileKind::Link(_)) {
                if let Err(error) = self.add_file(file.path.as_bytes(), &source) {
                    self.say(&source, &error.to_string());
                }
                continue;
            }
            self.insert(FileStat { source: Some(source.into()), ..file });
        }
        Ok(())
    }

    fn add_file(&mut self, place: &[u8], path: &Path) -> std::io::Result<()> {
        let source = fs::canonicalize(path)?;
        if source.is_dir() {
            return Err(std::io::Error::other("it is a link to a folder"));
        }
        let stat = walk::stat(&source, place)?;
        self.insert(FileStat { source: Some(source.into()), ..stat });
        Ok(())
    }

    /// Adds a script of `bin/`, whose bytes are at `source`, where a wheel has it, as the boot expects it. `info` is the
    /// project's metadata, whose name the folder has.
    pub(super) fn add_script(&mut self, info: &SafePath, script: &FileStat, source: &Path) {
        let info = info.components().next_back().unwrap_or_default();
        let stem = [&b".dist-info"[..], b".egg-info"].iter().find_map(|end| info.strip_suffix(*end)).unwrap_or(info);
        let name = script.path.components().next_back().unwrap_or_default();
        self.add(&[stem, b".data/scripts/", name].concat(), source);
    }

    /// Adds a file whose stat is known.
    pub(super) fn insert(&mut self, file: FileStat) {
        self.files.entry(file.path.clone()).or_insert(file);
    }

    fn say(&mut self, path: &Path, reason: &str) {
        let message = format!("{} is left out: {reason}", path.display());
        self.findings.push(Finding::new(FindingKind::Outside, message));
    }

    /// The files sorted by path, the compiled extensions among them, and warnings of files that were left out.
    pub(super) fn finish(self) -> (Vec<FileStat>, Vec<SafePath>, Vec<Finding>) {
        let extensions = self.files.keys().filter(|path| path.as_bytes().ends_with(b".so")).cloned().collect();
        (self.files.into_values().collect(), extensions, self.findings)
    }
}

/// The folder that a `file:` URL names.
pub(super) fn folder_of_url(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://")?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(&bytes)))
}

/// The nearest folder at or above `folder` with a project's configuration.
pub(super) fn project_above(folder: &Path) -> Option<&Path> {
    let marks = ["pyproject.toml", "setup.py", "setup.cfg"];
    folder.ancestors().take(4).find(|above| marks.iter().any(|mark| above.join(mark).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn overlay_has_targets_of_links_and_no_other_files_of_a_working_copy() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for file in
            ["p/a.py", "p/data/x.json", "p/.git/HEAD", "p/__pycache__/a.pyc", "p/p.egg-info/PKG-INFO", "else/real.py"]
        {
            fs::create_dir_all(root.join(file).parent().expect("a parent")).expect("makes");
            fs::write(root.join(file), file).expect("writes");
        }
        fs::write(root.join("p/c.cpython-39-x86_64-linux-gnu.so"), "").expect("writes");
        fs::write(root.join("p/c.cpython-311-x86_64-linux-gnu.so"), "").expect("writes");
        symlink("../else/real.py", root.join("p/linked.py")).expect("links");
        symlink("../else", root.join("p/folder")).expect("links");
        let mut overlay = Overlay::new("cpython-311-x86_64-linux-gnu");
        overlay.add(b"q", &root.join("p"));
        let (files, extensions, findings) = overlay.finish();
        let paths: Vec<_> = files.iter().map(|f| f.path.to_string()).collect();
        assert_eq!(paths, ["q/a.py", "q/c.cpython-311-x86_64-linux-gnu.so", "q/data/x.json", "q/linked.py"]);
        let linked = files.last().and_then(|f| f.source.as_deref()).expect("a source");
        assert_eq!(fs::read(linked).expect("reads"), b"else/real.py");
        assert!(files.iter().all(|f| f.kind == FileKind::File));
        assert_eq!(extensions.len(), 1);
        assert!(findings.len() == 1 && findings[0].message.contains("p/folder is left out"), "{findings:?}");
    }

    #[test]
    fn folder_of_url_of_files() {
        assert_eq!(folder_of_url("file:///a%20b/c"), Some("/a b/c".into()));
        assert_eq!(folder_of_url("file://localhost/a"), Some("/a".into()));
        assert_eq!(folder_of_url("https://x/a"), None);
    }
}
