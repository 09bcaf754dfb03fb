//! A file that is cut into parts, each a frame of its own: any thread decodes one, and the thread that writes the last
//! part checks the whole.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::lock;
use crate::sum::PartSum;

/// A file whose parts several threads decode.
#[derive(Debug)]
pub(crate) struct CutFile {
    file: Mutex<Option<Arc<File>>>,
    sums: Mutex<Vec<PartSum>>,
    /// Parts that are not written yet.
    unwritten: AtomicU32,
}

impl CutFile {
    pub(crate) fn new(parts: u32) -> Self {
        let sums = vec![PartSum::Crc32(0); parts as usize];
        Self { file: Mutex::new(None), sums: Mutex::new(sums), unwritten: AtomicU32::new(parts) }
    }

    /// The open file, which `create` makes for the first thread that asks.
    pub(crate) fn file(&self, create: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<File>> {
        let mut slot = lock(&self.file);
        if let Some(open) = &*slot {
            return Ok(Arc::clone(open));
        }
        let created = Arc::new(create()?);
        *slot = Some(Arc::clone(&created));
        Ok(created)
    }

    /// Notes that `part` was decoded and has this sum.
    pub(crate) fn decoded(&self, part: u32, sum: PartSum) {
        if let Some(slot) = lock(&self.sums).get_mut(part as usize) {
            *slot = sum;
        }
    }

    /// Notes that one part was written. The sums of all parts after the last one, when the file is closed.
    pub(crate) fn written(&self) -> Option<Vec<PartSum>> {
        if self.unwritten.fetch_sub(1, Ordering::AcqRel) != 1 {
            return None;
        }
        *lock(&self.file) = None;
        Some(std::mem::take(&mut *lock(&self.sums)))
    }
}
