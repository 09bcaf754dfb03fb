//! Decoding to memory: one set of contexts per worker, used again for every entry.

use std::fmt;
use std::io;

use cpack_format::zip::Method;

/// A last, empty deflate block. A segment that ends in a full flush ends at a byte, so this makes it a whole stream.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// Bytes that must be behind the compressed bytes, for [`Codec::decode`] to use.
pub(super) const SPARE: usize = LAST_BLOCK.len();

/// Decoders.
pub(super) struct Codec {
    zstd: zstd::bulk::Decompressor<'static>,
    deflate: libdeflater::Decompressor,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// What is wrong with compressed bytes.
pub(super) type Fault = String;

impl Codec {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()?, deflate: libdeflater::Decompressor::new() })
    }

    /// Decodes the first `len` bytes of `packed` to exactly `content`. The bytes behind them are left as they were.
    ///
    /// `ends` is false for a deflate segment that others follow.
    pub(super) fn decode(
        &mut self,
        method: Method,
        packed: &mut [u8],
        len: usize,
        ends: bool,
        content: &mut [u8],
    ) -> Result<(), Fault> {
        let found = match method {
            Method::Store => {
                content.copy_from_slice(packed.get(..len).filter(|p| p.len() == content.len()).ok_or("is cut short")?);
                content.len()
            }
            Method::Zstd => {
                let packed = packed.get(..len).ok_or("is cut short")?;
                self.zstd.decompress_to_buffer(packed, content).map_err(|e| format!("cannot be decoded: {e}"))?
            }
            Method::Deflate if ends => self.inflate(packed.get(..len).ok_or("is cut short")?, content)?,
            Method::Deflate => self.inflate_segment(packed, len, content)?,
        };
        if found != content.len() {
            return Err(format!("decodes to {found} bytes, expected {}", content.len()));
        }
        Ok(())
    }

    fn inflate(&mut self, packed: &[u8], content: &mut [u8]) -> Result<usize, Fault> {
        use libdeflater::DecompressionError::{BadData, InsufficientSpace};
        self.deflate.deflate_decompress(packed, content).map_err(|e| match e {
            BadData => "cannot be decoded: damaged deflate data".to_owned(),
            InsufficientSpace => format!("decodes to more than {} bytes", content.len()),
        })
    }

    fn inflate_segment(&mut self, packed: &mut [u8], len: usize, content: &mut [u8]) -> Result<usize, Fault> {
        let packed = packed.get_mut(..len + SPARE).ok_or("is cut short")?;
        let mut kept = LAST_BLOCK;
        packed[len..].swap_with_slice(&mut kept);
        let result = self.inflate(packed, content);
        packed[len..].swap_with_slice(&mut kept);
        result
    }
}
