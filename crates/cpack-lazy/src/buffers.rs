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

/// How many buffers wait to be used again, at most.
const SPARE: usize = 8;

static UNUSED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Bytes whose memory is used again once they are dropped.
#[derive(Debug)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub(crate) const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
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
        let mut unused = lock();
        if (SMALLEST..=LARGEST).contains(&self.0.capacity()) && unused.len() < SPARE {
            unused.push(std::mem::take(&mut self.0));
        }
    }
}

/// Memory for `size` bytes. What is in it is of no account.
pub(crate) fn spare(size: usize) -> Vec<u8> {
    if size < SMALLEST {
        return Vec::new();
    }
    let mut unused = lock();
    let fits = unused.iter().rposition(|buffer| buffer.capacity() >= size);
    fits.map_or_else(|| Vec::with_capacity(size.next_multiple_of(STEP)), |at| unused.swap_remove(at))
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
        let again = spare(LARGEST - 9);
        assert_eq!((again.as_ptr(), spare(SMALLEST - 1).capacity()), (memory, 0));
        drop([Buffer::new(vec![1; LARGEST + 1]), Buffer::new(vec![1; SMALLEST - 1])]);
        drop((0..20).map(|_| Buffer::new(again.clone())).collect::<Vec<_>>());
        assert!(lock().len() <= SPARE);
        assert!(lock().iter().all(|buffer| (SMALLEST..=LARGEST).contains(&buffer.capacity())));
    }
}
