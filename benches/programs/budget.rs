//! Measures each necessary part of an extraction by itself on all cores: `budget ARCHIVES DIRECTORY THREADS`.
//!
//! ARCHIVES is a directory store with one environment, or a zip file, and should be in page cache. DIRECTORY is fresh and on the
//! measured file system. Prints the seconds of each part, as `name value` lines:
//!
//! - `decode`: read and decode every frame of every layer or entry of the zip file, into a reused buffer (zstd by
//!   libzstd, deflate by libdeflate, a whole entry at a time);
//! - `digest`: BLAKE3 of the archives and of their content; for a zip file CRC-32 of its content;
//! - `write`: create every directory and file and write as many bytes to it;
//! - `link`: make a hard link to each file in a second tree, as in the node cache.
//!
//! The budget of a cold start is the sum of the first three. Linking is reported separately.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cpack_format::manifest::Manifest;
use cpack_format::zip::{self, Method};
use cpack_parallel::try_map_with;
use cpack_store::Key;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One frame, or a whole small entry.
struct Unit {
    archive: usize,
    method: Method,
    /// Its range in the archive.
    at: u64,
    packed: usize,
    /// Its file, and its offset and length in that file.
    file: usize,
    offset: u64,
    size: usize,
}

/// The contents of an environment's layers.
#[derive(Default)]
struct Work {
    archives: Vec<File>,
    /// Whether it is one zip file, which has CRC-32 only.
    is_zip: bool,
    files: Vec<PathBuf>,
    units: Vec<Unit>,
}

fn main() -> Result<()> {
    // `cargo bench` passes flags of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [archives, directory, threads] = arguments.as_slice() else {
        println!("usage: budget ARCHIVES DIRECTORY THREADS");
        return Ok(());
    };
    let threads: usize = threads.parse()?;
    let work = if Path::new(archives).is_dir() { read_store(archives.as_ref())? } else { read_zip(archives.as_ref())? };
    let decode = on_all(threads, &work.units, Buffers::default, |buffers, unit| buffers.decode(&work, unit))?;
    let digest = on_all(threads, &work.units, Buffers::default, |buffers, unit| buffers.digest(&work, unit))?;
    let tree = Path::new(directory).join("tree");
    let write = write(&work, &tree, threads)?;
    let link = link(&work, &tree, &Path::new(directory).join("links"), threads)?;
    for (name, time) in [("decode", decode), ("digest", digest), ("write", write), ("link", link)] {
        println!("{name} {:.6}", time.as_secs_f64());
    }
    println!("files {}\nbytes {}", work.files.len(), work.units.iter().map(|u| u.size).sum::<usize>());
    Ok(())
}

/// Calls `each` for every item on `threads` threads, each with its own state. Returns the elapsed time.
fn on_all<T: Sync, S>(
    threads: usize,
    items: &[T],
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, &T) -> Result<()> + Sync,
) -> Result<Duration> {
    let start = Instant::now();
    try_map_with(threads, items, state, each)?;
    Ok(start.elapsed())
}

/// Buffers that a thread reuses.
#[derive(Default)]
struct Buffers {
    packed: Vec<u8>,
    content: Vec<u8>,
    zstd: Option<::zstd::bulk::Decompressor<'static>>,
    deflate: Option<libdeflater::Decompressor>,
}

/// `len` bytes of `buffer`, with any contents.
fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        buffer.resize(len, 0x5a);
    }
    &mut buffer[..len]
}

impl Buffers {
    fn decode(&mut self, work: &Work, unit: &Unit) -> Result<()> {
        let packed = room(&mut self.packed, unit.packed);
        work.archives[unit.archive].read_exact_at(packed, unit.at)?;
        if unit.method == Method::Store {
            return Ok(());
        }
        let content = room(&mut self.content, unit.size);
        let found = if unit.method == Method::Deflate {
            self.deflate.get_or_insert_default().deflate_decompress(packed, content)?
        } else {
            let decoder = match &mut self.zstd {
                Some(decoder) => decoder,
                none => none.insert(::zstd::bulk::Decompressor::new()?),
            };
            decoder.decompress_to_buffer(packed, content)?
        };
        if found != unit.size {
            return Err(format!("{} decodes to {found} bytes", work.files[unit.file].display()).into());
        }
        Ok(())
    }

    fn digest(&mut self, work: &Work, unit: &Unit) -> Result<()> {
        if work.is_zip {
            black_box(libdeflater::crc32(room(&mut self.content, unit.size)));
            return Ok(());
        }
        black_box(blake3::hash(room(&mut self.packed, unit.packed)));
        black_box(blake3::hash(room(&mut self.content, unit.size)));
        Ok(())
    }
}

/// Creates and writes every file below `tree`.
fn write(work: &Work, tree: &Path, threads: usize) -> Result<Duration> {
    let open: Vec<OnceLock<File>> = work.files.iter().map(|_| OnceLock::new()).collect();
    let parts = count_parts(work);
    let start = Instant::now();
    make_directories(work, tree)?;
    on_all(threads, &work.units, Buffers::default, |buffers, unit| {
        let path = tree.join(&work.files[unit.file]);
        let content = room(&mut buffers.content, unit.size);
        if parts[unit.file] == 1 {
            return Ok(fs::write(path, content)?);
        }
        let file = match open[unit.file].get() {
            Some(file) => file,
            None => open[unit.file].get_or_init(|| File::create(&path).unwrap_or_else(|e| fail(&path, &e))),
        };
        Ok(file.write_all_at(content, unit.offset)?)
    })?;
    Ok(start.elapsed())
}

/// Links every file of `tree` into `links`.
fn link(work: &Work, tree: &Path, links: &Path, threads: usize) -> Result<Duration> {
    let start = Instant::now();
    make_directories(work, links)?;
    on_all(threads, &work.files, || (), |(), path| Ok(fs::hard_link(tree.join(path), links.join(path))?))?;
    Ok(start.elapsed())
}

fn make_directories(work: &Work, tree: &Path) -> Result<()> {
    let parents: BTreeSet<&Path> = work.files.iter().filter_map(|path| path.parent()).collect();
    parents.into_iter().try_for_each(|parent| fs::create_dir_all(tree.join(parent)))?;
    Ok(())
}

fn count_parts(work: &Work) -> Vec<usize> {
    let mut parts = vec![0; work.files.len()];
    work.units.iter().for_each(|unit| parts[unit.file] += 1);
    parts
}

#[expect(clippy::panic, reason = "a benchmark without a disk has nothing to say")]
fn fail(path: &Path, error: &std::io::Error) -> File {
    panic!("cannot write {}: {error}", path.display())
}

/// The layers of the one environment in a directory store.
fn read_store(store: &Path) -> Result<Work> {
    let manifests: Vec<_> = fs::read_dir(store.join("environments"))?.collect::<std::io::Result<_>>()?;
    let [manifest] = manifests.as_slice() else {
        return Err(format!("{} has {} environments, expected one", store.display(), manifests.len()).into());
    };
    let mut work = Work::default();
    for layer in Manifest::parse(&fs::read(manifest.path())?)?.layers {
        let path = store.join(Key::layer(&layer.archive.digest).as_str());
        read_archive(&path, &mut work).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(work)
}

/// The entries of a zip file, largest first, so that no thread works alone on a large one at the end.
fn read_zip(path: &Path) -> Result<Work> {
    let mut work = Work { is_zip: true, ..Work::default() };
    read_archive(path, &mut work)?;
    work.units.sort_by_key(|unit| std::cmp::Reverse(unit.size));
    Ok(work)
}

/// Adds the frames of one archive.
fn read_archive(path: &Path, work: &mut Work) -> Result<()> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut tail = vec![0; usize::try_from(size)?.min(zip::MAX_TAIL)];
    let start = size - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    let end = zip::read_end(&tail, size)?;
    let mut directory = vec![0; usize::try_from(end.directory_size)?];
    file.read_exact_at(&mut directory, end.directory_offset)?;
    let archive = work.archives.len();
    for entry in zip::read_directory(&directory, &end)? {
        if entry.is_directory() || entry.is_link() {
            continue;
        }
        let mut header = vec![0; zip::LOCAL_HEADER_SIZE + entry.name.len()];
        file.read_exact_at(&mut header, entry.header_offset)?;
        let mut at = entry.header_offset + zip::local_header_len(&header, &entry)? as u64;
        let number = work.files.len();
        work.files.push(PathBuf::from(format!("{archive}")).join(String::from_utf8(entry.name.to_vec())?));
        let whole = || (entry.size.max(1), vec![u32::try_from(entry.compressed_size).unwrap_or(u32::MAX)]);
        let (frame, lengths) = entry.frames.as_ref().map_or_else(whole, |f| (f.size, f.lengths.clone()));
        for (index, packed) in lengths.into_iter().enumerate() {
            let offset = index as u64 * frame;
            let size = usize::try_from((entry.size - offset).min(frame))?;
            let packed = packed as usize;
            work.units.push(Unit { archive, method: entry.method, at, packed, file: number, offset, size });
            at += packed as u64;
        }
    }
    work.archives.push(file);
    Ok(())
}
