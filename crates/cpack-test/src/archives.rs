//! Archives made byte by byte, so that they can be wrong.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use cpack_format::content::{Item, Kind, content_digest};
use cpack_format::manifest::{Archive, Piece};
use cpack_format::zip::{self, Entry, Frames, Method};
use cpack_format::{Digest, SafePath};

/// The expected file, link or directory on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    File(Vec<u8>),
    Executable(Vec<u8>),
    Link(Vec<u8>),
    Directory,
}

/// The contents of a directory, by path. Only empty directories are listed.
pub type Nodes = BTreeMap<String, Node>;

/// Reads everything below `root`.
pub fn read_tree(root: &Path) -> Nodes {
    use std::os::unix::ffi::OsStringExt as _;
    use std::os::unix::fs::MetadataExt as _;
    let mut nodes = Nodes::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let mut empty = true;
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            empty = false;
            let path = entry.expect("an entry").path();
            let metadata = path.symlink_metadata().expect("metadata");
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            if metadata.is_dir() {
                pending.push(path);
            } else if metadata.is_symlink() {
                let target = std::fs::read_link(&path).expect("a link").into_os_string().into_vec();
                nodes.insert(name, Node::Link(target));
            } else {
                assert_eq!(metadata.mode() & 0o222, 0, "{name} is writable");
                assert_eq!(metadata.mode() & 0o7000, 0, "{name} has a special bit");
                let bytes = std::fs::read(&path).expect("a file");
                let executable = metadata.mode() & 0o111 != 0;
                nodes.insert(name, if executable { Node::Executable(bytes) } else { Node::File(bytes) });
            }
        }
        if empty && directory != root {
            let name = directory.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            nodes.insert(name, Node::Directory);
        }
    }
    nodes
}

pub fn open_directory(path: &Path) -> OwnedFd {
    std::fs::File::open(path).expect("a directory").into()
}

/// Builds an archive: entries, then the central directory.
#[derive(Debug, Default)]
pub struct Maker {
    pub bytes: Vec<u8>,
    pub entries: Vec<Entry>,
    items: Vec<Item>,
    /// The ends of pieces.
    cuts: Vec<usize>,
    /// The least size of a piece: it ends at the next entry or frame.
    pub piece: usize,
}

impl Maker {
    pub fn new(piece: usize) -> Self {
        Self { piece, ..Self::default() }
    }

    /// Appends an entry, in frames of `frame` bytes if it is longer and `frame` is not 0.
    pub fn add(&mut self, path: &str, node: &Node, method: Method, frame: usize) {
        let (kind, content) = match node {
            Node::File(bytes) => (Kind::File, bytes.as_slice()),
            Node::Executable(bytes) => (Kind::Executable, bytes.as_slice()),
            Node::Link(target) => (Kind::Link, target.as_slice()),
            Node::Directory => (Kind::Directory, &[][..]),
        };
        let name = if kind == Kind::Directory { format!("{path}/") } else { path.to_owned() };
        if let Ok(path) = SafePath::new(path.as_bytes()) {
            self.items.push(Item { path, kind, size: content.len() as u64, digest: Digest::of(content) });
        }
        self.add_raw(name.as_bytes(), kind.mode(), content, method, frame);
    }

    /// Appends an entry with any name and mode.
    pub fn add_raw(&mut self, name: &[u8], mode: u32, content: &[u8], method: Method, frame: usize) {
        let framed = frame > 0 && content.len() > frame;
        let parts: Vec<&[u8]> = if framed { content.chunks(frame).collect() } else { vec![content] };
        let last = parts.len() - 1;
        let packed: Vec<Vec<u8>> =
            parts.iter().enumerate().map(|(i, part)| compress(part, method, i == last)).collect();
        let lengths = packed.iter().map(|p| u32::try_from(p.len()).expect("small")).collect();
        let entry = Entry {
            name: name.into(),
            method,
            crc32: crc32fast::hash(content),
            compressed_size: packed.iter().map(|p| p.len() as u64).sum(),
            size: content.len() as u64,
            header_offset: self.bytes.len() as u64,
            mode,
            frames: framed.then_some(Frames { size: frame as u64, lengths }),
        };
        self.cut();
        self.bytes.extend_from_slice(&zip::local_header(&entry));
        for (i, part) in packed.iter().enumerate() {
            if i > 0 {
                self.cut();
            }
            self.bytes.extend_from_slice(part);
        }
        if framed {
            self.bytes.extend_from_slice(&zip::descriptor(&entry));
        }
        self.entries.push(entry);
    }

    fn cut(&mut self) {
        if self.bytes.len() - self.cuts.last().copied().unwrap_or(0) >= self.piece.max(1) {
            self.cuts.push(self.bytes.len());
        }
    }

    /// The whole zip.
    pub fn zip(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let directory: Vec<u8> = self.entries.iter().flat_map(zip::central_record).collect();
        bytes.extend_from_slice(&directory);
        let (count, offset) = (self.entries.len() as u64, self.bytes.len() as u64);
        bytes.extend_from_slice(&zip::end_records(count, directory.len() as u64, offset, b""));
        bytes
    }

    /// The bytes of a layer, with its archive and content digest for a manifest.
    pub fn layer(mut self) -> (Vec<u8>, Archive, Digest) {
        let bytes = self.zip();
        let archive = self.describe(&bytes);
        (bytes, archive, content_digest(&mut self.items))
    }

    /// Describes `bytes` with the pieces of this archive. The directory has pieces of its own.
    pub fn describe(&self, bytes: &[u8]) -> Archive {
        let directory = self.bytes.len();
        let mut cuts: Vec<usize> = self.cuts.iter().copied().filter(|cut| *cut < directory).collect();
        cuts.push(directory);
        // The directory has two pieces.
        cuts.push(directory + (bytes.len() - directory) / 2);
        cuts.push(bytes.len());
        cuts.dedup();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let pieces = starts.zip(&cuts).filter(|(start, end)| start < *end).map(|(start, end)| Piece {
            size: u32::try_from(end - start).expect("small"),
            digest: Digest::of(&bytes[start..*end]),
        });
        Archive {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            unpacked: self.entries.iter().map(|e| e.size).sum(),
            files: self.entries.len() as u64,
            directory: directory as u64,
            pieces: pieces.collect(),
        }
    }
}

/// Compresses `content`. A deflate frame that is not the last ends with a full flush.
fn compress(content: &[u8], method: Method, last: bool) -> Vec<u8> {
    match method {
        Method::Store => content.to_vec(),
        Method::Zstd => zstd::bulk::compress(content, 1).expect("zstd"),
        Method::Deflate => {
            let flush = if last { flate2::FlushCompress::Finish } else { flate2::FlushCompress::Full };
            let mut out = Vec::with_capacity(content.len() * 2 + 100);
            let mut deflate = flate2::Compress::new(flate2::Compression::fast(), false);
            deflate.compress_vec(content, &mut out, flush).expect("deflate");
            assert_eq!(deflate.total_in() as usize, content.len());
            out
        }
    }
}
