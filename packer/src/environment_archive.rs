//! A whole environment as one archive that knows nothing of layers: for `spark.archives`, for YARN, for `tar`.
//!
//! It holds what a node would build: the files of all layers, those of editable projects in site-packages, and what makes
//! them an environment (`bin/python`, `pyvenv.cfg`, `lib64`). Scripts find the interpreter beside them, so it works wherever
//! it is unpacked. A relocatable interpreter is packed with it; any other must be on each node where it is here.
//!
//! A conda environment is packed whole. Its files hold the placeholders of their packages where they held its path; what
//! [`conda_archive`] adds writes the new path there, and `cpack-boot` does so by itself.
//!
//! A zip has no links: Spark and Hadoop unpack a link as a file that holds its target's text. Its `bin/python` is a copy of
//! the interpreter, as `python -m venv --copies` makes it; other links become copies of what they lead to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_discover::Environment;
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::manifest::LayerKind;
use cpack_format::prefix::Prefixes;
use cpack_format::virtual_environment::{interpreter_names, pyvenv_cfg};
use cpack_layer::PackError;
use cpack_layer::archive::{ArchiveError, Body, Codec, DEFAULT_LEVEL, Entry, Form, TarCodec, write_tar, write_zip};
use cpack_layer::content::compile::Compilers;
use cpack_layer::content::facts::Facts;
use rayon::prelude::*;

use crate::assemble::{self, AssembleError, LayerPlan};
use crate::conda_archive;
use crate::pack::Packer;

/// The level of gzip and zip: conda-pack's and venv-pack2's default is zlib's 4.
const DEFLATE_LEVEL: u32 = 4;

/// libdeflate's highest level.
const MOST_DEFLATE: u32 = 12;

/// Links that lead to links.
const MOST_LINKS: usize = 8;

/// What an archive is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveForm {
    TarGz,
    TarZst,
    Zip,
}

#[derive(Debug)]
pub(crate) struct ArchiveOptions {
    pub form: ArchiveForm,
    /// Of the compression; the form's default otherwise.
    pub level: Option<i32>,
    /// Whether the interpreter must be packed; one that is relocatable is packed in any case.
    pub with_python: bool,
}

#[derive(Debug)]
pub(crate) struct EnvironmentArchive {
    pub size: u64,
    /// Name and version of each layer, and what packing learned of it.
    pub facts: Vec<(String, Facts)>,
    /// Links that a zip has not, since they lead to directories or out of the environment.
    pub left_out: Vec<String>,
    /// The interpreter that each node must have; `None` if it is packed.
    pub node_python: Option<PathBuf>,
    /// How many files of a conda environment hold a placeholder of its path.
    pub placeholders: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentArchiveError {
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("--output {path} is a directory: name a file", path = .0.display())]
    Occupied(PathBuf),
}

impl From<ArchiveError> for EnvironmentArchiveError {
    fn from(error: ArchiveError) -> Self {
        Self::Pack(error.into())
    }
}

/// Writes `environment` to the file `output`, which is replaced when the archive is whole. Calls `progress` with the bytes of
/// files that are done.
pub(crate) fn write_archive(
    environment: &Environment,
    options: &ArchiveOptions,
    output: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<EnvironmentArchive, EnvironmentArchiveError> {
    if output.is_dir() {
        return Err(EnvironmentArchiveError::Occupied(output.into()));
    }
    let python = &environment.python;
    let is_conda = environment.is_whole_conda();
    let with_python = options.with_python || python.ships_relocatable_interpreter || is_conda;
    let plan = assemble::plan(environment, &assemble::Options { with_python, level: DEFAULT_LEVEL })?;
    let plans: Vec<&LayerPlan<'_>> = plan.layers.iter().chain(&plan.overlays).collect();
    let compilers = Compilers::of(python);
    let packer = Packer::new(environment, &compilers, DEFAULT_LEVEL);
    let packed: Result<Vec<_>, PackError> = plans.par_iter().map(|plan| packer.entries(plan)).collect();
    let (mut contents, mut facts) = (Contents::new(environment, with_python, options.form), Vec::new());
    for (plan, (entries, found)) in plans.iter().zip(packed?) {
        entries.into_iter().try_for_each(|entry| contents.add(plan.kind, entry))?;
        contents.note(&found.prefixes);
        facts.push((format!("{} {}", plan.name, plan.version), found));
    }
    contents.add_interpreter()?;
    let left_out = if options.form == ArchiveForm::Zip { contents.replace_links() } else { Vec::new() };
    let placeholders = contents.prefixes.iter().flat_map(Prefixes::files).count();
    if is_conda {
        conda_archive::add(&mut contents.entries, &environment.prefix, &contents.prefixes)?;
    }
    let size = contents.write(options, output, progress)?;
    let node_python = (!with_python).then(|| python.base_executable.clone());
    Ok(EnvironmentArchive { size, facts, left_out, node_python, placeholders })
}

/// The files of the archive by their paths.
struct Contents<'a> {
    environment: &'a Environment,
    with_python: bool,
    form: ArchiveForm,
    entries: BTreeMap<SafePath, Entry>,
    /// Files that hold a placeholder.
    prefixes: Vec<Prefixes>,
}

impl<'a> Contents<'a> {
    fn new(environment: &'a Environment, with_python: bool, form: ArchiveForm) -> Self {
        Self { environment, with_python, form, entries: BTreeMap::new(), prefixes: Vec::new() }
    }

    /// Adds an entry of a layer where it belongs. What is there already stays, as on a node.
    fn add(&mut self, kind: LayerKind, entry: Entry) -> Result<(), PackError> {
        let path = if kind == LayerKind::Overlay { self.place(&entry.path)? } else { entry.path.clone() };
        if !self.is_own(&path) {
            self.entries.entry(path.clone()).or_insert(Entry { path, ..entry });
        }
        Ok(())
    }

    /// Notes files of a layer that hold a placeholder.
    fn note(&mut self, prefixes: &[Prefixes]) {
        for held in prefixes {
            held.files().for_each(|(path, mode)| {
                Prefixes::add(&mut self.prefixes, &held.placeholder, mode, path.to_owned());
            });
        }
    }

    /// Where a file of an editable project belongs: its overlay has scripts where a wheel has them.
    fn place(&self, path: &SafePath) -> Result<SafePath, PackError> {
        let parts: Vec<&[u8]> = path.components().collect();
        let place = match parts.as_slice() {
            [data, b"scripts", script] if data.ends_with(b".data") => [b"bin/", *script].concat(),
            _ => [self.environment.site_packages.as_bytes(), b"/", path.as_bytes()].concat(),
        };
        SafePath::new(&place).map_err(PackError::Path)
    }

    /// Whether [`Contents::add_interpreter`] makes this file.
    fn is_own(&self, path: &SafePath) -> bool {
        let name = path.as_bytes().strip_prefix(b"bin/");
        let names = interpreter_names(&self.environment.python.version);
        let is_python = name.is_some_and(|name| names.iter().any(|own| own.as_bytes() == name));
        path.as_bytes() == b"pyvenv.cfg" || (is_python && !self.with_python)
    }

    /// Adds what makes the files an environment.
    fn add_interpreter(&mut self) -> Result<(), PackError> {
        let python = &self.environment.python;
        let [plain, three, versioned] = interpreter_names(&python.version);
        if self.with_python {
            for name in [&plain, &three] {
                self.add_name(name, &versioned)?;
            }
        } else {
            let base = &python.base_executable;
            if self.form == ArchiveForm::Zip {
                let failed = |source| PackError::Read { path: base.clone(), source };
                let size = fs::metadata(base).map_err(failed)?.len();
                self.put(&format!("bin/{plain}"), Kind::Executable, Body::File { path: base.clone(), size })?;
            } else {
                let target = Body::Bytes(base.as_os_str().as_bytes().to_vec());
                self.put(&format!("bin/{plain}"), Kind::Link, target)?;
            }
            for name in [&three, &versioned] {
                self.add_name(name, &plain)?;
            }
            let config = pyvenv_cfg(base, &python.version, self.environment.sees_system);
            self.put("pyvenv.cfg", Kind::File, Body::Bytes(config))?;
        }
        // As `python -m venv` leaves it on 64-bit systems: some packages look there.
        if self.form != ArchiveForm::Zip && !self.environment.is_whole_conda() {
            self.put("lib64", Kind::Link, Body::Bytes(b"lib".to_vec()))?;
        }
        Ok(())
    }

    /// Makes `name` in `bin` start the interpreter that is called `target` there.
    fn add_name(&mut self, name: &str, target: &str) -> Result<(), PackError> {
        let (kind, text) = match self.form {
            ArchiveForm::Zip => {
                (Kind::Executable, format!("#!/bin/sh\nexec \"$(dirname -- \"$0\")/{target}\" \"$@\"\n"))
            }
            ArchiveForm::TarGz | ArchiveForm::TarZst => (Kind::Link, target.to_owned()),
        };
        self.put(&format!("bin/{name}"), kind, Body::Bytes(text.into_bytes()))
    }

    fn put(&mut self, path: &str, kind: Kind, body: Body) -> Result<(), PackError> {
        let path = SafePath::new(path.as_bytes()).map_err(PackError::Path)?;
        self.entries.entry(path.clone()).or_insert(Entry { path, kind, body });
        Ok(())
    }

    /// Puts copies in the place of links. Returns the links that lead to no file of the environment, which are left out.
    fn replace_links(&mut self) -> Vec<String> {
        let links: Vec<SafePath> =
            self.entries.values().filter(|entry| entry.kind == Kind::Link).map(|entry| entry.path.clone()).collect();
        let copies: Vec<_> = links.iter().map(|link| self.behind(link)).collect();
        let mut left_out = Vec::new();
        for (path, copy) in links.into_iter().zip(copies) {
            self.entries.remove(&path);
            match copy {
                Some((target, kind, body)) => {
                    let held: Vec<Prefixes> =
                        self.prefixes.iter().filter_map(|held| copied(held, &target, &path)).collect();
                    self.note(&held);
                    self.entries.insert(path.clone(), Entry { path, kind, body });
                }
                None => left_out.push(path.to_string()),
            }
        }
        left_out
    }

    /// A copy of the file that a link leads to, with that file's path.
    fn behind(&self, link: &SafePath) -> Option<(SafePath, Kind, Body)> {
        let mut path = link.clone();
        for _ in 0..=MOST_LINKS {
            let entry = self.entries.get(&path)?;
            match (&entry.kind, &entry.body) {
                (Kind::Link, Body::Bytes(target)) => path = joined(&path, target)?,
                (kind, body) => return Some((path, *kind, body.clone())),
            }
        }
        None
    }

    /// Writes the archive beside `output` and renames it there.
    fn write(
        self,
        options: &ArchiveOptions,
        output: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, EnvironmentArchiveError> {
        let entries: Vec<Entry> = self.entries.into_values().collect();
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let staged = Staged(output.with_file_name(format!(".{name}.{}.tmp", std::process::id())));
        let _ = fs::remove_file(&staged.0);
        let level = options.level.and_then(|level| u32::try_from(level).ok());
        let deflate = level.unwrap_or(DEFLATE_LEVEL).min(MOST_DEFLATE);
        let size = match options.form {
            ArchiveForm::TarGz => write_tar(entries, &staged.0, TarCodec::Gzip(deflate), progress)?,
            ArchiveForm::TarZst => {
                let codec = TarCodec::Zstd(options.level.unwrap_or(DEFAULT_LEVEL));
                write_tar(entries, &staged.0, codec, progress)?
            }
            ArchiveForm::Zip => {
                let form = Form { codec: Codec::Deflate(deflate), head: b"", executable: false };
                write_zip(&name, entries, &staged.0, form, progress)?.archive.size
            }
        };
        let failed = |source| ArchiveError::Write { path: output.to_owned(), source };
        fs::rename(&staged.0, output).map_err(failed)?;
        Ok(size)
    }
}

/// A file that is removed unless it was renamed.
struct Staged(PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The files that hold the placeholder because `to` is a copy of `from`.
fn copied(held: &Prefixes, from: &SafePath, to: &SafePath) -> Option<Prefixes> {
    let (_, mode) = held.files().find(|(path, _)| path.as_bytes() == from.as_bytes())?;
    let mut copied = Vec::new();
    Prefixes::add(&mut copied, &held.placeholder, mode, to.to_string());
    copied.pop()
}

/// The path that a link's relative `target` names; `None` if it leads out of the environment.
fn joined(link: &SafePath, target: &[u8]) -> Option<SafePath> {
    let mut parts: Vec<&[u8]> = link.components().collect();
    parts.pop();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" if parts.is_empty() || target.starts_with(b"/") => return None,
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    SafePath::new(&parts.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_environment_alone() {
        let link = SafePath::new(b"lib/x/liba.so").expect("safe");
        for (target, path) in [
            ("liba.so.1", Some("lib/x/liba.so.1")),
            ("./liba.so.1", Some("lib/x/liba.so.1")),
            ("../y/b", Some("lib/y/b")),
            ("../../../etc/passwd", None),
            ("/etc/passwd", None),
            ("", Some("lib/x")),
        ] {
            let found = joined(&link, target.as_bytes()).map(|path| path.to_string());
            assert_eq!(found.as_deref(), path, "{target}");
        }
    }
}
