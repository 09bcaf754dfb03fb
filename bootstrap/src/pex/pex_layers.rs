//! The layers of a PEX: its files are extracted, laid out as in a virtual environment, and committed to the node cache under
//! the digest of their content.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_extract::{FileSource, ZipTask, extract_zip};
use cpack_format::Digest;
use cpack_format::job::minor;
use cpack_format::zip::Entry;
use cpack_node::building::{BuildError, Means};
use cpack_node::cache::{Cache, Staging};
use cpack_pex::PexFileError;
use cpack_pex::file::{Files, Source, ZipFile};
use cpack_pex::finish::finish;
use cpack_pex::places::{self as placing, Part, Places, console_scripts};

use super::SCRIPTS;
use super::python::Chosen;
use super::reason::Reason;
use super::setup::{Inherit, Setup};
use crate::error::BootError;
use crate::local_layer::{byte_code_directories, commit};

/// The module that arranges `sys.path`, and what makes Python import it.
const INHERIT: (&str, &str) = ("_cpack_pex.py", include_str!("inherit.py"));
const INHERIT_PTH: (&str, &str) = ("_cpack_pex.pth", "import _cpack_pex\n");

/// The files of all PEX files, nested ones unzipped.
pub(super) fn open(setup: &Setup, staging: &Staging, means: &Means<'_>) -> Result<Source, BootError> {
    Source::of(&setup.pexes, |index, archive| {
        let failed = |source| BuildError::Cache { path: archive.path.clone(), source };
        let outer = staging.subdirectory(&format!("outer-{index}")).map_err(failed)?;
        unzip(archive, &outer, means, &|name| Some(name.to_vec()))?;
        Ok(outer)
    })
}

/// One layer that is in the cache: its part, its content, and the number of its files.
pub(super) struct Built {
    pub(super) part: Part,
    pub(super) content: Digest,
    pub(super) files: u64,
}

pub(super) struct Work<'a> {
    pub(super) setup: &'a Setup,
    pub(super) source: &'a Source,
    pub(super) chosen: &'a Chosen,
    pub(super) cache: &'a Cache,
}

impl Work<'_> {
    /// Extracts every part, and commits it under the digest of its content.
    pub(super) fn layers(&self, staging: &Staging, means: &Means<'_>) -> Result<Result<Vec<Built>, Reason>, BootError> {
        let failed = |source| BuildError::Cache { path: self.cache.root().into(), source };
        let (pexes, minor) = (&self.setup.pexes, minor(&self.chosen.choice.version));
        cpack_pex::verify(pexes, self.source, &self.chosen.active)?;
        let parts = placing::parts(pexes, &self.chosen.active, self.setup.order());
        if let Some(project) = two_versions(&parts) {
            return Ok(Err(Reason::Versions(project)));
        }
        let named = |source| PexFileError::Name { path: self.setup.pex().path.clone(), source };
        let places = placing::places(pexes, &self.source.files, &parts, minor).map_err(named)?;
        if let (false, Some(name)) = (self.setup.venv, self.shadow(&parts, &places, minor)) {
            return Ok(Err(Reason::Shadows(name)));
        }
        let all = staging.subdirectory("pex").map_err(failed)?;
        // Layers are spread over the disk in the same way.
        let _ = File::open(&all).and_then(cpack_node::sys::spread_subdirectories);
        for (files, places) in self.source.files.iter().zip(&places) {
            for archive in &files.zips {
                unzip(archive, &all, means, &|name| {
                    let (part, path) = places.get(&*[archive.prefix.as_slice(), name].concat())?;
                    Some([format!("{part}/").as_bytes(), path.as_bytes()].concat())
                })?;
            }
            copy(files, places, &all).map_err(failed)?;
        }
        self.own_files(&all, &parts, minor).map_err(failed)?;
        let mut built = Vec::new();
        for (index, part) in parts.into_iter().enumerate() {
            let root = all.join(index.to_string());
            if !root.is_dir() {
                continue;
            }
            if let Some(wheel) = &part.wheel {
                let is_wheel_file = pexes.get(part.pex).is_some_and(|pex| pex.info.deps_are_wheel_files);
                finish(&root, wheel, is_wheel_file, minor).map_err(failed)?;
            }
            byte_code_directories(&root.join(format!("lib/python{minor}/site-packages"))).map_err(failed)?;
            let files = places.iter().flat_map(|places| places.values()).filter(|(at, _)| *at == index).count() as u64;
            let content = commit(&root, self.cache, staging, means).map_err(failed)?;
            built.push(Built { part, content, files });
        }
        Ok(Ok(built))
    }

    /// The first module of the user that would hide one of the standard library.
    fn shadow(&self, parts: &[Part], places: &[Places], minor: &str) -> Option<String> {
        let python = &self.chosen.choice.identity.path;
        let library = python.parent()?.parent()?.join(format!("lib/python{minor}"));
        let site = format!("lib/python{minor}/site-packages/");
        let is_code = |part: &usize| parts.get(*part).is_some_and(|part| part.wheel.is_none());
        let code = places.iter().flat_map(|places| places.values()).filter(|(part, _)| is_code(part));
        let names = code.filter_map(|(_, path)| {
            let below = path.as_bytes().strip_prefix(site.as_bytes())?;
            let first = String::from_utf8_lossy(below.split(|b| *b == b'/').next()?).into_owned();
            let is_directory = first.len() < below.len();
            (is_directory || first.ends_with(".py")).then_some(first)
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().find(|name| {
            let module = name.strip_suffix(".py").unwrap_or(name);
            module != "site-packages"
                && (library.join(format!("{module}.py")).exists() || library.join(module).join("__init__.py").exists())
        })
    }

    /// Writes the files that the environment has beside those of the PEX: its scripts by name, and the module that arranges
    /// `sys.path`.
    fn own_files(&self, all: &Path, parts: &[Part], minor: &str) -> io::Result<()> {
        let code = parts.iter().position(|part| *part == Part { pex: 0, wheel: None });
        let root = all.join(code.unwrap_or(0).to_string());
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap_or(&root))?;
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o444))
        };
        let mut scripts = BTreeMap::new();
        for (active, metadata) in self.chosen.active.iter().zip(&self.source.metadata) {
            for (name, target) in console_scripts(active.iter().map(String::as_str), metadata) {
                scripts.entry(name).or_insert(target);
            }
        }
        write(root.join(SCRIPTS), &serde_json::to_string(&scripts).unwrap_or_default())?;
        if self.setup.inherit != Inherit::Nothing || self.setup.extra {
            let site = root.join(format!("lib/python{minor}/site-packages"));
            let text = INHERIT.1.replace("@INHERIT@", &format!("{:?}", self.setup.inherit));
            write(site.join(INHERIT.0), &text.replace("@VENV@", &self.setup.venv.to_string()))?;
            write(site.join(INHERIT_PTH.0), INHERIT_PTH.1)?;
        }
        Ok(())
    }
}

/// The first project of which two PEX files have different wheels.
fn two_versions(parts: &[Part]) -> Option<String> {
    let project =
        |wheel: &str| wheel.split('-').next().unwrap_or_default().to_ascii_lowercase().replace(['.', '_'], "-");
    let mut seen = BTreeMap::new();
    parts.iter().filter_map(|part| part.wheel.as_deref()).find_map(|wheel| {
        let name = project(wheel);
        seen.insert(name.clone(), wheel).map(|_| name)
    })
}

/// Extracts the entries of a zip for which `select` returns a path.
fn unzip(
    archive: &ZipFile,
    into: &Path,
    means: &Means<'_>,
    select: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), BuildError> {
    let unreadable = |source| BuildError::Cache { path: archive.path.clone(), source };
    let file = File::open(&archive.path).map_err(unreadable)?;
    let source = FileSource::new(file, archive.path.clone(), archive.start);
    let into = File::open(into).map_err(|source| BuildError::Cache { path: into.into(), source })?;
    let name = archive.path.display().to_string();
    let task = ZipTask { name, source: Box::new(source), size: archive.size, into: OwnedFd::from(into), links: false };
    let limits = means.local_limits();
    let select = |entry: &Entry| select(&entry.name).filter(|_| !entry.is_directory());
    let stats = extract_zip(task, &select, &limits, means.stop.flag());
    stats.map(|_| ()).map_err(|failure| BuildError::Extract(Box::new(failure)))
}

/// Copies the plain files of a PEX below `root`.
fn copy(files: &Files, places: &Places, root: &Path) -> io::Result<()> {
    for (name, source) in &files.plain {
        let Some((part, path)) = places.get(name) else { continue };
        let target = root.join(part.to_string()).join(path.as_path());
        fs::create_dir_all(target.parent().unwrap_or(root))?;
        fs::copy(source, &target)?;
        let executable = fs::metadata(source)?.permissions().mode() & 0o100 != 0;
        fs::set_permissions(&target, Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
    }
    Ok(())
}
