//! A file that is cut into parts, each a frame of its own: any thread decodes one, one thread at a time writes, and the
//! thread that writes the last part checks the whole.
//!
//! The kernel lets one writer into a file and keeps the others spinning at its door. So a thread that finds another one
//! writing leaves its part to that one, and decodes the next.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crate::lock::lock;

/// Parts that may be left to the thread that writes. A thread that has one more waits until that one is done.
const MAX_LEFT: usize = 2;

/// A file whose parts several threads decode.
#[derive(Debug)]
pub(crate) struct CutFile {
    /// Held by the thread that writes.
    writer: Mutex<Writer>,
    left: Mutex<Left>,
    sums: Mutex<Vec<u32>>,
}

#[derive(Debug)]
struct Writer {
    file: Option<File>,
    /// Parts that are not written yet.
    unwritten: u32,
}

/// What waits for the thread that writes.
#[derive(Debug, Default)]
struct Left {
    parts: VecDeque<Part>,
    /// Buffers to be used again.
    free: Vec<Vec<u8>>,
}

/// The decoded content of a part: the first `len` bytes of a buffer.
#[derive(Debug)]
struct Part {
    offset: u64,
    buffer: Vec<u8>,
    len: usize,
}

impl CutFile {
    pub(crate) fn new(parts: u32) -> Self {
        Self {
            writer: Mutex::new(Writer { file: None, unwritten: parts }),
            left: Mutex::default(),
            sums: Mutex::new(vec![0; parts as usize]),
        }
    }

    /// Notes that `part` was decoded and has this CRC-32.
    pub(crate) fn decoded(&self, part: u32, sum: u32) {
        if let Some(slot) = lock(&self.sums).get_mut(part as usize) {
            *slot = sum;
        }
    }

    /// Writes the first `len` bytes of `buffer` at `offset`, and what others left meanwhile; or leaves them to the thread that
    /// is writing. `buffer` is another one afterwards, and may be empty. `create` makes the file for the first writer.
    /// Returns the CRC-32s of all parts after the last one, when the file is closed.
    pub(crate) fn write(
        &self,
        offset: u64,
        buffer: &mut Vec<u8>,
        len: usize,
        create: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Option<Vec<u32>>> {
        let mut create = Some(create);
        let is_full = self.leave(Part { offset, buffer: std::mem::take(buffer), len });
        let mut writer = if is_full { Some(lock(&self.writer)) } else { self.try_writer() };
        while let Some(mut held) = writer {
            if let Some(create) = create.take().filter(|_| held.file.is_none() && held.unwritten > 0) {
                held.file = Some(create()?);
            }
            self.write_left(&mut held)?;
            if held.unwritten == 0 {
                // Later ones find nothing to write.
                return Ok(held.file.take().map(|_| std::mem::take(&mut *lock(&self.sums))));
            }
            drop(held);
            // Another thread may have left a part before the lock was free again. Nobody else writes that one.
            writer = if lock(&self.left).parts.is_empty() { None } else { self.try_writer() };
        }
        *buffer = lock(&self.left).free.pop().unwrap_or_default();
        Ok(None)
    }

    /// Returns whether more parts wait than may.
    fn leave(&self, part: Part) -> bool {
        let mut left = lock(&self.left);
        left.parts.push_back(part);
        left.parts.len() > MAX_LEFT
    }

    fn write_left(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(file) = &writer.file else { return Ok(()) };
        loop {
            let Some(part) = lock(&self.left).parts.pop_front() else { return Ok(()) };
            file.write_all_at(part.buffer.get(..part.len).unwrap_or_default(), part.offset)?;
            writer.unwritten -= 1;
            lock(&self.left).free.push(part.buffer);
        }
    }

    fn try_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
