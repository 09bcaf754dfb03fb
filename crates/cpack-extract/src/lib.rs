//! Extraction: archives to directories, on all cores, in bounded memory.
//!
//! | module | does |
//! | --- | --- |
//! | [`plan`] | decides, from the central directory alone, what will be done; every check that needs no data is here |
//! | `pool` | workers that take spans of archive bytes and start archives |
//! | `run` | one archive in work: reads, verifies, decodes, writes a span; completes the archive after the last |
//! | `decode`, `stream` | codecs: to memory as one, or in pieces |
//! | `tree` | files, directories and links below one descriptor |
//! | [`source`] | where an archive's bytes come from |
//!
//! **What is written where.** Everything is written below one directory per archive, which the caller made, empty and
//! private, and passes as a descriptor. Files are 0444 or 0555 and directories 0755, less the process's umask. On an
//! error, or a kill at any instruction, there is an incomplete tree there and nothing elsewhere: the caller removes it.
//! Nothing is synced. A layer is complete when its content has the digest that the manifest names; only then is it
//! handed over ([`Layers::done`]), while others are still in work.
//!
//! **Concurrency.** A *span* is a run of archive bytes that is read as one: a piece of a layer, or neighbouring entries
//! of a foreign zip. Spans are taken in the order of the plan by any worker. Two workers meet only at a large file whose
//! frames they decode (its descriptor, opened by the first and closed by the last) and at short locks.
//!
//! **Bytes are read, not mapped.** A mapped file that is cut short while it is read kills the process with SIGBUS, and
//! the pages touched count as resident memory, which YARN sums up. Reading into a buffer that stays in the core's cache
//! costs a tenth of a millisecond per MiB, decoding at least one.
//!
//! **Memory.** A worker holds one span, at most [`MAX_PIECE`](cpack_format::manifest::MAX_PIECE) long, and one frame; there are only as many workers as
//! fit [`Limits::memory`]. Entries of foreign zips that are larger than [`plan::WHOLE`] and cannot be cut are decoded
//! to memory as one while that fits what is left of the limit, else in small pieces, which is slower by a third.

mod cut;
mod decode;
mod error;
mod foreign;
mod layers;
pub mod plan;
mod pool;
mod run;
pub mod source;
mod stream;
mod tree;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::PlanError;
use run::Run;

pub use error::{ExtractError, Failure};
pub use foreign::{Select, ZipTask, everything, extract_zip, unzip};
pub use layers::{LayerTask, Layers, extract, extract_layers};
pub use source::{BytesSource, FileSource, PieceSource, StoreSource};

/// Largest central directory, in bytes: 250,000 entries with names of 80 bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

/// What an extraction may use, and what an archive may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads that decode and write.
    pub threads: usize,
    /// Ranges of layers that are fetched at once, by threads of their own, while others decode. 0 where reading costs
    /// nothing: the threads that decode then read as well.
    pub fetches: usize,
    /// Bytes for all buffers.
    pub memory: u64,
    /// Content of one archive, in bytes.
    pub max_unpacked: u64,
    /// Entries of one archive, and directories.
    pub max_entries: u64,
    /// Content over archive size, for archives of more than 1 GiB unpacked.
    pub max_ratio: u64,
}

impl Default for Limits {
    /// One thread. 16 threads with these limits stay below 200 MiB resident.
    fn default() -> Self {
        Self { threads: 1, fetches: 0, memory: 144 << 20, max_unpacked: 1 << 40, max_entries: 250_000, max_ratio: 250 }
    }
}

impl Limits {
    /// How many workers, with this much for each.
    fn workers(&self, each: u64) -> usize {
        let fitting = usize::try_from(self.memory / each.max(1)).unwrap_or(usize::MAX);
        self.threads.min(fitting).max(1)
    }
}

/// An error of the caller's own.
pub type CallerError = Box<dyn Error + Send + Sync>;

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Archives.
    pub archives: u64,
    /// Files, links and directory entries.
    pub files: u64,
    /// Archive bytes read.
    pub packed: u64,
    /// Bytes of content written.
    pub unpacked: u64,
}

impl Stats {
    fn of(run: &Run<'_>) -> Self {
        Self { archives: 1, files: run.plan.files.len() as u64, packed: 0, unpacked: run.plan.unpacked }
    }
}

/// Sums over all archives.
#[derive(Debug, Default)]
struct Totals {
    archives: AtomicU64,
    files: AtomicU64,
    unpacked: AtomicU64,
}

impl Totals {
    fn add(&self, stats: Stats) {
        self.archives.fetch_add(stats.archives, Ordering::Relaxed);
        self.files.fetch_add(stats.files, Ordering::Relaxed);
        self.unpacked.fetch_add(stats.unpacked, Ordering::Relaxed);
    }

    fn stats(self, packed: u64) -> Stats {
        let [archives, files, unpacked] = [self.archives, self.files, self.unpacked].map(AtomicU64::into_inner);
        Stats { archives, files, packed, unpacked }
    }
}

fn check_directory_size(size: u64) -> Result<(), PlanError> {
    if size <= MAX_DIRECTORY {
        return Ok(());
    }
    Err(PlanError::TooMuch { what: "bytes of central directory", found: size, limit: MAX_DIRECTORY })
}

#[cfg(test)]
mod tests;
