//! A PEX on disk: what it says about itself, and which files it has.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::pex_info::{BOOTSTRAP, DEPS, MAX_PEX_INFO, PEX_INFO, PexInfo};
use cpack_artifact::zip::{Entry, LOCAL_HEADER_SIZE, MAX_TAIL, Method, local_header_len, read_directory, read_end};

use super::PexError;

/// Bytes at the start of a PEX in which it names its Python.
const HEAD: usize = 2048;

/// Largest central directory, in bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

/// A PEX that was opened.
#[derive(Debug)]
pub(super) struct Pex {
    /// Where it is, absolute, without symbolic links: what `PEX` is set to.
    pub(super) path: PathBuf,
    /// What its code finds in `sys.argv[0]`.
    pub(super) shown: OsString,
    /// The directory or zip file.
    pub(super) root: Root,
    /// What it says about itself.
    pub(super) info: PexInfo,
    /// Stands for the file as it is now.
    pub(super) identity: Digest,
    /// The version of Python that its first lines name, `3.11`.
    pub(super) minor: Option<String>,
}

/// What a PEX is on disk.
#[derive(Debug)]
pub(super) enum Root {
    /// A zip: a zipapp, or a directory that was zipped as a whole.
    Zip(Archive),
    /// A directory: packed or loose.
    Directory,
}

/// A zip file, as its directory tells.
#[derive(Debug, Clone)]
pub(super) struct Archive {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What stands before the names of its entries in the PEX: nothing, or `.deps/<wheel name>/`.
    pub(super) prefix: Vec<u8>,
    /// Names of its files, without prefix.
    pub(super) names: Vec<Box<[u8]>>,
}

/// All files of a PEX.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Zips and what is in them.
    pub(super) archives: Vec<Archive>,
    /// Plain files: name in the PEX, and where it is.
    pub(super) plain: Vec<(Box<[u8]>, PathBuf)>,
}

/// Whether the file or directory at `path` may be a PEX: a directory with a `PEX-INFO`, a zip, or something behind a `#!`.
pub fn is_pex(path: &Path) -> bool {
    let mut magic = [0; 2];
    let starts = |mut file: File| file.read_exact(&mut magic).is_ok() && (magic == *b"#!" || magic == *b"PK");
    directory_of(path).is_some() || File::open(path).is_ok_and(starts)
}

/// The directory of a packed or loose PEX, which may be named by its `__main__.py` or `pex`, too.
fn directory_of(path: &Path) -> Option<PathBuf> {
    let starter = path.file_name().is_some_and(|name| name == "__main__.py" || name == "pex");
    let directory = if starter && path.is_file() { path.parent()? } else { path };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    directory.join(PEX_INFO).is_file().then(|| directory.to_owned())
}

/// Opens the PEX at `path`.
pub(super) fn open(path: &Path) -> Result<Pex, PexError> {
    match directory_of(path) {
        Some(directory) => open_directory(path, &directory),
        None => open_zip(path),
    }
}

/// Adds what `stat` tells of a file.
fn identify(hasher: &mut blake3::Hasher, stat: &Metadata) {
    let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()].map(i64::cast_unsigned);
    for number in [stat.dev(), stat.ino(), stat.size()].into_iter().chain(times) {
        hasher.update(&number.to_le_bytes());
    }
}

fn open_directory(given: &Path, directory: &Path) -> Result<Pex, PexError> {
    let unreadable = |source| PexError::Read { path: directory.into(), source };
    let path = directory.canonicalize().map_err(unreadable)?;
    let info_path = path.join(PEX_INFO);
    let bytes = fs::read(&info_path).map_err(unreadable)?;
    let info = PexInfo::parse(&bytes).map_err(|source| PexError::Info { path: path.clone(), source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack pex 1\n").update(path.as_os_str().as_bytes()).update(&bytes);
    // The user's code may be edited in place; distributions are not.
    let mut plain = Vec::new();
    walk(&path, &path, &|name| !matches!(name, b".deps" | b".bootstrap"), &mut plain).map_err(unreadable)?;
    plain.sort();
    for (name, place) in &plain {
        hasher.update(name);
        identify(&mut hasher, &place.metadata().map_err(unreadable)?);
    }
    identify(&mut hasher, &path.join(DEPS).metadata().or_else(|_| path.metadata()).map_err(unreadable)?);
    let is_packed = path.join(BOOTSTRAP).is_file();
    let starter = path.join("pex");
    let shown =
        if is_packed && starter.is_file() { given_directory(given, directory).join("pex") } else { given.into() };
    let head = fs::read(path.join("__main__.py")).unwrap_or_default();
    let minor = shebang_python(&head).or_else(default_python);
    let identity = hasher.finalize().into();
    Ok(Pex { path, shown: shown.into_os_string(), root: Root::Directory, info, identity, minor })
}

fn given_directory(given: &Path, directory: &Path) -> PathBuf {
    if given.is_dir() { given.into() } else { directory.into() }
}

fn open_zip(given: &Path) -> Result<Pex, PexError> {
    let path = given.canonicalize().map_err(|source| PexError::Read { path: given.into(), source })?;
    let unreadable = |source| PexError::Read { path: path.clone(), source };
    let (file, entries) = read_zip(&path)?;
    let stat = file.metadata().map_err(unreadable)?;
    let missing = || PexError::Missing { path: path.clone(), what: PEX_INFO.into() };
    let bytes = read_entry(&file, &path, &entries, PEX_INFO)?.ok_or_else(missing)?;
    let info = PexInfo::parse(&bytes).map_err(|source| PexError::Info { path: path.clone(), source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack pex 1\n").update(path.as_os_str().as_bytes()).update(&bytes);
    identify(&mut hasher, &stat);
    let mut minor = named_python(&read(&file, &path, 0, stat.len().min(HEAD as u64))?);
    if minor.is_none() {
        let main = read_entry(&file, &path, &entries, "__main__.py")?.unwrap_or_default();
        minor = shebang_python(&main).or_else(default_python);
    }
    let archive = Archive { path: path.clone(), prefix: Vec::new(), names: names(&entries) };
    let identity = hasher.finalize().into();
    Ok(Pex { path, shown: given.into(), root: Root::Zip(archive), info, identity, minor })
}

impl Pex {
    /// Whether it has to be unzipped before its distributions can be: a packed PEX that was zipped as a whole.
    pub(super) fn is_nested(&self) -> bool {
        let Root::Zip(archive) = &self.root else { return false };
        let bootstrap = archive.names.iter().any(|name| **name == *BOOTSTRAP.as_bytes());
        bootstrap && !self.info.deps_are_wheel_files
    }
}

/// The files of the PEX directory `root`, with those of its distributions.
pub(super) fn directory_files(root: &Path, info: &PexInfo) -> Result<Files, PexError> {
    let unreadable = |source| PexError::Read { path: root.into(), source };
    let mut files = Files::default();
    walk(root, root, &|name| !matches!(name, b".deps" | b".bootstrap"), &mut files.plain).map_err(unreadable)?;
    for wheel in info.distributions.keys() {
        let name = format!("{DEPS}/{wheel}");
        let path = root.join(&name);
        if path.is_file() {
            let entries = read_zip(&path)?.1;
            files.archives.push(Archive { path, prefix: format!("{name}/").into_bytes(), names: names(&entries) });
        } else if path.is_dir() {
            walk(root, &path, &|_| true, &mut files.plain).map_err(unreadable)?;
        } else {
            return Err(PexError::Missing { path: root.into(), what: name });
        }
    }
    Ok(files)
}

/// Files below `directory`, named by their path below `root`. `enter` decides on names at the root.
fn walk(
    root: &Path,
    directory: &Path,
    enter: &dyn Fn(&[u8]) -> bool,
    found: &mut Vec<(Box<[u8]>, PathBuf)>,
) -> io::Result<()> {
    for item in fs::read_dir(directory)? {
        let item = item?;
        let (path, kind) = (item.path(), item.file_type()?);
        if directory == root && !enter(item.file_name().as_bytes()) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, enter, found)?;
        } else if path.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes().into();
            found.push((name, path));
        }
    }
    Ok(())
}

fn names(entries: &[Entry]) -> Vec<Box<[u8]>> {
    entries.iter().filter(|entry| !entry.is_directory()).map(|entry| entry.name.clone()).collect()
}

fn read(file: &File, path: &Path, offset: u64, len: u64) -> Result<Vec<u8>, PexError> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => Ok(bytes),
        Err(source) => Err(PexError::Read { path: path.into(), source }),
    }
}

/// The central directory of the zip at `path`.
fn read_zip(path: &Path) -> Result<(File, Vec<Entry>), PexError> {
    let unreadable = |source| PexError::Read { path: path.into(), source };
    let damaged = |source| PexError::Zip { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let tail = size.min(MAX_TAIL as u64);
    let end = read_end(&read(&file, path, size - tail, tail)?, size).map_err(damaged)?;
    if end.directory_size > MAX_DIRECTORY {
        return Err(PexError::Missing { path: path.into(), what: "directory of less than 32 MiB".into() });
    }
    let directory = read(&file, path, end.directory_offset, end.directory_size)?;
    let entries = read_directory(&directory, end.entries, end.base).map_err(damaged)?;
    Ok((file, entries))
}

/// The bytes of the small entry with this name, if there is one.
fn read_entry(file: &File, path: &Path, entries: &[Entry], name: &str) -> Result<Option<Vec<u8>>, PexError> {
    let Some(entry) = entries.iter().find(|entry| *entry.name == *name.as_bytes()) else { return Ok(None) };
    let missing = || PexError::Missing { path: path.into(), what: format!("{name} that can be read") };
    if entry.size > MAX_PEX_INFO || entry.compressed_size > MAX_PEX_INFO {
        return Err(missing());
    }
    let header = read(file, path, entry.header_offset, (LOCAL_HEADER_SIZE + entry.name.len()) as u64)?;
    let len = local_header_len(&header, entry).map_err(|source| PexError::Zip { path: path.into(), source })?;
    let packed = read(file, path, entry.header_offset + len as u64, entry.compressed_size)?;
    decode(entry, &packed).map(Some).ok_or_else(missing)
}

/// The version that the `#!` line of a script names.
fn shebang_python(script: &[u8]) -> Option<String> {
    named_python(script.split(|b| *b == b'\n').next()?)
}

/// The version of the `python3` on `PATH`, by the name of the file that it leads to.
fn default_python() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let python = std::env::split_paths(&path).map(|directory| directory.join("python3")).find(|file| file.is_file())?;
    named_python(python.canonicalize().ok()?.file_name()?.as_bytes())
}

/// The bytes of a small entry.
fn decode(entry: &Entry, packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match entry.method {
        Method::Store => bytes.extend_from_slice(packed),
        Method::Deflate => {
            flate2::read::DeflateDecoder::new(packed).take(entry.size + 1).read_to_end(&mut bytes).ok()?;
        }
        Method::Zstd => return None,
    }
    (bytes.len() as u64 == entry.size && crc32fast::hash(&bytes) == entry.crc32).then_some(bytes)
}

/// The version in the first `python3.X` before the zip begins.
pub(super) fn named_python(head: &[u8]) -> Option<String> {
    let end = head.windows(4).position(|part| part == b"PK\x03\x04").unwrap_or(head.len());
    let text = String::from_utf8_lossy(head.get(..end)?);
    text.match_indices("python3.").find_map(|(at, _)| {
        let digits: String = text.get(at + 8..)?.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| format!("3.{digits}"))
    })
}
