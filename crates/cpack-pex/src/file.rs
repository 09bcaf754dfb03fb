//! A PEX on disk: its `PEX-INFO` and its files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::launcher::is_launcher;
use cpack_format::zip::{Entry, LOCAL_HEADER_SIZE, MAX_TAIL, Method, local_header_len, read_directory, read_end};

use crate::error::PexFileError;
use crate::info::{BOOTSTRAP, DEPS, MAX_PEX_INFO, PEX_INFO, PexInfo};
use crate::preamble::has_preamble;

/// Bytes at the start of a PEX in which it names its Python.
const HEAD: usize = 2048;

/// Largest central directory, in bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

/// A PEX that was opened.
#[derive(Debug)]
pub struct Pex {
    /// Where it is, absolute, without symbolic links: what `PEX` is set to.
    pub path: PathBuf,
    /// Its code's `sys.argv[0]`.
    pub shown: OsString,
    /// The directory or zip file.
    pub root: Root,
    /// Its `PEX-INFO`.
    pub info: PexInfo,
    /// Changes when the file changes.
    pub identity: Digest,
    /// The version of Python that its first lines name, `3.11`.
    pub minor: Option<String>,
    /// Whether it has code that runs before its own start: `pex --preamble-file`.
    pub has_preamble: bool,
}

/// What a PEX is on disk.
#[derive(Debug)]
pub enum Root {
    /// A zip: a zipapp, or a directory that was zipped as a whole.
    Zip(ZipFile),
    /// A directory: packed or loose.
    Directory,
}

/// A zip, by its central directory.
#[derive(Debug, Clone)]
pub struct ZipFile {
    /// The file that holds it.
    pub path: PathBuf,
    /// The part of its files' names in the PEX that the zip lacks: empty, or `.deps/<wheel name>/`.
    pub prefix: Vec<u8>,
    /// Its offset in the file: a zip may hold a wheel as it is.
    pub start: u64,
    /// Its length.
    pub size: u64,
    /// Its files, named without prefix.
    pub entries: Vec<Entry>,
}

/// All files of a PEX.
#[derive(Debug, Default)]
pub struct Files {
    /// Files in zips.
    pub zips: Vec<ZipFile>,
    /// Plain files: name in the PEX, and path.
    pub plain: Vec<(Box<[u8]>, PathBuf)>,
}

/// Whether the file or directory at `path` may be a PEX: a directory with a `PEX-INFO`, a zip, or a file that starts with `#!`.
pub fn is_pex(path: &Path) -> bool {
    let mut magic = [0; 2];
    let starts = |mut file: File| {
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        file.read_exact(&mut magic).is_ok()
            && (magic == *b"#!" || magic == *b"PK")
            && !is_launcher(size, |bytes, at| file.read_exact_at(bytes, at))
    };
    directory_of(path).is_some() || File::open(path).is_ok_and(starts)
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
        None => open_zip(path),
    }
}

fn identify(hasher: &mut blake3::Hasher, stat: &fs::Metadata) {
    let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()].map(i64::cast_unsigned);
    for number in [stat.dev(), stat.ino(), stat.size()].into_iter().chain(times) {
        hasher.update(&number.to_le_bytes());
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
    Ok(Pex { path, shown: shown.into_os_string(), root: Root::Directory, info, identity, minor, has_preamble })
}

fn given_directory(given: &Path, directory: &Path) -> PathBuf {
    if given.is_dir() { given.into() } else { directory.into() }
}

fn open_zip(given: &Path) -> Result<Pex, PexFileError> {
    let path = given.canonicalize().map_err(|source| PexFileError::Read { path: given.into(), source })?;
    let unreadable = |source| PexFileError::Read { path: path.clone(), source };
    let (file, entries) = read_whole_zip(&path)?;
    let stat = file.metadata().map_err(unreadable)?;
    let missing = || PexFileError::Missing { path: path.clone(), what: PEX_INFO.into() };
    let within = Within { file: &file, path: &path, start: 0 };
    let bytes = within.read_entry(&entries, PEX_INFO)?.ok_or_else(missing)?;
    let info = PexInfo::parse(&bytes).map_err(|source| PexFileError::Info { path: path.clone(), source })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack pex 1\n").update(path.as_os_str().as_bytes()).update(&bytes);
    identify(&mut hasher, &stat);
    let main = within.read_entry(&entries, "__main__.py")?.unwrap_or_default();
    let named = named_python(&within.read(0, stat.len().min(HEAD as u64))?);
    let minor = named.or_else(|| shebang_python(&main));
    let has_preamble = has_preamble(&main);
    let zip = ZipFile { path: path.clone(), prefix: Vec::new(), start: 0, size: stat.len(), entries };
    let identity = hasher.finalize().into();
    Ok(Pex { path, shown: given.into(), root: Root::Zip(zip), info, identity, minor, has_preamble })
}

impl Pex {
    fn is_nested(&self, zip: &ZipFile) -> bool {
        zip.entries.iter().any(|entry| entry.method != Method::Store && self.is_zip_of_wheel(entry))
    }

    /// Whether the entry is a distribution as a whole, a zip by itself.
    fn is_zip_of_wheel(&self, entry: &Entry) -> bool {
        self.wheel_of(&entry.name).is_some_and(|(_, path)| path.is_empty())
    }

    fn zip_files(&self, zip: &ZipFile) -> Result<Files, PexFileError> {
        let mut files = Files { zips: vec![zip.clone()], plain: Vec::new() };
        let unreadable = |source| PexFileError::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(unreadable)?;
        for entry in zip.entries.iter().filter(|entry| self.is_zip_of_wheel(entry)) {
            let within = Within { file: &file, path: &self.path, start: 0 };
            let start = within.data_offset(entry)?;
            let entries = read_zip(&file, &self.path, start, entry.size)?;
            let prefix = [&entry.name, &b"/"[..]].concat();
            files.zips.push(ZipFile { path: self.path.clone(), prefix, start, size: entry.size, entries });
        }
        Ok(files)
    }

    /// Its layout in upstream's words: `zipapp`, `packed`, `loose`.
    pub fn layout(&self) -> &'static str {
        match &self.root {
            Root::Directory if self.path.join(BOOTSTRAP).is_file() => "packed",
            Root::Directory => "loose",
            Root::Zip(zip) if zip.entries.iter().any(|entry| *entry.name == *BOOTSTRAP.as_bytes()) => "packed, zipped",
            Root::Zip(zip) if zip.entries.iter().any(|entry| &*entry.name == b"PEX-LAYOUT") => "loose, zipped",
            Root::Zip(_) => "zipapp",
        }
    }

    /// Sizes of each distribution, by the file name of its wheel, and of all the rest.
    pub fn sizes(&self) -> Result<BTreeMap<Option<String>, Sizes>, PexFileError> {
        let mut all: BTreeMap<Option<String>, Sizes> = BTreeMap::new();
        let mut add = |name: &[u8], unpacked: u64, packed: u64| {
            let sizes = all.entry(self.wheel_of(name).map(|(wheel, _)| wheel.to_owned())).or_default();
            sizes.files += 1;
            sizes.unpacked += unpacked;
            sizes.packed += packed;
        };
        // A zip within a zip counts as one file.
        let files = match &self.root {
            Root::Zip(zip) => Files { zips: vec![zip.clone()], plain: Vec::new() },
            Root::Directory => directory_files(&self.path, &self.info)?,
        };
        for zip in &files.zips {
            for entry in &zip.entries {
                add(&[&zip.prefix[..], &entry.name].concat(), entry.size, entry.compressed_size);
            }
        }
        for (name, path) in &files.plain {
            let size = path.metadata().map_err(|source| PexFileError::Read { path: path.clone(), source })?.len();
            add(name, size, size);
        }
        Ok(all)
    }

    /// The distribution that has the entry with this name, and the entry's name within it.
    pub(crate) fn wheel_of<'a>(&self, name: &'a [u8]) -> Option<(&str, &'a [u8])> {
        let rest = name.strip_prefix(DEPS.as_bytes())?.strip_prefix(b"/")?;
        let cut = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (wheel, path) = rest.split_at_checked(cut)?;
        let (known, _) = self.info.distributions.get_key_value(std::str::from_utf8(wheel).ok()?)?;
        Some((known, path.get(1..).unwrap_or_default()))
    }
}

impl Files {
    /// The `METADATA` and `entry_points.txt` of each distribution of `pex`, by the file name of its wheel.
    fn metadata(&self, pex: &Pex) -> Result<BTreeMap<String, Metadata>, PexFileError> {
        let mut found: BTreeMap<String, Metadata> = BTreeMap::new();
        let mut add = |wheel: &str, kind: &[u8], bytes: Vec<u8>| {
            let metadata = found.entry(wheel.to_owned()).or_default();
            if kind == b"METADATA" { metadata.metadata = bytes } else { metadata.entry_points = bytes }
        };
        for zip in &self.zips {
            let file = File::open(&zip.path).map_err(|source| PexFileError::Read { path: zip.path.clone(), source })?;
            let within = Within { file: &file, path: &zip.path, start: zip.start };
            for entry in &zip.entries {
                let name = [&zip.prefix[..], &entry.name].concat();
                let Some((wheel, path)) = pex.wheel_of(&name) else { continue };
                if let Some(kind) = of_dist_info(path) {
                    add(wheel, kind, within.decoded_small(entry)?);
                }
            }
        }
        for (name, place) in &self.plain {
            let Some((wheel, path)) = pex.wheel_of(name) else { continue };
            if let Some(kind) = of_dist_info(path) {
                let bytes = fs::read(place).map_err(|source| PexFileError::Read { path: place.clone(), source })?;
                add(wheel, kind, bytes);
            }
        }
        Ok(found)
    }
}

/// The files of several PEX files, in their order.
#[derive(Debug, Default)]
pub struct Source {
    /// The files of each.
    pub files: Vec<Files>,
    /// The metadata of the wheels of each.
    pub metadata: Vec<BTreeMap<String, Metadata>>,
}

impl Source {
    /// Lists the files of `pexes`. A nested one must be unzipped before its distributions can be read: it is a directory of
    /// zips that was zipped as a whole, so that the zips in it are compressed once more. `unzip` does that, and returns where.
    pub fn of<E: From<PexFileError>>(
        pexes: &[Pex],
        unzip: impl Fn(usize, &ZipFile) -> Result<PathBuf, E>,
    ) -> Result<Self, E> {
        let mut source = Self::default();
        for (index, pex) in pexes.iter().enumerate() {
            let files = match &pex.root {
                Root::Zip(zip) if pex.is_nested(zip) => directory_files(&unzip(index, zip)?, &pex.info)?,
                Root::Zip(zip) => pex.zip_files(zip)?,
                Root::Directory => directory_files(&pex.path, &pex.info)?,
            };
            source.metadata.push(files.metadata(pex)?);
            source.files.push(files);
        }
        Ok(source)
    }
}

/// How large a part of a PEX is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub unpacked: u64,
    /// Their bytes in the PEX.
    pub packed: u64,
}

impl ZipFile {
    /// The bytes of an entry, verified.
    pub fn read(&self, entry: &Entry) -> Result<Vec<u8>, PexFileError> {
        let file = File::open(&self.path).map_err(|source| PexFileError::Read { path: self.path.clone(), source })?;
        Within { file: &file, path: &self.path, start: self.start }.decoded(entry, self.size)
    }
}

/// What a distribution says about itself.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Its `METADATA`.
    pub metadata: Vec<u8>,
    /// Its `entry_points.txt`.
    pub entry_points: Vec<u8>,
}

/// `METADATA` or `entry_points.txt`, if the path is that of one.
fn of_dist_info(path: &[u8]) -> Option<&[u8]> {
    let (directory, name) = path.split_at_checked(path.iter().position(|b| *b == b'/')?)?;
    let name = name.get(1..)?;
    (directory.ends_with(b".dist-info") && (name == b"METADATA" || name == b"entry_points.txt")).then_some(name)
}

/// The files of the PEX directory `root`, with those of its distributions.
fn directory_files(root: &Path, info: &PexInfo) -> Result<Files, PexFileError> {
    let unreadable = |source| PexFileError::Read { path: root.into(), source };
    let mut files = Files::default();
    walk(root, root, &|name| !matches!(name, b".deps" | b".bootstrap"), &mut files.plain).map_err(unreadable)?;
    for wheel in info.distributions.keys() {
        let name = format!("{DEPS}/{wheel}");
        cpack_format::SafePath::new(name.as_bytes())
            .map_err(|source| PexFileError::Name { path: root.into(), source })?;
        let path = root.join(&name);
        if path.is_file() {
            let (file, entries) = read_whole_zip(&path)?;
            let size = file.metadata().map_err(unreadable)?.len();
            files.zips.push(ZipFile { path, prefix: format!("{name}/").into_bytes(), start: 0, size, entries });
        } else if path.is_dir() {
            walk(root, &path, &|_| true, &mut files.plain).map_err(unreadable)?;
        } else {
            return Err(PexFileError::Missing { path: root.into(), what: name });
        }
    }
    Ok(files)
}

/// Lists the files below `directory` by their path below `root`. `enter` decides which names at the root to take.
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

/// The central directory of the zip file at `path`.
fn read_whole_zip(path: &Path) -> Result<(File, Vec<Entry>), PexFileError> {
    let unreadable = |source| PexFileError::Read { path: path.into(), source };
    let file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let entries = read_zip(&file, path, 0, size)?;
    Ok((file, entries))
}

/// The entries, without directories, of the zip of `size` bytes at offset `start` of `file`.
fn read_zip(file: &File, path: &Path, start: u64, size: u64) -> Result<Vec<Entry>, PexFileError> {
    let within = Within { file, path, start };
    let damaged = |source| PexFileError::Zip { path: path.into(), source };
    let tail = size.min(MAX_TAIL as u64);
    let end = read_end(&within.read(size - tail, tail)?, size).map_err(damaged)?;
    if end.directory_size > MAX_DIRECTORY {
        return Err(PexFileError::Missing { path: path.into(), what: "directory of less than 32 MiB".into() });
    }
    let directory = within.read(end.directory_offset, end.directory_size)?;
    let mut entries = read_directory(&directory, &end).map_err(damaged)?;
    entries.retain(|entry| !entry.is_directory());
    Ok(entries)
}

/// A zip within a file.
struct Within<'a> {
    file: &'a File,
    path: &'a Path,
    start: u64,
}

impl Within<'_> {
    fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, PexFileError> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, self.start.saturating_add(offset)) {
            Ok(()) => Ok(bytes),
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                Err(PexFileError::Missing { path: self.path.into(), what: "end: it is cut off".into() })
            }
            Err(source) => Err(PexFileError::Read { path: self.path.into(), source }),
        }
    }

    /// The offset of an entry's data.
    fn data_offset(&self, entry: &Entry) -> Result<u64, PexFileError> {
        let header = self.read(entry.header_offset, (LOCAL_HEADER_SIZE + entry.name.len()) as u64)?;
        let damaged = |source| PexFileError::Zip { path: self.path.into(), source };
        Ok(entry.header_offset + local_header_len(&header, entry).map_err(damaged)? as u64)
    }

    /// The bytes of the small entry with this name, if there is one.
    fn read_entry(&self, entries: &[Entry], name: &str) -> Result<Option<Vec<u8>>, PexFileError> {
        entries.iter().find(|entry| *entry.name == *name.as_bytes()).map(|entry| self.decoded_small(entry)).transpose()
    }

    /// The bytes of an entry that should be small.
    fn decoded_small(&self, entry: &Entry) -> Result<Vec<u8>, PexFileError> {
        if entry.size > MAX_PEX_INFO { Err(self.missing(entry)) } else { self.decoded(entry, MAX_PEX_INFO) }
    }

    /// The bytes of an entry of at most `limit` compressed bytes, verified.
    fn decoded(&self, entry: &Entry, limit: u64) -> Result<Vec<u8>, PexFileError> {
        if entry.compressed_size > limit {
            return Err(self.missing(entry));
        }
        let packed = self.read(self.data_offset(entry)?, entry.compressed_size)?;
        decode(entry, &packed).ok_or_else(|| self.missing(entry))
    }

    fn missing(&self, entry: &Entry) -> PexFileError {
        let what = format!("{} that can be read", String::from_utf8_lossy(&entry.name));
        PexFileError::Missing { path: self.path.into(), what }
    }
}

/// The version that the `#!` line of a script names.
fn shebang_python(script: &[u8]) -> Option<String> {
    named_python(script.split(|b| *b == b'\n').next()?)
}

/// The content of an entry, `None` if it is damaged or of an unknown method.
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
pub(crate) fn named_python(head: &[u8]) -> Option<String> {
    let end = memchr::memmem::find(head, b"PK\x03\x04").unwrap_or(head.len());
    let text = String::from_utf8_lossy(head.get(..end)?);
    text.match_indices("python3.").find_map(|(at, _)| {
        let digits: String = text.get(at + 8..)?.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then(|| format!("3.{digits}"))
    })
}
