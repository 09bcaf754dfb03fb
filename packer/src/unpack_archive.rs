//! Makes an archive of an environment into that environment, which is then packed into layers like any other.
//!
//! ```text
//! <cache>/archive-environments/<identity of the archive>/<name>/   kept for the next submission of the same file
//! <cache>/archive-environments/.<…>                                being made
//! <cache>/wheelhouse-archives/<identity of the archive>/<name>/    the wheels of one that is a wheelhouse
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cpack_extract::Limits;
use cpack_format::exit::Exit;
use cpack_format::virtual_environment::{interpreter_names, pyvenv_cfg};
use cpack_pex::keep_youngest;
use cpack_unpack::{Archive, Python, UnpackError, Unpacked};

use crate::cache::ClientCache;

/// How many environments of archives are kept.
const KEPT: usize = 4;

#[derive(Debug, thiserror::Error)]
pub enum UnpackArchiveError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error("cannot write {path}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} has no interpreter, and there is no {name} {at}on PATH to pack its environment with: install one, or set PATH",
        path = .path.display()
    )]
    NoPython { path: PathBuf, name: String, at: String },
}

impl UnpackArchiveError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Unpack(error) => error.exit(),
            Self::Io { .. } => Exit::Disk,
            Self::NoPython { .. } => Exit::Interpreter,
        }
    }
}

/// The environment in `archive`, unpacked unless `cache` has it. Its directory is called `name`. `search` is `PATH`, for an
/// interpreter.
pub(crate) fn unpack(
    archive: &Archive,
    name: &str,
    cache: &ClientCache,
    search: Option<&OsStr>,
) -> Result<PathBuf, UnpackArchiveError> {
    let all = cache.root().join("archive-environments");
    let identity = archive.identity.to_hex();
    let place = all.join(identity.get(..32).unwrap_or(&identity));
    let prefix = place.join(name);
    if is_whole(&prefix) {
        return Ok(prefix);
    }
    let failed = |source| UnpackArchiveError::Io { path: all.clone(), source };
    fs::create_dir_all(&all).map_err(failed)?;
    keep_youngest(&all, KEPT - 1);
    let staging = tempfile::Builder::new().prefix(".new").tempdir_in(&all).map_err(failed)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits { threads, ..Limits::default() };
    let unpacked = archive.unpack(staging.path(), &limits, &AtomicBool::new(false), &|| {})?;
    unpacked.settle(&prefix)?;
    if unpacked.python == Python::Shipped {
        name_interpreter(&unpacked).map_err(failed)?;
    } else if let Python::Node { home, sees_system } = &unpacked.python {
        let python = interpreter(&unpacked, home.as_deref(), search).ok_or_else(|| UnpackArchiveError::NoPython {
            path: archive.path.clone(),
            name: unpacked.interpreter_name(),
            at: home.as_ref().map(|home| format!("in {} or ", home.display())).unwrap_or_default(),
        })?;
        furnish(&unpacked, &python, *sees_system).map_err(failed)?;
    }
    let staged = tempfile::Builder::new().prefix(".whole").tempdir_in(&all).map_err(failed)?;
    fs::rename(&unpacked.root, staged.path().join(name)).map_err(failed)?;
    match fs::rename(staged.path(), &place) {
        // Another process made the same environment meanwhile.
        Err(_) if is_whole(&prefix) => {}
        // An interpreter that its links lead to is gone.
        Err(_) if place.is_dir() => {
            fs::remove_dir_all(&place).and_then(|()| fs::rename(staged.path(), &place)).map_err(failed)?;
        }
        result => result.map_err(failed)?,
    }
    Ok(prefix)
}

/// The directory of the wheels in `archive`, unpacked unless `cache` has it; `None` if it is no wheelhouse.
pub(crate) fn unpack_wheels(archive: &Archive, cache: &ClientCache) -> Result<Option<PathBuf>, UnpackArchiveError> {
    if !archive.holds_wheels()? {
        return Ok(None);
    }
    let all = cache.root().join("wheelhouse-archives");
    let place = all.join(archive.identity.to_hex());
    let wheels = place.join(archive.path.file_name().unwrap_or_default());
    if wheels.is_dir() {
        return Ok(Some(wheels));
    }
    let failed = |source| UnpackArchiveError::Io { path: all.clone(), source };
    fs::create_dir_all(&all).map_err(failed)?;
    keep_youngest(&all, KEPT - 1);
    let staged = tempfile::Builder::new().prefix(".new").tempdir_in(&all).map_err(failed)?;
    let into = staged.path().join(archive.path.file_name().unwrap_or_default());
    fs::create_dir(&into).map_err(failed)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    archive.unpack_wheels(&into, &Limits { threads, ..Limits::default() })?;
    match fs::rename(staged.path(), &place) {
        // Another process unpacked it meanwhile.
        Err(_) if wheels.is_dir() => {}
        result => result.map_err(failed)?,
    }
    Ok(Some(wheels))
}

fn is_whole(prefix: &Path) -> bool {
    prefix.join("bin/python").exists()
}

/// The interpreter where the archive has it, or else on `PATH`.
fn interpreter(unpacked: &Unpacked, home: Option<&Path>, search: Option<&OsStr>) -> Option<PathBuf> {
    let on_path = search.into_iter().flat_map(std::env::split_paths);
    let mut places =
        home.map(Path::to_owned).into_iter().chain(on_path).map(|place| place.join(unpacked.interpreter_name()));
    places.find(|path| path.is_file())?.canonicalize().ok()
}

/// Gives an interpreter in the archive its other names, which a zip may lack.
fn name_interpreter(unpacked: &Unpacked) -> io::Result<()> {
    let [plain, three, versioned] = interpreter_names(&unpacked.version);
    for name in [plain, three] {
        match symlink(&versioned, unpacked.root.join("bin").join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Adds what makes the files a virtual environment of `python`.
fn furnish(unpacked: &Unpacked, python: &Path, sees_system: bool) -> io::Result<()> {
    let bin = unpacked.root.join("bin");
    fs::create_dir_all(&bin)?;
    let mut target = python;
    for name in interpreter_names(&unpacked.version) {
        remove_if_there(&bin.join(&name))?;
        symlink(target, bin.join(&name))?;
        target = Path::new("python");
    }
    let config = unpacked.root.join("pyvenv.cfg");
    remove_if_there(&config)?;
    fs::write(config, pyvenv_cfg(python, &unpacked.version, sees_system))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
