//! The files of a prefix and of its site-packages, at their paths in the environment.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::DiscoverError;
use super::model::{FileKind, FileStat, Finding, FindingKind, PythonKind};
use super::walk::{self, Walked};

/// A directory of installed modules.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) dir: PathBuf,
    /// The folder above its `lib`, to which `../../..` in RECORD leads.
    pub(super) root: PathBuf,
    /// `dir` relative to `root`.
    pub(super) within: Vec<u8>,
}

impl Site {
    /// `dir` is below a folder `lib` or `lib64`.
    pub(super) fn new(dir: PathBuf) -> Self {
        let above_lib = dir.ancestors().find(|a| matches!(a.file_name(), Some(n) if n == "lib" || n == "lib64"));
        let root = above_lib.and_then(Path::parent).or(dir.parent()).unwrap_or(&dir).to_owned();
        let within = dir.strip_prefix(&root).map(|p| p.as_os_str().as_bytes().to_vec()).unwrap_or_default();
        Self { dir, root, within }
    }

    /// The path in the environment of a file that metadata in this site lists; `None` if it is outside. `at` is the path of
    /// the site in the environment, `base` the folder in the site to which `path` is relative.
    pub(super) fn resolve(&self, at: &[u8], base: &[u8], path: &[u8]) -> Option<Vec<u8>> {
        let in_root = if path.first() == Some(&b'/') {
            let inside = Path::new(std::ffi::OsStr::from_bytes(path)).strip_prefix(&self.root).ok()?;
            join_normalised(b"", inside.as_os_str().as_bytes())?
        } else {
            join_normalised(&walk::join(&self.within, base), path)?
        };
        Some(self.in_environment(at, in_root))
    }

    /// The path in the environment of a path relative to the root.
    fn in_environment(&self, at: &[u8], in_root: Vec<u8>) -> Vec<u8> {
        if let Some(rest) = below(&in_root, &self.within) {
            return walk::join(at, rest);
        }
        // `lib64` is a link to `lib` in a virtual environment.
        match below(&in_root, b"lib64") {
            Some(rest) => walk::join(b"lib", rest),
            None => in_root,
        }
    }
}

/// `path` relative to `folder`, if it is below it.
pub(super) fn below<'a>(path: &'a [u8], folder: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(folder)?.strip_prefix(b"/")
}

/// All files that may belong to the environment.
#[derive(Debug)]
pub(super) struct PrefixFiles {
    /// In the byte order of their paths, each path once.
    pub(super) files: Vec<FileStat>,
    /// Links to directories outside the environment, and these directories. They are not in `files`.
    pub(super) outside_links: Vec<(FileStat, PathBuf)>,
    pub(super) findings: Vec<Finding>,
}

impl PrefixFiles {
    /// Walks the whole prefix of a virtual or conda environment, but only the `sites` of other interpreters. `at` is the
    /// path of the sites in the environment. A conda environment that is packed whole is walked whole, but for hidden folders
    /// other than `whole_conda` names.
    pub(super) fn walk(
        prefix: &Path,
        kind: PythonKind,
        sites: &[Site],
        at: &[u8],
        whole_conda: Option<HashSet<Vec<u8>>>,
    ) -> Result<Self, DiscoverError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| DiscoverError::Read { path, source }
        };
        let walked = match kind {
            PythonKind::Venv | PythonKind::Conda => {
                let skip = |path: &[u8]| match &whole_conda {
                    None => is_skipped(path, kind, at),
                    Some(kept) => is_skipped_of_whole_conda(path) && !kept.contains(path),
                };
                walk::walk(prefix, b"", &skip).map_err(failed(prefix))?
            }
            PythonKind::System | PythonKind::Standalone => {
                let mut all = Walked::default();
                for site in sites {
                    let mut walked = walk::walk(&site.dir, at, &|_| false).map_err(failed(&site.dir))?;
                    walked.files.iter_mut().for_each(|file| locate(file, prefix, &site.dir, at));
                    all.files.append(&mut walked.files);
                    all.findings.append(&mut walked.findings);
                }
                all
            }
        };
        let mut found = Self { files: walked.files, outside_links: Vec::new(), findings: walked.findings };
        found.settle(prefix);
        Ok(found)
    }

    /// Adds files that metadata lists and that the walk did not reach: those of a system interpreter outside its sites.
    pub(super) fn add_listed(&mut self, prefix: &Path, listed: impl Iterator<Item = (Vec<u8>, PathBuf)>) {
        let known = self.index();
        let missing: Vec<_> = listed.filter(|(path, _)| !known.contains_key(path.as_slice())).collect();
        drop(known);
        let found = missing.into_par_iter().filter_map(|(path, source)| {
            let mut file = walk::stat(&source, &path).ok()?;
            if source != prefix.join(&file.path) {
                file.source = Some(source.into());
            }
            Some(file)
        });
        self.files.par_extend(found);
        self.settle(prefix);
    }

    /// The index of each file, by path.
    pub(super) fn index(&self) -> HashMap<&[u8], u32> {
        let paths = self.files.iter().map(|file| file.path.as_bytes());
        paths.zip(0u32..).collect()
    }

    /// Sorts the files, drops those that an earlier site has too, and settles the links.
    fn settle(&mut self, prefix: &Path) {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.files.dedup_by(|later, first| later.path == first.path);
        let links = self.files.par_iter_mut().enumerate().filter(|(_, f)| matches!(f.kind, FileKind::Link(_)));
        let mut dropped: Vec<(usize, Settled)> = links
            .map(|(i, file)| (i, settle_link(file, prefix)))
            .filter(|(_, s)| !matches!(s, Settled::Kept))
            .collect();
        dropped.sort_unstable_by_key(|(i, _)| *i);
        for (i, settled) in dropped.into_iter().rev() {
            let file = self.files.remove(i);
            match settled {
                Settled::Directory(target) => self.outside_links.push((file, target)),
                Settled::Dangling(finding) => self.findings.push(finding),
                Settled::Kept => {}
            }
        }
    }
}

fn locate(file: &mut FileStat, prefix: &Path, dir: &Path, at: &[u8]) {
    let Some(rest) = below(file.path.as_bytes(), at) else { return };
    let source = dir.join(std::ffi::OsStr::from_bytes(rest));
    if source != prefix.join(&file.path) {
        file.source = Some(source.into());
    }
}

/// Whether a folder is not entered: a hidden one at the top, or one of conda's own.
fn is_skipped(path: &[u8], kind: PythonKind, at: &[u8]) -> bool {
    if !path.contains(&b'/') && path.first() == Some(&b'.') {
        return true;
    }
    if kind != PythonKind::Conda {
        return false;
    }
    let standard_library = at.strip_suffix(b"/site-packages").is_some_and(|lib| below(path, lib).is_some());
    let in_site = path == at || below(path, at).is_some();
    matches!(path, b"pkgs" | b"envs" | b"conda-meta") || (standard_library && !in_site)
}

/// Whether a folder of a conda environment is not entered: a hidden one at the top, or one of the installer's own.
fn is_skipped_of_whole_conda(path: &[u8]) -> bool {
    let is_hidden = !path.contains(&b'/') && path.first() == Some(&b'.');
    is_hidden || matches!(path, b"pkgs" | b"envs" | b"conda-meta")
}

/// The result of [`settle_link`].
enum Settled {
    /// It leads into the environment, or was replaced by the file to which it leads.
    Kept,
    /// It leads to a directory outside.
    Directory(PathBuf),
    /// It leads out of the environment, to nothing.
    Dangling(Finding),
}

/// Keeps a link that stays inside, makes an absolute link into the environment relative, and replaces a link to a file
/// outside by that file.
fn settle_link(file: &mut FileStat, prefix: &Path) -> Settled {
    let FileKind::Link(target) = &file.kind else { return Settled::Kept };
    if file.path.link_stays_inside(target) {
        return Settled::Kept;
    }
    let link = file.on_disk(prefix);
    let target = PathBuf::from(std::ffi::OsString::from_vec(target.to_vec()));
    let resolved = fs::canonicalize(&link);
    let roots = [Some(prefix.to_owned()), fs::canonicalize(prefix).ok()];
    for root in roots.into_iter().flatten() {
        let inside =
            [Some(&target), resolved.as_ref().ok()].into_iter().flatten().find_map(|t| t.strip_prefix(&root).ok());
        if let Some(relative) = inside.and_then(|inside| relative_target(file, inside.as_os_str().as_bytes())) {
            file.kind = FileKind::Link(relative.into());
            return Settled::Kept;
        }
    }
    match resolved.and_then(|path| Ok((fs::metadata(&path)?, path))) {
        Ok((metadata, path)) if metadata.is_dir() => Settled::Directory(path),
        Ok((_, path)) => match walk::stat(&path, file.path.as_bytes()) {
            Ok(stat) => {
                *file = FileStat { source: Some(path.into()), ..stat };
                Settled::Kept
            }
            Err(e) => Settled::Dangling(left_out(&link, &e.to_string())),
        },
        Err(_) => {
            Settled::Dangling(left_out(&link, &format!("it is a link to {}, which does not exist", target.display())))
        }
    }
}

fn left_out(path: &Path, reason: &str) -> Finding {
    Finding::new(FindingKind::Outside, format!("{} is left out: {reason}", path.display()))
}

/// The relative target of a link at `file` to `inside`, a path relative to the prefix.
fn relative_target(file: &FileStat, inside: &[u8]) -> Option<Vec<u8>> {
    let inside = join_normalised(b"", inside)?;
    let inside = below(&inside, b"lib64").map_or_else(|| inside.clone(), |rest| walk::join(b"lib", rest));
    let up = b"../".repeat(file.path.components().count() - 1);
    let target = [up, inside].concat();
    file.path.link_stays_inside(&target).then_some(target)
}

/// Joins `base` and the relative `path` as text and resolves `.` and `..`. `None` if the result leaves the root to which
/// `base` is relative.
pub(super) fn join_normalised(base: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    let mut joined: Vec<u8> = Vec::with_capacity(base.len() + path.len() + 1);
    for component in base.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match component {
            b"" | b"." => {}
            b".." if joined.is_empty() => return None,
            b".." => joined.truncate(joined.iter().rposition(|b| *b == b'/').unwrap_or(0)),
            name => {
                if !joined.is_empty() {
                    joined.push(b'/');
                }
                joined.extend_from_slice(name);
            }
        }
    }
    Some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn site_resolves_paths_of_metadata() {
        let venv = Site::new("/v/lib/python3.11/site-packages".into());
        let debian = Site::new("/usr/local/lib/python3.11/dist-packages".into());
        assert_eq!((venv.root.to_str(), debian.root.to_str()), (Some("/v"), Some("/usr/local")));
        let at = b"lib/python3.11/site-packages";
        for (site, path, expected) in [
            (&venv, "a.py", Some("lib/python3.11/site-packages/a.py")),
            (&venv, "../../../share/x", Some("share/x")),
            (&venv, "../../../lib64/python3.11/site-packages/y.so", Some("lib/python3.11/site-packages/y.so")),
            (&venv, "/v/etc/x", Some("etc/x")),
            (&venv, "/w/etc/x", None),
            (&debian, "a.py", Some("lib/python3.11/site-packages/a.py")),
            (&debian, "../../../bin/x", Some("bin/x")),
            (&debian, "../../../../bin/x", None),
        ] {
            let found = site.resolve(at, b"", path.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        }
        let egg = venv.resolve(at, b"x.egg-info", b"../x/a.py");
        assert_eq!(egg.as_deref(), Some(&b"lib/python3.11/site-packages/x/a.py"[..]));
    }

    #[test]
    fn join_normalised_resolves_dots() {
        let site = b"lib/python3.11/site-packages";
        for (path, expected) in [
            ("numpy/a.py", Some("lib/python3.11/site-packages/numpy/a.py")),
            ("../../../bin/f2py", Some("bin/f2py")),
            ("./x//y/../z", Some("lib/python3.11/site-packages/x/z")),
            ("../../../..", None),
            ("../../../../etc/passwd", None),
        ] {
            let found = join_normalised(site, path.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        }
    }

    proptest! {
        #[test]
        fn join_normalised_stays_below_its_root(path in "[a./]{0,24}") {
            if let Some(joined) = join_normalised(b"lib/x", path.as_bytes()) {
                prop_assert!(joined.is_empty() || cpack_format::SafePath::new(&joined).is_ok());
            }
        }
    }
}
