//! What all layers share while they are read.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use cpack_format::trace::{Touch, TracedPiece};

use crate::ahead::{Ahead, Purpose, WINDOW};
use crate::blocks::{BUDGET, BUDGET_OF_DEMAND, Blocks};
use crate::demand::Demand;
use crate::waits::Waits;

/// Gets the first read of each part of a file.
pub type Record = Box<dyn Fn(&Touch) + Send + Sync>;

/// A part of a file: layer, file, block.
type Part = (u32, u32, u32);

pub(crate) struct Reads {
    pub(crate) blocks: Blocks,
    pub(crate) ahead: Ahead,
    pub(crate) waits: Waits,
    demand: &'static Demand,
    /// Whether the servers of this node share what they fetch.
    pub(crate) shares: bool,
    /// Bytes of archives.
    pub(crate) fetched: AtomicU64,
    /// Those of them that no program waited for.
    pub(crate) fetched_ahead: AtomicU64,
    record: Option<Record>,
    touched: Mutex<HashSet<Part>>,
}

impl Reads {
    /// `trace` is pieces with their sizes, `pieces` how many the layers have in which sequences are followed.
    pub(crate) fn new(
        trace: Vec<(TracedPiece, u64)>,
        pieces: Vec<u32>,
        record: Option<Record>,
        demand: &'static Demand,
        shares: bool,
    ) -> Self {
        // Where no sequences are followed, the store is a directory, and nothing that was fetched ahead waits.
        let waits = !trace.is_empty() && !pieces.is_empty();
        let budget = if waits { BUDGET } else { BUDGET_OF_DEMAND };
        Self {
            blocks: Blocks::new(budget),
            ahead: Ahead::new(trace, WINDOW, pieces),
            waits: Waits::default(),
            demand,
            shares,
            fetched: AtomicU64::new(0),
            fetched_ahead: AtomicU64::new(0),
            record,
            touched: Mutex::default(),
        }
    }

    /// Does `work`, which fetches from `what`.
    pub(crate) fn fetch<T>(&self, purpose: Purpose, what: impl Fn() -> String, work: impl FnOnce() -> T) -> T {
        let _event = cpack_events::span(purpose.word(), &what);
        let waited_for = || self.waits.during(&what, work);
        match purpose {
            Purpose::Demand => self.demand.during(waited_for),
            Purpose::Following | Purpose::Traced => waited_for(),
        }
    }

    /// Counts bytes that were fetched: for a program, or ahead.
    pub(crate) fn count(&self, bytes: usize, purpose: Purpose) {
        self.fetched.fetch_add(bytes as u64, Ordering::Relaxed);
        if purpose != Purpose::Demand {
            self.fetched_ahead.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// What records a read of `part`, if that is the first one and a trace is recorded.
    pub(crate) fn first_of(&self, part: Part) -> Option<&Record> {
        let record = self.record.as_ref()?;
        let is_new = self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(part);
        is_new.then_some(record)
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reads({:?} bytes)", self.fetched)
    }
}
