//! Opens PEX files and wheelhouses: what they are on disk, and what changes when they change.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::launcher::is_launcher;
use cpack_format::zip::Entry;

use crate::error::PexFileError;
use crate::file::{Pex, Root, ZipFile, walk};
use crate::info::{BOOTSTRAP, DEPS, PEX_INFO, PexInfo};
use crate::preamble::has_preamble;
use crate::wheelhouse::{self, Wheelhouse};
use crate::within::{Within, read_whole_zip};

/// Bytes at the start of a PEX in which it names its Python.
const HEAD: usize = 2048;

/// Whether the file or directory at `path` may be a PEX or wheelhouse: a directory with a `PEX-INFO` or wheels, a zip, or a
/// file that starts with `#!`.
pub fn is_pex(path: &Path) -> bool {
    let mut magic = [0; 2];
    let starts = |mut file: File| {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        file.read_exact(&mut magic).is_ok()
            && (magic == *b"#!" || magic == *b"PK")
            && !is_launcher(size, |bytes, at| file.read_exact_at(bytes, at))
    };
    directory_of(path).is_some() || path.is_dir() && has_wheels(path) || File::open(path).is_ok_and(starts)
}

fn has_wheels(directory: &Path) -> bool {
    paths(directory).is_ok_and(|paths| paths.iter().any(|path| path.ends_with(".whl")))
}

/// The paths of the files in `directory` and in the directories in it.
fn paths(directory: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for item in fs::read_dir(directory)? {
        let item = item?;
        let name = item.file_name().to_string_lossy().into_owned();
        if item.file_type()?.is_dir() {
            // One that cannot be read has no wheels for us.
            for inner in fs::read_dir(item.path()).into_iter().flatten().flatten() {
                found.push(format!("{name}/{}", inner.file_name().to_string_lossy()));
            }
        } else {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// The directory of a packed or loose PEX. `path` may also be its `__main__.py` or `pex`.
fn directory_of(path: &Path) -> Option<PathBuf> {
    let starter = path.file_name().is_some_and(|name| name == "__main__.py" || name == "pex");
    let directory = if starter && path.is_file() { path.parent()? } else { path };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    directory.join(PEX_INFO).is_file().then(|| directory.to_owned())
}

/// Opens the PEX at `path`.
pub fn open(path: &Path) -> Result<Pex, PexFileError> {
    match directory_of(path) {
        Some(directory) => open_directory(path, &directory),
        None if path.is_dir() => open_wheels(path),
        None => open_zip(path),
    }
}

fn identify(hasher: &mut blake3::Hasher, stat: &fs::Metadata) {
    let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()].map(i64::cast_unsigned);
    for number in [stat.dev(), stat.ino(), stat.size()].into_iter().chain(times) {
        hasher.update(&number.to_le_bytes());
    }
}

/// A zip is what its directory says, wherever a copy of it lies: schedulers give each container one of its own.
fn identify_entries(hasher: &mut blake3::Hasher, entries: &[Entry]) {
    for entry in entries {
        for number in [entry.name.len() as u64, entry.size, entry.compressed_size, entry.header_offset] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&entry.crc32.to_le_bytes()).update(&entry.mode.to_le_bytes()).update(&entry.name);
    }
}

fn open_directory(given: &Path, directory: &Path) -> Result<Pex, PexFileError> {
    let unreadable = |source| PexFileError::Read { path: directory.into(), source };
    let path = directory.canonicalize().map_err(unreadable)?;
    let info_path = path.join(PEX_INFO);
    let bytes = fs::read(&info_path).map_err(unreadable)?;
    let info = PexInfo::parse(&bytes).map_err(|source| PexFileError::Info { path: path.clone(), source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack pex 1\n").update(path.as_os_str().as_bytes()).update(&bytes);
    // A user may edit code in place, but not distributions.
    let mut plain = Vec::new();
    walk(&path, &path, &|name| !matches!(name, b".deps" | b".bootstrap"), &mut plain).map_err(unreadable)?;
    plain.sort();
    for (name, place) in &plain {
        hasher.update(name);
        identify(&mut hasher, &place.metadata().map_err(unreadable)?);
    }
    identify(&mut hasher, &path.join(DEPS).metadata().or_else(|_| path.metadata()).map_err(unreadable)?);
    // A loose PEX runs where it is. Upstream installs all others first, and they then name their starter.
    let is_installed = path.join(BOOTSTRAP).is_file() || info.deps_are_wheel_files || info.venv;
    let has_starter = path.join("pex").is_file();
    let shown = if is_installed && has_starter { given_directory(given, directory).join("pex") } else { given.into() };
    let head = fs::read(path.join("__main__.py")).unwrap_or_default();
    let minor = shebang_python(&head);
    let identity = hasher.finalize().into();
    let has_preamble = has_preamble(&head);
    let (shown, wheelhouse) = (shown.into_os_string(), None);
    Ok(Pex { path, shown, root: Root::Directory, info, identity, minor, has_preamble, wheelhouse })
}

/// Opens the wheelhouse in a directory.
fn open_wheels(given: &Path) -> Result<Pex, PexFileError> {
    let unreadable = |source| PexFileError::Read { path: given.into(), source };
    let path = given.canonicalize().map_err(unreadable)?;
    let odd = |reason| PexFileError::Wheelhouse { path: path.clone(), reason };
    let all = paths(&path).map_err(unreadable)?;
    let listing = wheelhouse::list(all.iter().map(String::as_str)).map_err(odd)?;
    let listing = listing.ok_or_else(|| PexFileError::Missing { path: path.clone(), what: "wheels".into() })?;
    let text = listing.requirements.as_ref().map(|name| fs::read_to_string(path.join(name))).transpose();
    let (wheelhouse, info) = Wheelhouse::new(listing, text.map_err(unreadable)?.as_deref()).map_err(odd)?;
    let mut hasher = wheelhouse_hasher(&wheelhouse, &info);
    hasher.update(path.as_os_str().as_bytes());
    for wheel in info.distributions.keys() {
        let wheel = path.join(&wheelhouse.directory).join(wheel);
        identify(&mut hasher, &wheel.metadata().map_err(|source| PexFileError::Read { path: wheel, source })?);
    }
    Ok(of_wheelhouse(given, path, Root::Directory, info, hasher.finalize().into(), wheelhouse))
}

/// Opens the wheelhouse in a zip without `PEX-INFO`.
fn open_zipped_wheels(given: &Path, within: &Within<'_>, zip: ZipFile) -> Result<Pex, PexFileError> {
    let odd = |reason| PexFileError::Wheelhouse { path: zip.path.clone(), reason };
    let names = zip.entries.iter().filter_map(|entry| std::str::from_utf8(&entry.name).ok());
    let missing = || PexFileError::Missing { path: zip.path.clone(), what: format!("{PEX_INFO} and no wheels") };
    let listing = wheelhouse::list(names).map_err(odd)?.ok_or_else(missing)?;
    let text = listing.requirements.as_ref().map(|name| within.read_entry(&zip.entries, name)).transpose()?.flatten();
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (wheelhouse, info) = Wheelhouse::new(listing, text.as_deref()).map_err(odd)?;
    let mut hasher = wheelhouse_hasher(&wheelhouse, &info);
    identify_entries(&mut hasher, &zip.entries);
    let path = zip.path.clone();
    Ok(of_wheelhouse(given, path, Root::Zip(zip), info, hasher.finalize().into(), wheelhouse))
}

fn wheelhouse_hasher(wheelhouse: &Wheelhouse, info: &PexInfo) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack wheelhouse 2\n");
    hasher.update(format!("{wheelhouse:?}").as_bytes()).update(&info.to_bytes());
    hasher
}

fn of_wheelhouse(
    given: &Path,
    path: PathBuf,
    root: Root,
    info: PexInfo,
    identity: Digest,
    wheelhouse: Wheelhouse,
) -> Pex {
    let (shown, wheelhouse) = (given.into(), Some(wheelhouse));
    Pex { path, shown, root, info, identity, minor: None, has_preamble: false, wheelhouse }
}

fn given_directory(given: &Path, directory: &Path) -> PathBuf {
    if given.is_dir() { given.into() } else { directory.into() }
}

fn open_zip(given: &Path) -> Result<Pex, PexFileError> {
    let path = given.canonicalize().map_err(|source| PexFileError::Read { path: given.into(), source })?;
    let unreadable = |source| PexFileError::Read { path: path.clone(), source };
    let (file, entries) = read_whole_zip(&path)?;
    let stat = file.metadata().map_err(unreadable)?;
    let within = Within { file: &file, path: &path, start: 0 };
    let Some(bytes) = within.read_entry(&entries, PEX_INFO)? else {
        let zip = ZipFile { path: path.clone(), prefix: Vec::new(), start: 0, size: stat.len(), entries };
        return open_zipped_wheels(given, &within, zip);
    };
    let info = PexInfo::parse(&bytes).map_err(|source| PexFileError::Info { path: path.clone(), source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack zipped pex 1\n").update(&bytes);
    identify_entries(&mut hasher, &entries);
    let main = within.read_entry(&entries, "__main__.py")?.unwrap_or_default();
    let named = named_python(&within.read(0, stat.len().min(HEAD as u64))?);
    let minor = named.or_else(|| shebang_python(&main));
    let has_preamble = has_preamble(&main);
    let zip = ZipFile { path: path.clone(), prefix: Vec::new(), start: 0, size: stat.len(), entries };
    let identity = hasher.finalize().into();
    let (shown, root, wheelhouse) = (given.into(), Root::Zip(zip), None);
    Ok(Pex { path, shown, root, info, identity, minor, has_preamble, wheelhouse })
}

/// The version that the `#!` line of a script names.
fn shebang_python(script: &[u8]) -> Option<String> {
    named_python(script.split(|b| *b == b'\n').next()?)
}

/// The version in the first `python3.X` before the zip begins.
pub(crate) fn named_python(head: &[u8]) -> Option<String> {
    let end = memchr::memmem::find(head, b"PK\x03\x04").unwrap_or(head.len());
    let text = String::from_utf8_lossy(head.get(..end)?);
    text.match_indices("python3.").find_map(|(at, _)| {
        let digits: String = text.get(at + 8..)?.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| format!("3.{digits}"))
    })
}
