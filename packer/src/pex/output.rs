//! The three layouts on disk.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::PackError;
use cpack_layer::archive::{ArchiveError, Body, Codec, Entry, Form, ZipWriter, write_zip};
use cpack_pex::info::{BOOTSTRAP, DEPS, PEX_INFO, PexInfo};
use rayon::prelude::*;

use super::chroot::Chroot;
use super::error::PexError;
use super::runtime::{Runtime, entries_below};
use super::shape::{Layout, Shape};
use super::{hash, start};

/// Python before 3.13 cannot import from a zip of this size or more.
const MAX_ZIPAPP: u64 = 1 << 32;

/// Python before 3.13 cannot import from a zip of this many entries or more.
const MAX_ENTRIES: usize = 65_535;

pub(super) struct Parts<'a> {
    pub(super) chroots: Vec<Chroot>,
    pub(super) code: Vec<Entry>,
    pub(super) python: &'a str,
    pub(super) base: PendingBase<'a>,
}

/// What a PEX has beside distributions and code, while upstream's program still makes the runtime: that may take as long as
/// compressing everything else.
pub(super) struct PendingBase<'a> {
    pub(super) runtime: ScopedJoinHandle<'a, Result<Runtime, PexError>>,
    /// Without what the runtime says.
    pub(super) info: PexInfo,
}

struct Base {
    runtime: Runtime,
    info: PexInfo,
}

impl PendingBase<'_> {
    fn wait(self) -> Result<Base, PexError> {
        let panicked = |_| PexError::Runtime { pex: "pex".into(), reason: "a thread panicked".into() };
        let runtime = self.runtime.join().map_err(panicked)??;
        let mut info = self.info;
        info.build_properties.clone_from(&runtime.info.build_properties);
        info.bootstrap_hash.clone_from(&runtime.info.bootstrap_hash);
        info.pex_hash = Some(hash::of_bytes(&info.to_bytes()));
        Ok(Base { runtime, info })
    }
}

type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// Writes the PEX beside `output` and renames it there. Returns its size and its PEX-INFO.
pub(super) fn write(
    parts: Parts<'_>,
    shape: Shape,
    output: &Path,
    progress: Progress<'_>,
) -> Result<(u64, PexInfo), PexError> {
    check_place(output)?;
    let staging = Staging::beside(output)?;
    let path = staging.0.join("out");
    let written = match (shape.layout, shape.zipped) {
        (Layout::Zipapp, _) => zipapp(parts, shape.codec, &path, output, progress)?,
        (Layout::Packed, false) => packed(parts, shape.codec, &path, progress)?,
        (Layout::Packed, true) => {
            let inner = staging.0.join("in");
            let (_, info) = packed(parts, shape.codec, &inner, progress)?;
            // The inner zips are compressed already.
            (zip(entries_below(&inner)?, Codec::Store, b"", &path, &|_| {})?, info)
        }
        (Layout::Loose, zipped) => {
            let base = parts.base.wait()?;
            let mut entries = base.entries(parts.python)?;
            entries.extend(distributions_and_code(parts.chroots, parts.code)?);
            let size = match zipped {
                false => loose(entries, &path, progress)?,
                true => zip(entries, shape.codec, b"", &path, progress)?,
            };
            (size, base.info)
        }
    };
    replace(&path, output)?;
    Ok(written)
}

/// A directory beside the output, removed with all that is left in it.
pub(super) struct Staging(PathBuf);

impl Staging {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn beside(output: &Path) -> Result<Self, PexError> {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let path = output.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        fs::create_dir(&path).map_err(|source| PexError::Io { action: "create", path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Refuses to replace a directory that is no PEX.
fn check_place(output: &Path) -> Result<(), PexError> {
    let is_occupied = output.is_dir() && !output.is_symlink() && !output.join(PEX_INFO).is_file();
    if is_occupied { Err(PexError::Occupied(output.into())) } else { Ok(()) }
}

pub(super) fn replace(path: &Path, output: &Path) -> Result<(), PexError> {
    let failed = |source| PexError::Io { action: "write", path: output.into(), source };
    if output.is_dir() && !output.is_symlink() {
        // The old PEX moves into the staging directory, which is removed with it.
        fs::rename(output, path.with_file_name("old")).map_err(failed)?;
    } else if path.is_dir() && output.symlink_metadata().is_ok() {
        fs::remove_file(output).map_err(failed)?;
    }
    fs::rename(path, output).map_err(failed)
}

fn below(directory: &str, entries: Vec<Entry>) -> Result<Vec<Entry>, PexError> {
    let moved = entries.into_iter().map(|entry| {
        let path = safe(&format!("{directory}/"), entry.path.as_bytes())?;
        Ok(Entry { path, ..entry })
    });
    moved.collect()
}

fn safe(directory: &str, name: &[u8]) -> Result<SafePath, PexError> {
    Ok(SafePath::new(&[directory.as_bytes(), name].concat()).map_err(PackError::Path)?)
}

impl Base {
    /// PEX-INFO, `__main__.py` and `__pex__/__init__.py`.
    fn own_files(&self, python: &str) -> Result<Vec<Entry>, PexError> {
        let body = self.runtime.main.split_once('\n').map_or("", |(_, body)| body);
        let body = start::boot_script(body, &self.info).ok_or_else(|| PexError::Runtime {
            pex: "the installed pex".into(),
            reason: "its __main__.py does not end in a call of boot() as known".into(),
        })?;
        let main = format!("#!/usr/bin/env python{python}\n{body}");
        let entry = |path: &str, kind, bytes| {
            Ok::<_, PexError>(Entry { path: safe("", path.as_bytes())?, kind, body: Body::Bytes(bytes) })
        };
        Ok(vec![
            entry(PEX_INFO, Kind::File, self.info.to_bytes())?,
            entry("__main__.py", Kind::Executable, main.into_bytes())?,
            entry("__pex__/__init__.py", Kind::File, body.into_bytes())?,
        ])
    }

    fn entries(&self, python: &str) -> Result<Vec<Entry>, PexError> {
        let mut entries = self.own_files(python)?;
        entries.extend(below(BOOTSTRAP, self.runtime.bootstrap()?)?);
        Ok(entries)
    }
}

fn distributions_and_code(chroots: Vec<Chroot>, code: Vec<Entry>) -> Result<Vec<Entry>, PexError> {
    let mut entries = code;
    for chroot in chroots {
        entries.extend(below(&format!("{DEPS}/{}", chroot.wheel), chroot.entries)?);
    }
    Ok(entries)
}

pub(super) fn zip(
    entries: Vec<Entry>,
    codec: Codec,
    head: &[u8],
    path: &Path,
    progress: Progress<'_>,
) -> Result<u64, PexError> {
    let form = Form { codec, head, executable: !head.is_empty() };
    Ok(write_zip("PEX", entries, path, form, progress)?.archive.size)
}

fn zipapp(
    parts: Parts<'_>,
    codec: Codec,
    path: &Path,
    output: &Path,
    progress: Progress<'_>,
) -> Result<(u64, PexInfo), PexError> {
    let too_large = |found, limit| PexError::TooLarge { path: output.into(), found, limit };
    let head = start::head(parts.python);
    let entries = distributions_and_code(parts.chroots, parts.code)?;
    let certain = entries.iter().filter(|entry| !matches!(entry.body, Body::Made { .. })).count();
    if certain >= MAX_ENTRIES {
        return Err(too_large(format!("{certain} entries"), "65,535 entries"));
    }
    let mut writer = ZipWriter::create("PEX", path, Form { codec, head: &head, executable: true })?;
    writer.add(entries, progress)?;
    let base = parts.base.wait()?;
    writer.add(base.entries(parts.python)?, progress)?;
    let archive = writer.finish()?.archive;
    if archive.files >= MAX_ENTRIES as u64 {
        return Err(too_large(format!("{} entries", archive.files), "65,535 entries"));
    }
    if archive.size >= MAX_ZIPAPP {
        return Err(too_large(format!("{} bytes", archive.size), "4 GiB"));
    }
    Ok((archive.size, base.info))
}

fn packed(parts: Parts<'_>, codec: Codec, path: &Path, progress: Progress<'_>) -> Result<(u64, PexInfo), PexError> {
    let base = parts.base.wait()?;
    let mut plain = base.own_files(parts.python)?;
    plain.extend(parts.code);
    let mut size = loose(plain, path, progress)?;
    size += zip(base.runtime.bootstrap()?, codec, b"", &path.join(BOOTSTRAP), progress)?;
    let deps = path.join(DEPS);
    fs::create_dir_all(&deps).map_err(|source| PexError::Io { action: "create", path: deps.clone(), source })?;
    let mut chroots = parts.chroots;
    chroots.sort_by_key(|chroot| std::cmp::Reverse(chroot.entries.len()));
    let sizes = chroots
        .into_par_iter()
        .with_max_len(1)
        .map(|chroot| zip(chroot.entries, codec, b"", &deps.join(&chroot.wheel), progress));
    Ok((size + sizes.sum::<Result<u64, PexError>>()?, base.info))
}

/// Writes plain files below the new directory `root`.
fn loose(entries: Vec<Entry>, root: &Path, progress: Progress<'_>) -> Result<u64, PexError> {
    let size = AtomicU64::new(0);
    let failed = |path: &Path, source| PexError::Io { action: "write", path: path.into(), source };
    entries.into_par_iter().with_max_len(64).try_for_each(|entry| {
        let path = root.join(&entry.path);
        let parent = path.parent().unwrap_or(root);
        fs::create_dir_all(parent).map_err(|e| failed(parent, e))?;
        let written = match &entry.body {
            Body::File { path: source, .. } => fs::copy(source, &path).map_err(|e| failed(&path, e))?,
            Body::Bytes(bytes) => fs::write(&path, bytes).map(|()| bytes.len() as u64).map_err(|e| failed(&path, e))?,
            Body::Made { make, .. } => {
                let made = make().map_err(|reason| ArchiveError::Make { path: entry.path.to_string(), reason })?;
                let Some(bytes) = made else { return Ok(()) };
                fs::write(&path, &bytes).map(|()| bytes.len() as u64).map_err(|e| failed(&path, e))?
            }
        };
        let mode = if entry.kind == Kind::Executable { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(|e| failed(&path, e))?;
        size.fetch_add(written, Ordering::Relaxed);
        progress(written);
        Ok::<_, PexError>(())
    })?;
    // As upstream does: the name that a PEX directory is started by.
    let link = root.join("pex");
    symlink("__main__.py", &link).map_err(|e| failed(&link, e))?;
    Ok(size.into_inner())
}
