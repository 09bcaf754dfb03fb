//! Extraction: archives to directories, on all cores, in bounded memory.
//!
//! | module | does |
//! | --- | --- |
//! | `extract_layers`, `extract_zip` | read an archive's directory and hand its plan to the pool: two ways in |
//! | `extract_tar`, `tar_members`, `decoded` | the third way: a tar, whose members are checked and written one after the other |
//! | `layer_archive` | reads parts of a layer in any order, for a file system that serves it |
//! | `read_plan` | reads and verifies the directory of a layer |
//! | `plan` | decides, from the central directory alone, what will be done; every check that needs no data is here |
//! | `pool` | workers that take spans of archive bytes and start archives |
//! | `run` | one archive in work: reads, verifies, decodes, writes a span; completes the archive after the last |
//! | `worker` | the buffers and contexts of one thread |
//! | `cut`, `sum` | a file whose frames several threads decode, and what a file is checked by |
//! | `codec`, `large` | decode to memory as one, or in pieces |
//! | `destination` | files, directories and links below one descriptor |
//! | `source`, `window` | where an archive's bytes come from, and parts of it that are mapped |
//!
//! **What is written where.** Everything is written below one directory per archive, which the caller made, empty and
//! private, and passes as a descriptor. Files are 0444 or 0555 and directories 0755, less the process's umask. An error,
//! or a kill at any instruction, leaves an incomplete tree there and nothing elsewhere; the caller removes it.
//! Nothing is synced. A layer is complete when all its pieces had the digests of the manifest, and what they decode to the CRC-32s of the
//! archive; only then [`Layers::done`] hands it over, while other layers are still in work.
//!
//! **Concurrency.** A *span* is a run of archive bytes that is read as one: a piece of a layer, or neighbouring entries
//! of a zip. A worker takes the spans of one archive in the order of the plan. Workers meet in a large file whose frames they
//! decode, which one of them writes at a time (`cut`), and at short locks.
//!
//! **Bytes are mapped where that is safe**, else read: `window` says when, and what happens to a mapped file that is cut short.
//!
//! **Memory.** A worker holds one span, at most [`MAX_PIECE`](cpack_format::manifest::MAX_PIECE) long, and one frame, and may
//! leave another one to the thread that writes; there are only as many workers as fit [`Limits::memory`]. An entry of a zip that is
//! larger than a worker's own buffer
//! (1 MiB) and cannot be cut is decoded to memory as one while that fits what is left of the limit, else in small pieces,
//! which is slower by a tenth to two fifths (`inflate`).

mod codec;
mod cut;
mod decoded;
mod destination;
mod error;
mod extract_layers;
mod extract_tar;
mod extract_zip;
mod inflate;
mod large;
mod layer_archive;
mod limits;
mod lock;
mod peek;
mod plan;
mod pool;
mod read_plan;
mod run;
mod source;
mod sum;
mod tar_members;
mod window;
mod worker;

pub use decoded::Compression;
pub use error::{CallerError, ExtractError, Failure};
pub use extract_layers::{LayerTask, Layers, extract_layers};
pub use extract_tar::{TarTask, extract_tar};
pub use extract_zip::{Select, ZipTask, everything, extract_zip};
pub use layer_archive::{ArchivedFile, LayerArchive};
pub use limits::{Limits, Stats};
pub use peek::peek_tar;
pub use source::{BytesSource, FileSource, PieceSource, StoreSource};
