//! One layer: its files in the node cache if they are there, else its archive.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cpack_extract::{LayerArchive, Limits};
use cpack_fault::point;
use cpack_format::content::Kind;
use cpack_format::manifest;
use cpack_format::trace::{self, Touch, TracedPiece};
use cpack_node::building::{layer_source, layer_title};
use cpack_node::cache::{Cache, Lease};
use cpack_node::listing;
use cpack_store::Store;

use crate::ahead::Purpose;
use crate::blocks::{Bytes, Key};
use crate::buffers::spare;
use crate::error::LazyError;
use crate::reads::Reads;

/// A block of more bytes is not decoded for one read. Layers that this project packs have frames of 1 MiB.
const LARGEST_BLOCK: u64 = 64 << 20;

/// A file, link or directory of a layer.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
}

/// A layer that is served.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Which of the environment's layers it is.
    index: u32,
    described: &'static manifest::Layer,
    cache: &'static Cache,
    /// Its files in the node cache: from the start, or as soon as another process has put them there.
    cached: OnceLock<Cached>,
    /// `None` if it was in the node cache from the start.
    archive: Option<LayerArchive<'static>>,
    files: Vec<Listed>,
}

#[derive(Debug)]
struct Cached {
    root: PathBuf,
    /// Keeps clean-up away while the layer is served.
    _lease: Lease,
}

impl Layer {
    /// Lists a layer: from its directory in the node cache, unless its `pieces` are wanted, or that of its archive.
    pub(crate) fn open(
        index: u32,
        described: &'static manifest::Layer,
        cache: &'static Cache,
        store: &'static dyn Store,
        pieces: bool,
    ) -> Result<Self, LazyError> {
        let cached = OnceLock::new();
        if let (false, Some(found)) = (pieces, find(cache, described)) {
            let files = list(&found.root)?;
            let _ = cached.set(found);
            return Ok(Self { index, described, cache, cached, archive: None, files });
        }
        let source = layer_source(store, described)?;
        let archive = LayerArchive::open(layer_title(described), &described.archive, source, &Limits::default())?;
        let mut files = Vec::new();
        for file in archive.files() {
            let (path, kind, size) = (file.path.as_path().to_owned(), file.kind, file.size);
            if file.block.min(size) > LARGEST_BLOCK {
                return Err(LazyError::Uncut { layer: layer_title(described), path, size });
            }
            files.push(Listed { path, kind, size });
        }
        Ok(Self { index, described, cache, cached, archive: Some(archive), files })
    }

    /// Bytes of its archive that [`Self::open`] has fetched.
    pub(crate) fn directory_size(&self) -> u64 {
        let archive = &self.described.archive;
        if self.archive.is_some() { archive.size.saturating_sub(archive.directory) } else { 0 }
    }

    /// How many pieces of its archive are fetched as they are needed.
    pub(crate) fn pieces(&self) -> u32 {
        self.archive.as_ref().map_or(0, LayerArchive::pieces)
    }

    /// Its files, links and directories. The position of each is its number.
    pub(crate) fn files(&self) -> &[Listed] {
        &self.files
    }

    /// Reads `size` bytes of the file `number` from `offset` on, or up to its end.
    pub(crate) fn read(&self, reads: &Reads, number: u32, offset: u64, size: u32) -> Result<Vec<u8>, LazyError> {
        let file = self.files.get(number as usize).ok_or(LazyError::Missing("a file of a layer"))?;
        let end = file.size.min(offset.saturating_add(size.into()));
        let Some(archive) = &self.archive else {
            return self.read_cached(file, offset, end);
        };
        let mut bytes = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let block_size = archive.file(number).ok_or(LazyError::Missing("a file of an archive"))?.block;
        let mut at = offset;
        while at < end {
            let block = u32::try_from(at / block_size).unwrap_or(u32::MAX);
            self.touch(archive, reads, file, (number, block, block_size))?;
            let piece = archive.piece_of(number, block)?;
            reads.ahead.asked_for(TracedPiece(self.index, piece));
            if self.cached.get().is_some() {
                // It may have been fetched ahead before the layer was there.
                reads.blocks.forget(Key::Piece { layer: self.index, number: piece });
                bytes.extend(self.read_cached(file, at, end)?);
                return Ok(bytes);
            }
            let content = self.block(archive, reads, number, block)?;
            let start = u64::from(block) * block_size;
            let range = (at - start) as usize..(end - start).min(block_size) as usize;
            let part = content.get(range).filter(|part| !part.is_empty()).ok_or(LazyError::Missing("a block"))?;
            bytes.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(bytes)
    }

    /// The target of the link `number`.
    pub(crate) fn target(&self, reads: &Reads, number: u32) -> Result<Vec<u8>, LazyError> {
        let file = self.files.get(number as usize).ok_or(LazyError::Missing("a link of a layer"))?;
        match (&self.archive, self.cached.get()) {
            (None, Some(cached)) => {
                use std::os::unix::ffi::OsStringExt as _;
                let path = cached.root.join(&file.path);
                Ok(fs::read_link(&path).map_err(LazyError::read(path))?.into_os_string().into_vec())
            }
            (Some(archive), _) => {
                self.touch(archive, reads, file, (number, 0, 1))?;
                Ok(self.block(archive, reads, number, 0)?.to_vec())
            }
            (None, None) => Err(LazyError::Missing("a layer")),
        }
    }

    /// Records the first read of a block, if a trace is recorded.
    fn touch(
        &self,
        archive: &LayerArchive<'_>,
        reads: &Reads,
        file: &Listed,
        (number, block, block_size): (u32, u32, u64),
    ) -> Result<(), LazyError> {
        let Some(record) = reads.first_of((self.index, number, block)) else { return Ok(()) };
        record(&Touch {
            format: trace::FORMAT,
            layer: self.described.name.clone(),
            archive: self.described.archive.digest,
            path: file.path.to_string_lossy().into_owned(),
            offset: u64::from(block) * block_size,
            piece: archive.piece_of(number, block)?,
        });
        Ok(())
    }

    fn block(&self, archive: &LayerArchive<'_>, reads: &Reads, file: u32, block: u32) -> Result<Bytes, LazyError> {
        let layer = self.index;
        reads.blocks.get(Key::Block { layer, file, block }, || {
            let number = archive.piece_of(file, block)?;
            let fetch = || self.fetch(archive, reads, number, Purpose::Demand);
            let piece = reads.blocks.get(Key::Piece { layer, number }, fetch)?;
            let _event = cpack_events::span("decode", || layer_title(self.described)).of(piece.len() as u64);
            Ok(archive.decode((file, block), &piece, spare)?)
        })
    }

    fn fetch(
        &self,
        archive: &LayerArchive<'_>,
        reads: &Reads,
        number: u32,
        purpose: Purpose,
    ) -> Result<Vec<u8>, LazyError> {
        // A fetch costs more than a look: another process may have built the layer meanwhile.
        if self.cached.get().is_none()
            && let Some(found) = find(self.cache, self.described)
        {
            let _ = self.cached.set(found);
        }
        let fetch = || {
            let bytes = reads.fetch(purpose, || layer_title(self.described), || archive.read_piece(number, spare))?;
            point("server.piece").map_err(LazyError::read(layer_title(self.described)))?;
            reads.count(bytes.len(), purpose);
            Ok(bytes)
        };
        match self.described.archive.pieces.get(number as usize) {
            Some(piece) if reads.shares => self.cache.shared_piece(piece, fetch),
            _ => fetch(),
        }
    }

    /// Fetches a piece that is wanted soon, unless the layer is in the node cache. If the archive is a
    /// local file, asks the kernel to read the piece into the page cache instead.
    pub(crate) fn read_ahead(&self, reads: &Reads, number: u32, purpose: Purpose) -> Result<(), LazyError> {
        let (Some(archive), None) = (&self.archive, self.cached.get()) else {
            if purpose == Purpose::Traced {
                // It takes no part of the window.
                reads.ahead.asked_for(TracedPiece(self.index, number));
            }
            return Ok(());
        };
        if archive.is_file() {
            let _event = cpack_events::span(purpose.word(), || layer_title(self.described));
            archive.will_need(number);
            return Ok(());
        }
        let (key, fetch) = (Key::Piece { layer: self.index, number }, || self.fetch(archive, reads, number, purpose));
        match purpose {
            Purpose::Traced => reads.blocks.prepare(key, fetch),
            Purpose::Following | Purpose::Demand => reads.blocks.get(key, fetch).map(drop),
        }
    }

    fn read_cached(&self, file: &Listed, offset: u64, end: u64) -> Result<Vec<u8>, LazyError> {
        let cached = self.cached.get().ok_or(LazyError::Missing("a layer"))?;
        let path = cached.root.join(&file.path);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        let read = File::open(&path).and_then(|open| open.read_exact_at(&mut bytes, offset));
        read.map_err(LazyError::read(path))?;
        Ok(bytes)
    }
}

/// The layer in the node cache, if it may be used.
fn find(cache: &Cache, described: &manifest::Layer) -> Option<Cached> {
    let lease = cache.lease_layer(described)?;
    Some(Cached { root: cache.layer_files(&described.content), _lease: lease })
}

/// What is below the directory of a layer.
fn list(root: &Path) -> Result<Vec<Listed>, LazyError> {
    let mut files = Vec::new();
    list_below(root, Path::new(""), &mut files).map_err(LazyError::read(root))?;
    Ok(files)
}

fn list_below(root: &Path, directory: &Path, files: &mut Vec<Listed>) -> io::Result<()> {
    for (name, _) in listing::list(&root.join(directory))? {
        let path = directory.join(name);
        let metadata = fs::symlink_metadata(root.join(&path))?;
        let kind = match metadata.file_type() {
            kind if kind.is_dir() => Kind::Directory,
            kind if kind.is_symlink() => Kind::Link,
            _ if metadata.permissions().mode() & 0o111 != 0 => Kind::Executable,
            _ => Kind::File,
        };
        let size = if kind == Kind::Directory { 0 } else { metadata.len() };
        files.push(Listed { path: path.clone(), kind, size });
        if kind == Kind::Directory {
            list_below(root, &path, files)?;
        }
    }
    Ok(())
}
