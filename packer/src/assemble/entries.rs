//! From files as discovered to the entries of a layer, with what is learned on the way.

use std::os::unix::ffi::OsStrExt as _;

use cpack_artifact::SafePath;

use crate::cache::Facts;
use crate::content::compile::Compilers;
use crate::content::plan::Installed;
use crate::content::transform::{About, ByteCode, Transformed, Transformer};
use crate::discover::{Distribution, Editable, Environment, FileKind, FileStat, elf};
use crate::layer::{Body, Entry, LayerError};

/// Makes the entries of layers of one environment.
#[derive(Debug)]
pub struct Packer<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// Compiles what has no byte-code.
    pub compilers: &'a Compilers,
}

type Made = Result<(Vec<Entry>, Facts), LayerError>;

impl Packer<'_> {
    /// The entries of a distribution.
    pub(super) fn distribution(&self, distribution: &Distribution) -> Made {
        let suspect = |path: &SafePath| distribution.suspects.iter().any(|s| s.path == *path);
        let shared: Vec<Installed> =
            self.shared_files(distribution).into_iter().map(|file| self.installed(file, true)).collect();
        self.entries(Some(&distribution.info), &distribution.files, &shared, &suspect, self.modules())
    }

    /// Files that a distribution lists and another one, or nobody, has.
    pub(super) fn shared_files(&self, distribution: &Distribution) -> Vec<&FileStat> {
        let contested = self.environment.contested.iter();
        let paths: Vec<&SafePath> = contested
            .filter(|contested| contested.claimants.contains(&distribution.name))
            .map(|contested| &contested.path)
            .filter(|path| distribution.files.binary_search_by(|file| file.path.cmp(path)).is_err())
            .collect();
        let find = |files: &'_ [FileStat], path: &SafePath| files.binary_search_by(|file| file.path.cmp(path)).ok();
        let all = || self.environment.distributions.iter().map(|d| &d.files).chain([&self.environment.unowned]);
        paths.into_iter().filter_map(|path| all().find_map(|files| files.get(find(files, path)?))).collect()
    }

    /// The entries of files of the environment that belong to no distribution, or to its interpreter.
    pub(super) fn files(&self, files: &[FileStat]) -> Made {
        let (entries, facts) = self.entries(None, files, &[], &|_| false, self.modules())?;
        Ok((entries.into_iter().map(|entry| self.without_projects(entry)).collect(), facts))
    }

    /// The entries of an overlay, whose root is on the path: byte-code for every module, and metadata that is true there.
    pub(super) fn overlay(&self, editable: &Editable) -> Made {
        let tops = editable.files.iter().filter_map(|file| file.path.components().next());
        let info = tops.filter(|top| top.ends_with(b".dist-info")).find_map(|top| SafePath::new(top).ok());
        self.entries(info.as_ref(), &editable.files, &[], &|_| false, None)
    }

    /// `easy-install.pth` lists eggs and the folders of projects: without those that are overlays.
    fn without_projects(&self, entry: Entry) -> Entry {
        let site = self.environment.site_packages.as_bytes();
        let is_list = entry.path.as_bytes().strip_prefix(site) == Some(b"/easy-install.pth");
        let Body::File { path, .. } = &entry.body else { return entry };
        let Some(text) = is_list.then(|| std::fs::read(path).ok()).flatten() else { return entry };
        let is_project = |line: &&[u8]| {
            let folder = std::path::Path::new(std::ffi::OsStr::from_bytes(line.trim_ascii()));
            folder.is_absolute() && self.environment.editables.iter().any(|editable| editable.is_at(folder))
        };
        let kept: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_project(line)).collect();
        Entry { body: Body::Bytes(kept.concat()), ..entry }
    }

    fn entries(
        &self,
        info: Option<&SafePath>,
        files: &[FileStat],
        shared: &[Installed],
        suspect: &dyn Fn(&SafePath) -> bool,
        modules: Option<SafePath>,
    ) -> Made {
        let installed: Vec<Installed> = files.iter().map(|file| self.installed(file, suspect(&file.path))).collect();
        let tag = &self.environment.python.cache_tag;
        let byte_code = Some(ByteCode { compilers: self.compilers, tag, modules });
        let transformer = Transformer { prefixes: self.prefixes(), byte_code };
        let Transformed { entries, remarks, .. } = transformer.transform_beside(info, &installed, shared)?;
        let needs = elf::layer_needs(files.iter().map(|file| {
            let is_executable = file.kind == FileKind::Executable;
            (&file.path, is_executable, self.environment.source(file))
        }));
        let mut facts = Facts { run_paths: needs.run_paths, glibc: needs.glibc, ..Facts::default() };
        for remark in remarks {
            let path = remark.path.to_string();
            match remark.about {
                About::Modified => facts.modified.push(path),
                About::NoByteCode(_) => facts.not_compiled.push(path),
                About::LeftOut(why) => facts.left_out.push(format!("{path}: {why}")),
            }
        }
        Ok((entries, facts))
    }

    fn installed(&self, file: &FileStat, suspect: bool) -> Installed {
        let target = if let FileKind::Link(target) = &file.kind { target.to_vec() } else { Vec::new() };
        Installed {
            path: file.path.clone(),
            place: self.environment.source(file),
            kind: file.kind.content_kind(),
            size: file.size,
            modified: file.mtime_ns.div_euclid(1_000_000_000),
            target,
            suspect,
        }
    }

    /// Where modules are: `lib/python3.11`.
    fn modules(&self) -> Option<SafePath> {
        self.environment.site_packages.parent()
    }

    /// The environment's prefix, as files in it may spell it.
    fn prefixes(&self) -> Vec<Vec<u8>> {
        let prefix = &self.environment.prefix;
        let real = prefix.canonicalize().ok().filter(|real| real != prefix);
        let spelt = [Some(prefix.clone()), real].into_iter().flatten();
        spelt.map(|p| p.as_os_str().as_bytes().to_vec()).collect()
    }
}
