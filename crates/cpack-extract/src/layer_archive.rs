//! Parts of a layer's files in any order, straight from its archive: for a file system that serves a layer before it is
//! extracted.
//!
//! A *piece* is fetched and verified, a *block* is decoded from it: a whole file, or one frame of a file that is cut. The caller
//! keeps pieces and blocks for as long as it likes. Nothing is decoded from a piece that is not verified.

use std::sync::Mutex;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::manifest::Archive;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::codec::{Codec, SPARE};
use crate::error::{ExtractError, refused, zip_error};
use crate::limits::Limits;
use crate::lock::lock;
use crate::plan::{Layout, Plan, PlannedFile, Unit};
use crate::read_plan::{read_plan, verify_pieces};
use crate::source::PieceSource;
use crate::worker::memory;

/// Bytes of one advice: of a longer one the kernel takes only what the file system reads ahead, 128 KiB or more.
const ADVISED: u32 = 128 << 10;

/// The archive of one layer, of which any part can be read. Several threads may use it at once.
pub struct LayerArchive<'a> {
    name: String,
    layout: Layout<'a>,
    plan: Plan,
    source: Box<dyn PieceSource + 'a>,
    /// Where the blocks are: those of a file together, in their order.
    places: Vec<Place>,
    /// Contexts of threads that decode nothing at the moment.
    codecs: Mutex<Vec<Codec>>,
}

/// A file, link or empty directory of a layer.
#[derive(Debug, Clone, Copy)]
pub struct ArchivedFile<'a> {
    /// Relative to the layer's root.
    pub path: &'a SafePath,
    /// What it is.
    pub kind: Kind,
    /// Length of its content, in bytes; of a link, of its target.
    pub size: u64,
    /// Length of each of its blocks but the last.
    pub block: u64,
}

/// Where one block is.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: u32,
    part: u32,
    /// Index of the span with its piece.
    span: u32,
    at: u32,
    len: u32,
}

impl<'a> LayerArchive<'a> {
    /// Reads and verifies the directory of the layer that messages call `name`.
    pub fn open(
        name: String,
        archive: &'a Archive,
        source: Box<dyn PieceSource + 'a>,
        limits: &Limits,
    ) -> Result<Self, ExtractError> {
        let layout = Layout::new(archive).map_err(|error| refused(&name, error))?;
        let plan = read_plan(&*source, &name, &layout, limits, 0)?;
        let places = places(&plan);
        Ok(Self { name, layout, plan, source, places, codecs: Mutex::new(Vec::new()) })
    }

    /// All files, links and empty directories. The position of each is its number.
    pub fn files(&self) -> impl Iterator<Item = ArchivedFile<'_>> {
        self.plan.files.iter().map(archived)
    }

    /// The file with this number.
    pub fn file(&self, number: u32) -> Option<ArchivedFile<'_>> {
        self.plan.files.get(number as usize).map(archived)
    }

    /// How many pieces it has.
    pub fn pieces(&self) -> u32 {
        u32::try_from(self.plan.spans.len()).unwrap_or(u32::MAX)
    }

    /// The number of the piece that has the block `block` of the file `file`, for [`Self::read_piece`].
    pub fn piece_of(&self, file: u32, block: u32) -> Result<u32, ExtractError> {
        Ok(self.place(file, block)?.span)
    }

    /// Fetches the piece with this number, and verifies it. `buffer` gives memory for so many bytes; what is in it is of no account.
    pub fn read_piece(&self, number: u32, buffer: impl FnOnce(usize) -> Vec<u8>) -> Result<Vec<u8>, ExtractError> {
        let span = self.plan.spans.get(number as usize).ok_or_else(|| self.damaged("a piece", "is not in the plan"))?;
        let mut bytes = buffer(span.len as usize);
        bytes.resize(span.len as usize, 0);
        let read = self.source.read(span.offset, &mut bytes);
        read.map_err(|source| ExtractError::Read { archive: self.name.clone(), source })?;
        verify_pieces(&*self.source, &self.name, &self.layout, span.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether it is a local file.
    pub fn is_file(&self) -> bool {
        self.source.file().is_some()
    }

    /// Has the kernel read the piece with this number of a local file into the page cache, and does not wait for it.
    pub fn will_need(&self, number: u32) {
        let (Some((file, start)), Some(span)) = (self.source.file(), self.plan.spans.get(number as usize)) else {
            return;
        };
        for at in (0..span.len).step_by(ADVISED as usize) {
            let offset = i64::try_from(start.saturating_add(span.offset + u64::from(at))).unwrap_or(i64::MAX);
            let len = i64::from(ADVISED.min(span.len - at));
            // What the kernel does not take as advice, it reads when it is asked.
            let _ = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Decodes the block `block` of the file `file` from its verified piece, to memory that `buffer` gives.
    pub fn decode(
        &self,
        (file, block): (u32, u32),
        piece: &[u8],
        buffer: impl FnOnce(usize) -> Vec<u8>,
    ) -> Result<Vec<u8>, ExtractError> {
        let place = self.place(file, block)?;
        let planned =
            self.plan.files.get(file as usize).ok_or_else(|| self.damaged("an entry", "is not in the plan"))?;
        let path = || planned.path.to_string();
        let bytes = piece.get(place.at as usize..).and_then(|bytes| bytes.get(..place.len as usize));
        let bytes = bytes.ok_or_else(|| self.damaged(&path(), "is cut short"))?;
        // A whole entry has its header before its data, a frame of a cut one is data alone.
        let (header, len, ends) = match planned.parts {
            None => {
                let header = planned.expected().local_header_len(bytes).map_err(|e| zip_error(&self.name, e))?;
                (header, memory(planned.compressed_size), true)
            }
            Some(parts) => (0, bytes.len(), block + 1 == parts.count),
        };
        let packed = bytes.get(header..).and_then(|bytes| bytes.get(..len));
        let packed = packed.ok_or_else(|| self.damaged(&path(), "reaches into what follows it"))?;
        let size = memory(planned.part(block).1);
        let mut content = buffer(size);
        content.resize(size, 0);
        if !content.is_empty() {
            let mut codec = self.codec().map_err(|e| self.damaged(&path(), &format!("cannot be decoded: {e}")))?;
            let decoded = if Codec::needs_spare(planned.method, ends) {
                let mut packed = [packed, &[0; SPARE]].concat();
                codec.decode(planned.method, &mut packed, len, ends, &mut content)
            } else {
                codec.decode_whole(planned.method, packed, &mut content)
            };
            decoded.map_err(|e| self.damaged(&path(), &e))?;
            lock(&self.codecs).push(codec);
        }
        if planned.kind == Kind::Link && !planned.path.link_stays_inside(&content) {
            return Err(self.damaged(&path(), "is a link that leads out of its directory"));
        }
        Ok(content)
    }

    fn codec(&self) -> std::io::Result<Codec> {
        let kept = lock(&self.codecs).pop();
        kept.map_or_else(Codec::new, Ok)
    }

    fn place(&self, file: u32, block: u32) -> Result<Place, ExtractError> {
        let found = self.places.binary_search_by_key(&(file, block), |place| (place.file, place.part));
        let place = found.ok().and_then(|at| self.places.get(at)).copied();
        place.ok_or_else(|| self.damaged("a block", "is not in the plan"))
    }

    fn damaged(&self, entry: &str, reason: &str) -> ExtractError {
        ExtractError::Entry { archive: self.name.clone(), entry: entry.to_owned(), reason: reason.to_owned() }
    }
}

impl std::fmt::Debug for LayerArchive<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerArchive({}, {} files)", self.name, self.plan.files.len())
    }
}

fn archived(file: &PlannedFile) -> ArchivedFile<'_> {
    let block = file.parts.map_or(file.size.max(1), |parts| parts.size);
    ArchivedFile { path: &file.path, kind: file.kind, size: file.size, block }
}

fn places(plan: &Plan) -> Vec<Place> {
    let mut places = Vec::with_capacity(plan.units.len());
    for (number, span) in (0..).zip(&plan.spans) {
        for unit in plan.units_of(span) {
            match *unit {
                Unit::Entry { file, at, len } => places.push(Place { file, part: 0, span: number, at, len }),
                Unit::Part { file, part, at, len } => places.push(Place { file, part, span: number, at, len }),
                // The second is of other zips, whose entries are not in pieces.
                Unit::Header { .. } | Unit::Stream { .. } => {}
            }
        }
    }
    places.sort_unstable_by_key(|place| (place.file, place.part));
    places
}
