//! Memory for pieces and blocks, used again.
//!
//! A buffer of a megabyte that is new costs the kernel 256 page faults, about as long as decoding to it takes, and as many pages to
//! free. Most that are dropped are followed by others of their kind.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller buffers are left to the allocator, which has them at hand.
const SMALLEST: usize = 256 << 10;

/// Larger ones, of archives that this project did not pack, are few.
const LARGEST: usize = 2 << 20;

/// Sizes are rounded up to a multiple of this, so that a piece's memory fits a block.
const STEP: usize = 256 << 10;

/// Bytes that wait to be used again, at most: a few buffers for each thread's next piece and block.
const SPARE: usize = 8 << 20;

static UNUSED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes whose memory is used again once they are dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// How much memory it takes.
    pub(crate) const fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !(SMALLEST..=LARGEST).contains(&self.capacity()) {
            return;
        }
        let mut unused = lock();
        if unused.iter().map(Vec::capacity).sum::<usize>() + self.capacity() <= SPARE {
            unused.push(std::mem::take(&mut self.0));
        }
    }
}

/// Memory for `size` bytes, and not much more. What is in it is of no account.
pub(crate) fn spare(size: usize) -> Vec<u8> {
    if size < SMALLEST {
        return Vec::new();
    }
    let mut unused = lock();
    let wanted = size.next_multiple_of(STEP);
    let fits = unused.iter().rposition(|buffer| (wanted..=wanted + STEP).contains(&buffer.capacity()));
    fits.map_or_else(|| Vec::with_capacity(wanted), |at| unused.swap_remove(at))
}

fn lock() -> MutexGuard<'static, Vec<Vec<u8>>> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_are_used_again_and_few_wait() {
        let large = Buffer::new(vec![1; LARGEST]);
        let memory = large.as_ptr();
        drop(large);
        assert!(spare(LARGEST / 2).capacity() < LARGEST, "that would waste half of it");
        let again = spare(LARGEST - 9);
        assert_eq!((again.as_ptr(), spare(SMALLEST - 1).capacity()), (memory, 0));
        drop([Buffer::new(vec![1; LARGEST + 1]), Buffer::new(vec![1; SMALLEST - 1])]);
        drop((0..20).map(|_| Buffer::new(again.clone())).collect::<Vec<_>>());
        assert!(lock().iter().map(Vec::capacity).sum::<usize>() <= SPARE);
        assert!(lock().iter().all(|buffer| (SMALLEST..=LARGEST).contains(&buffer.capacity())));
    }
}
