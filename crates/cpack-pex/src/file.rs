//! A PEX on disk: its `PEX-INFO` and its files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::zip::{Entry, Method};

use crate::error::PexFileError;
use crate::info::{BOOTSTRAP, DEPS, PexInfo};
use crate::wheelhouse::Wheelhouse;
use crate::within::{Within, read_whole_zip, read_zip};

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
    /// Set if it is a wheelhouse: `info` is then what it stands for.
    pub wheelhouse: Option<Wheelhouse>,
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

impl Pex {
    fn is_nested(&self, zip: &ZipFile) -> bool {
        zip.entries.iter().any(|entry| entry.method != Method::Store && self.is_zip_of_wheel(entry))
    }

    /// Whether the entry is a distribution as a whole, a zip by itself.
    fn is_zip_of_wheel(&self, entry: &Entry) -> bool {
        self.wheel_of(&entry.name).is_some_and(|(_, path)| path.is_empty())
    }

    fn zip_files(&self, zip: &ZipFile) -> Result<Files, PexFileError> {
        // A wheelhouse has nothing but its wheels.
        let own = self.wheelhouse.is_none().then(|| zip.clone());
        let mut files = Files { zips: own.into_iter().collect(), plain: Vec::new() };
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
            Root::Directory if self.wheelhouse.is_some() => "wheelhouse",
            Root::Zip(_) if self.wheelhouse.is_some() => "wheelhouse, zipped",
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
            Root::Directory => self.directory_files(&self.path)?,
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

    /// The directory of the wheels.
    fn wheels(&self) -> &str {
        self.wheelhouse.as_ref().map_or(DEPS, |wheelhouse| &wheelhouse.directory)
    }

    /// The files of the directory `root`, which is this PEX or was unzipped from it, with those of its distributions.
    fn directory_files(&self, root: &Path) -> Result<Files, PexFileError> {
        let unreadable = |source| PexFileError::Read { path: root.into(), source };
        let mut files = Files::default();
        if self.wheelhouse.is_none() {
            walk(root, root, &|name| !matches!(name, b".deps" | b".bootstrap"), &mut files.plain)
                .map_err(unreadable)?;
        }
        for wheel in self.info.distributions.keys() {
            let name = if self.wheels().is_empty() { wheel.clone() } else { format!("{}/{wheel}", self.wheels()) };
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

    /// The distribution that has the entry with this name, and the entry's name within it.
    pub(crate) fn wheel_of<'a>(&self, name: &'a [u8]) -> Option<(&str, &'a [u8])> {
        let rest = match self.wheels() {
            "" => name,
            directory => name.strip_prefix(directory.as_bytes())?.strip_prefix(b"/")?,
        };
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
                Root::Zip(zip) if pex.is_nested(zip) => pex.directory_files(&unzip(index, zip)?)?,
                Root::Zip(zip) => pex.zip_files(zip)?,
                Root::Directory => pex.directory_files(&pex.path)?,
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

/// Lists the files below `directory` by their path below `root`. `enter` decides which names at the root to take.
pub(crate) fn walk(
    root: &Path,
    directory: &Path,
    enter: &dyn Fn(&[u8]) -> bool,
    found: &mut Vec<(Box<[u8]>, PathBuf)>,
) -> io::Result<()> {
    // It is closed before those below it are opened: a deep PEX needs no descriptor for each level.
    let mut below = Vec::new();
    for item in fs::read_dir(directory)? {
        let item = item?;
        let (path, kind) = (item.path(), item.file_type()?);
        if directory == root && !enter(item.file_name().as_bytes()) {
            continue;
        }
        if kind.is_dir() {
            below.push(path);
        } else if path.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_bytes().into();
            found.push((name, path));
        }
    }
    below.iter().try_for_each(|path| walk(root, path, enter, found))
}
