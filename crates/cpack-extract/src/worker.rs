//! What one thread uses again and again: contexts, buffers, and an open directory.

use std::io;
use std::sync::Arc;

use crate::codec::Codec;
use crate::destination::Cursor;
use crate::large::{Budget, Large};

pub(crate) struct Worker {
    pub(crate) codec: Codec,
    pub(crate) cursor: Cursor,
    pub(crate) output: Vec<u8>,
    pub(crate) large: Large,
    pub(crate) budget: Arc<Budget>,
}

impl Worker {
    pub(crate) fn new(budget: Arc<Budget>) -> io::Result<Self> {
        Ok(Self {
            codec: Codec::new()?,
            cursor: Cursor::default(),
            output: Vec::new(),
            large: Large::new(Arc::clone(&budget)),
            budget,
        })
    }
}

/// `len` bytes of `buffer`, which grows where it must and keeps what it has.
pub(crate) fn room(buffer: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if buffer.len() < len {
        // Not `resize`: the old bytes need not be copied.
        *buffer = vec![0; len];
    }
    &mut buffer[..len]
}

/// The length of a buffer for `len` bytes.
pub(crate) fn memory(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
