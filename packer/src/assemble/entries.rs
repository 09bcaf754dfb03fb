//! From files as discovered to the entries of a layer, with what is learned on the way.

use std::os::unix::ffi::OsStrExt as _;

use cpack_artifact::SafePath;

use crate::cache::Facts;
use crate::content::compile::Compilers;
use crate::content::plan::Installed;
use crate::content::script::Interpreters;
use crate::content::transform::{About, ByteCode, Transformed, Transformer};
use crate::discover::{Distribution, Environment, FileKind, FileStat, PythonKind, elf};
use crate::layer::{Entry, LayerError};

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
        self.entries(Some(&distribution.info), &distribution.files, &suspect, self.modules())
    }

    /// The entries of files of the environment that belong to no distribution, or to its interpreter.
    pub(super) fn files(&self, files: &[FileStat]) -> Made {
        self.entries(None, files, &|_| false, self.modules())
    }

    /// The entries of an overlay, whose root is on the path: byte-code for every module.
    pub(super) fn overlay(&self, files: &[FileStat]) -> Made {
        self.entries(None, files, &|_| false, None)
    }

    fn entries(
        &self,
        info: Option<&SafePath>,
        files: &[FileStat],
        suspect: &dyn Fn(&SafePath) -> bool,
        modules: Option<SafePath>,
    ) -> Made {
        let installed: Vec<Installed> = files.iter().map(|file| self.installed(file, suspect(&file.path))).collect();
        let tag = &self.environment.python.cache_tag;
        let byte_code = Some(ByteCode { compilers: self.compilers, tag, modules });
        let prefixes = self.prefixes();
        let interpreters = Interpreters::of(&prefixes);
        let mends_text = self.environment.python.kind != PythonKind::System;
        let base = self.environment.python.base_executable.clone();
        let transformer = Transformer { interpreters, base, prefixes, mends_text, byte_code };
        let Transformed { entries, remarks, .. } = transformer.transform(info, &installed)?;
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
                About::Prefix => facts.prefixed.push(path),
                About::Stranger(python) => facts.strangers.push(format!("{path} (#!{python})")),
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
