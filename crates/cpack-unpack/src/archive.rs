//! Archives: recognised by their first bytes, identified by `stat`, unpacked.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cpack_extract::{Compression, FileSource, Limits, Stats, TarTask, ZipTask, extract_tar, extract_zip, peek_tar};
use cpack_format::digest::{merge_parts, part_hash};
use cpack_format::zip::{Entry, MAX_TAIL, read_directory, read_end};
use cpack_format::{Digest, SafePath};
use cpack_parallel::try_map_with;

use crate::contents::Unpacked;
use crate::error::UnpackError;
use crate::mend::is_python_name;

/// Changed when the same archive is unpacked to other files.
const FORMAT: &[u8] = b"cluster-pack unpacked archive 1\n";

/// Bytes of a tar's first header.
const HEAD: u64 = 512;

/// Bytes that one thread hashes at a time.
const PART: u64 = 1 << 20;

/// Longest directory of a zip that is read to tell what it holds.
const MAX_DIRECTORY: u64 = 32 << 20;

/// An archive of an environment.
#[derive(Debug)]
pub struct Archive {
    /// Without symbolic links.
    pub path: PathBuf,
    /// Stands for path, length, times and inode: another file, or the same one changed, has another.
    pub identity: Digest,
    form: Form,
}

fn identity(path: &Path, stat: &Metadata) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT).update(path.as_os_str().as_bytes());
    let times = [stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec()].map(i64::cast_unsigned);
    for number in [stat.dev(), stat.ino(), stat.size()].into_iter().chain(times) {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize().into()
}

/// The BLAKE3 digest of a file.
fn digest_of(file: &File, threads: usize) -> io::Result<Digest> {
    let len = file.metadata()?.len();
    let read = |buffer: &mut Vec<u8>, offset: u64| {
        buffer.resize(PART.min(len - offset) as usize, 0);
        file.read_exact_at(buffer, offset)
    };
    if len <= PART {
        let mut bytes = Vec::new();
        return read(&mut bytes, 0).map(|()| Digest::of(&bytes));
    }
    let offsets: Vec<u64> = (0..len.div_ceil(PART)).map(|part| part * PART).collect();
    let parts = try_map_with(threads, &offsets, Vec::new, |buffer, offset| {
        read(buffer, *offset).map(|()| part_hash(*offset, buffer))
    })?;
    merge_parts(&parts).ok_or_else(|| io::Error::other("it has no parts"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Tar(Compression),
    Zip,
}

impl Archive {
    /// The archive at `path`. `None` if there is something else, which others may know: a PEX, a wheelhouse, a launcher.
    pub fn open(path: &Path) -> Result<Option<Self>, UnpackError> {
        let Ok(file) = File::open(path) else { return Ok(None) };
        let failed = |source| UnpackError::Read { path: path.into(), source };
        let stat = file.metadata().map_err(failed)?;
        if !stat.is_file() {
            return Ok(None);
        }
        let mut head = Vec::new();
        (&file).take(HEAD).read_to_end(&mut head).map_err(failed)?;
        let codec = |codec| Err(UnpackError::Codec { path: path.into(), codec });
        let form = match head.as_slice() {
            [0x1f, 0x8b, ..] => Form::Tar(Compression::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Form::Tar(Compression::Zstd),
            [b'B', b'Z', b'h', ..] => Form::Tar(Compression::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => Form::Tar(Compression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => return codec("lz4"),
            [b'P', b'K', ..] if holds_environment(&file, stat.len()) => Form::Zip,
            head if head.get(257..262) == Some(b"ustar") => Form::Tar(Compression::None),
            _ => return Ok(None),
        };
        let path = path.canonicalize().map_err(failed)?;
        let identity = identity(&path, &stat);
        Ok(Some(Self { path, identity, form }))
    }

    /// Whether it is a tar of wheels, at its top or in one directory there, and no environment. Reads as far as the first file that
    /// tells: in a wheelhouse that is the first or the second, as a rule, and in an environment the first.
    pub fn holds_wheels(&self) -> Result<bool, UnpackError> {
        let Form::Tar(compression) = self.form else { return Ok(false) };
        let file = File::open(&self.path).map_err(|source| UnpackError::Read { path: self.path.clone(), source })?;
        Ok(peek_tar(file, compression, &mut is_wheel).unwrap_or(false))
    }

    /// Unpacks a wheelhouse below the empty directory `into`, as it is.
    pub fn unpack_wheels(&self, into: &Path, limits: &Limits) -> Result<(), UnpackError> {
        self.extract(into, limits, &AtomicBool::new(false), &|| {}).map(drop)
    }

    /// The digest of its bytes. Reads all of them, on this many threads.
    pub fn content(&self, threads: usize) -> Result<Digest, UnpackError> {
        let failed = |source| UnpackError::Read { path: self.path.clone(), source };
        let digest = File::open(&self.path).and_then(|file| digest_of(&file, threads)).map_err(failed)?;
        Ok(Digest::of(&[FORMAT, digest.as_bytes()].concat()))
    }

    /// Refuses an archive that was changed or replaced since it was opened: what was read of it may be of two.
    pub fn require_unchanged(&self) -> Result<(), UnpackError> {
        let failed = |source| UnpackError::Read { path: self.path.clone(), source };
        let stat = self.path.metadata().map_err(failed)?;
        let same = identity(&self.path, &stat) == self.identity;
        if same { Ok(()) } else { Err(failed(io::Error::other("it changed while it was read"))) }
    }

    /// Unpacks the environment below the empty directory `into`, which no other process uses, and makes it independent of its
    /// place. Calls `progress` often. After an error, or a kill, the caller removes the directory.
    pub fn unpack(
        &self,
        into: &Path,
        limits: &Limits,
        cancel: &AtomicBool,
        progress: &dyn Fn(),
    ) -> Result<Unpacked, UnpackError> {
        let stats = self.extract(into, limits, cancel, progress)?;
        Unpacked::read(&self.path, into, stats)
    }

    fn extract(
        &self,
        into: &Path,
        limits: &Limits,
        cancel: &AtomicBool,
        progress: &dyn Fn(),
    ) -> Result<Stats, UnpackError> {
        let file = File::open(&self.path).map_err(|source| UnpackError::Read { path: self.path.clone(), source })?;
        let opened = File::open(into).map_err(|source| UnpackError::Write { path: into.into(), source })?;
        let (name, into) = (self.path.display().to_string(), OwnedFd::from(opened));
        let extracted = match self.form {
            Form::Tar(compression) => {
                let (leaves_out, may_repeat) = (&is_interpreter, &may_repeat);
                extract_tar(TarTask { name, file, compression, into, leaves_out, may_repeat }, limits, cancel, progress)
            }
            Form::Zip => {
                let failed = |source| UnpackError::Read { path: self.path.clone(), source };
                let size = file.metadata().map_err(failed)?.len();
                let repeated = last_of_repeated(&zip_entries(&file, size).map_err(failed)?);
                let source = Box::new(FileSource::new(file, self.path.clone(), 0));
                let select = |entry: &Entry| {
                    let is_older = repeated.get(&*entry.name).is_some_and(|last| *last != entry.header_offset);
                    let is_left_out =
                        is_older || entry.is_link() && safe(&entry.name).is_some_and(|path| is_interpreter(&path));
                    (!is_left_out).then(|| entry.name.to_vec())
                };
                extract_zip(ZipTask { name, source, size, into, links: true }, &select, limits, cancel)
            }
        };
        extracted.map_err(|failure| UnpackError::Extract(Box::new(failure)))
    }
}

/// Whether a file says that its archive is a wheelhouse, or that it is not. `None` for what may lie in either.
fn is_wheel(path: &SafePath) -> Option<bool> {
    let (directories, name) = directories_of(path);
    let may_be_beside_wheels =
        name.starts_with(b".") || [&b".txt"[..], b".md", b".tar.gz", b".zip"].iter().any(|end| name.ends_with(end));
    match directories.as_slice() {
        [] | [_] if name.ends_with(b".whl") => Some(true),
        [] | [_] if may_be_beside_wheels => None,
        _ => Some(false),
    }
}

fn safe(name: &[u8]) -> Option<SafePath> {
    SafePath::new(name).ok()
}

/// Splits a path into its directories and its name.
fn directories_of(path: &SafePath) -> (Vec<&[u8]>, &[u8]) {
    let mut parts: Vec<&[u8]> = path.components().collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

/// Whether this is the interpreter of an environment: a link to one that each node has for itself.
fn is_interpreter(path: &SafePath) -> bool {
    let (directories, name) = directories_of(path);
    matches!(directories.as_slice(), [b"bin"] | [_, b"bin"]) && is_python_name(name)
}

/// Whether an archive may have several files with this path. venv-pack2 0.9.2 writes `pyvenv.cfg` and `bin/Activate.ps1` twice, and
/// the last one counts.
fn may_repeat(path: &SafePath) -> bool {
    let (directories, name) = directories_of(path);
    match directories.as_slice() {
        [] | [_] if name == b"pyvenv.cfg" => true,
        [b"bin"] | [_, b"bin"] => name.to_ascii_lowercase().starts_with(b"activate"),
        _ => false,
    }
}

/// Where the last entry of each such path is.
fn last_of_repeated(entries: &[Entry]) -> HashMap<Box<[u8]>, u64> {
    let mut last = HashMap::new();
    for entry in entries.iter().filter(|entry| safe(&entry.name).is_some_and(|path| may_repeat(&path))) {
        last.insert(entry.name.clone(), entry.header_offset);
    }
    last
}

fn zip_entries(file: &File, size: u64) -> io::Result<Vec<Entry>> {
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(MAX_TAIL);
    let mut tail = vec![0; length];
    file.read_exact_at(&mut tail, size - length as u64)?;
    let end = read_end(&tail, size).map_err(io::Error::other)?;
    if end.directory_size > MAX_DIRECTORY {
        return Err(io::Error::other("its directory is too large"));
    }
    let mut directory = vec![0; usize::try_from(end.directory_size).unwrap_or(0)];
    file.read_exact_at(&mut directory, end.directory_offset)?;
    read_directory(&directory, &end).map_err(io::Error::other)
}

/// Whether a zip holds an environment, not a PEX or wheels.
fn holds_environment(file: &File, size: u64) -> bool {
    let entries = zip_entries(file, size).unwrap_or_default();
    let is_pex = entries.iter().any(|entry| *entry.name == *b"PEX-INFO");
    let is_of_environment = |entry: &Entry| {
        let Some(path) = safe(&entry.name) else { return false };
        let (directories, name) = directories_of(&path);
        match directories.as_slice() {
            [] | [_] if name == b"pyvenv.cfg" => true,
            [b"conda-meta"] | [_, b"conda-meta"] => true,
            _ => is_interpreter(&path),
        }
    };
    !is_pex && entries.iter().any(is_of_environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_file_is_the_same_on_any_number_of_threads() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("file");
        for len in [0, 1, PART, PART + 1, 5 * PART - 1, 8 * PART] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            std::fs::write(&path, &bytes).expect("writes");
            let file = File::open(&path).expect("opens");
            for threads in [1, 3] {
                assert_eq!(digest_of(&file, threads).expect("reads"), Digest::of(&bytes), "{len} bytes");
            }
        }
    }

    #[test]
    fn first_files_tell_wheelhouses_from_environments() {
        for (files, expected) in [
            (&["requirements.txt", "a-1-py3-none-any.whl"][..], Some(true)),
            (&["house/b-1.tar.gz", "house/a-1-py3-none-any.whl"], Some(true)),
            (&["env/requirements.txt", "env/pyvenv.cfg", "env/x.whl"], Some(false)),
            (&["bin/python"], Some(false)),
            (&["lib/python3.11/ensurepip/_bundled/pip-1-py3-none-any.whl"], Some(false)),
            (&["notes.txt"], None),
        ] {
            let paths = files.iter().map(|file| SafePath::new(file.as_bytes()).expect("safe"));
            assert_eq!(paths.into_iter().find_map(|path| is_wheel(&path)), expected, "{files:?}");
        }
    }
}
