//! Decoding to memory: one set of contexts per worker, used again for every entry.

use std::io;

use cpack_format::zip::Method;

/// A last, empty deflate block. A segment that ends in a full flush ends at a byte, so this makes it a whole stream.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// Bytes behind the compressed bytes that [`Codec::decode`] may overwrite for its time.
pub(crate) const SPARE: usize = LAST_BLOCK.len();

pub(crate) struct Codec {
    zstd: zstd::bulk::Decompressor<'static>,
    deflate: libdeflater::Decompressor,
}

impl Codec {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Decompressor::new()?, deflate: libdeflater::Decompressor::new() })
    }

    /// Decodes the first `len` bytes of `packed` to exactly `content`, or says what is wrong with them. The bytes behind
    /// them end as they were. `ends` is false for a deflate segment that another follows.
    pub(crate) fn decode(
        &mut self,
        method: Method,
        packed: &mut [u8],
        len: usize,
        ends: bool,
        content: &mut [u8],
    ) -> Result<(), String> {
        if Self::needs_spare(method, ends) {
            let found = self.inflate_segment(packed, len, content)?;
            return is_whole(found, content);
        }
        self.decode_whole(method, packed.get(..len).ok_or("is cut short")?, content)
    }

    /// Whether [`Self::decode`] writes behind the compressed bytes.
    pub(crate) fn needs_spare(method: Method, ends: bool) -> bool {
        method == Method::Deflate && !ends
    }

    /// The same of what [needs no spare bytes](Self::needs_spare).
    pub(crate) fn decode_whole(&mut self, method: Method, packed: &[u8], content: &mut [u8]) -> Result<(), String> {
        let found = match method {
            Method::Store => {
                content.copy_from_slice(Some(packed).filter(|p| p.len() == content.len()).ok_or("is cut short")?);
                content.len()
            }
            Method::Zstd => {
                self.zstd.decompress_to_buffer(packed, content).map_err(|e| format!("cannot be decoded: {e}"))?
            }
            Method::Deflate => self.inflate(packed, content)?,
        };
        is_whole(found, content)
    }

    fn inflate(&mut self, packed: &[u8], content: &mut [u8]) -> Result<usize, String> {
        use libdeflater::DecompressionError::{BadData, InsufficientSpace};
        self.deflate.deflate_decompress(packed, content).map_err(|e| match e {
            BadData => "cannot be decoded: damaged deflate data".to_owned(),
            InsufficientSpace => format!("decodes to more than {} bytes", content.len()),
        })
    }

    fn inflate_segment(&mut self, packed: &mut [u8], len: usize, content: &mut [u8]) -> Result<usize, String> {
        let packed = packed.get_mut(..len + SPARE).ok_or("is cut short")?;
        let mut kept = LAST_BLOCK;
        packed[len..].swap_with_slice(&mut kept);
        let result = self.inflate(packed, content);
        packed[len..].swap_with_slice(&mut kept);
        result
    }
}

fn is_whole(found: usize, content: &[u8]) -> Result<(), String> {
    if found == content.len() {
        return Ok(());
    }
    Err(format!("decodes to {found} bytes, expected {}", content.len()))
}
