//! Entries too large for a worker's buffers: decoded as one where the budget allows it, else in pieces.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cpack_format::zip::Method;
use cpack_store::StoreError;
use memmap2::{Advice, MmapMut};

use crate::inflate::Inflate;
use crate::lock::lock;
use crate::plan::PlannedFile;
use crate::source::PieceSource;

/// Bytes read, and written, at a time: half of a core's usual level 2 cache.
pub(crate) const CHUNK: usize = 256 << 10;

/// zstd windows up to this size are not counted: level 19 uses as much.
const SMALL_WINDOW_LOG: u32 = 23;

/// The largest zstd window that is decoded, one such entry at a time.
const LARGE_WINDOW_LOG: u32 = 26;

/// Returns whether the extraction should stop.
pub(crate) type Stop<'a> = &'a (dyn Fn() -> bool + Sync);

/// Bytes of memory for large entries, shared by all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicU64,
    /// Held while an entry with a large window is decoded.
    window: Mutex<()>,
}

impl Budget {
    pub(crate) const fn new(bytes: u64) -> Self {
        Self { free: AtomicU64::new(bytes), window: Mutex::new(()) }
    }

    fn take(&self, bytes: u64) -> bool {
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(bytes)).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.free.fetch_add(bytes, Ordering::AcqRel);
    }
}

/// Memory for large entries that are decoded as one. A worker keeps it from one to the next and gives it back before it
/// decodes a small one.
#[derive(Debug)]
pub(crate) struct Large {
    budget: Arc<Budget>,
    buffer: Option<MmapMut>,
}

impl Large {
    pub(crate) const fn new(budget: Arc<Budget>) -> Self {
        Self { budget, buffer: None }
    }

    /// Buffers of these lengths, or `None` if the budget does not allow them.
    pub(crate) fn buffers(&mut self, input: usize, output: usize) -> Option<(&mut [u8], &mut [u8])> {
        let len = input.checked_add(output)?;
        if !self.serves(len as u64) {
            self.release();
            if !self.budget.take(len as u64) {
                return None;
            }
            self.buffer = map(len);
            if self.buffer.is_none() {
                self.budget.give(len as u64);
            }
        }
        self.buffer.as_mut()?.get_mut(..len)?.split_at_mut_checked(input)
    }

    /// Whether [`Self::buffers`] would find the budget large enough for this many bytes at this moment.
    pub(crate) fn fits(&self, len: u64) -> bool {
        self.serves(len) || self.budget.free.load(Ordering::Acquire) + self.len() >= len
    }

    /// Whether the buffer is long enough, and not so long that other workers lack memory.
    fn serves(&self, len: u64) -> bool {
        (len..=len.saturating_mul(2)).contains(&self.len())
    }

    fn len(&self) -> u64 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len() as u64)
    }

    /// Gives the memory back to the budget.
    pub(crate) fn release(&mut self) {
        self.budget.give(self.len());
        self.buffer = None;
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.release();
    }
}

/// Anonymous memory, in huge pages where the kernel gives them on request: page faults were 5 % of an extraction.
fn map(len: usize) -> Option<MmapMut> {
    let map = MmapMut::map_anon(len).ok()?;
    let _ = map.advise(Advice::HugePage);
    Some(map)
}

/// A range of an archive as a stream.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: &'a dyn PieceSource,
    offset: u64,
    len: u64,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(source: &'a dyn PieceSource, offset: u64, len: u64) -> Self {
        Self { source, offset, len }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.len).unwrap_or(usize::MAX));
        if let Some(buffer) = buffer.get_mut(..len) {
            self.source.read(self.offset, buffer).map_err(io::Error::other)?;
        }
        self.offset += len as u64;
        self.len -= len as u64;
        Ok(len)
    }
}

/// Why a stream was not copied.
#[derive(Debug)]
pub(crate) enum StreamError {
    Stopped,
    Read(StoreError),
    Content(String),
    Write(io::Error),
}

impl StreamError {
    /// An error of the decoder, or of the source that it reads.
    fn of(error: io::Error) -> Self {
        match error.downcast::<StoreError>() {
            Ok(error) => Self::Read(error),
            Err(error) => Self::Content(format!("cannot be decoded: {error}")),
        }
    }
}

/// Decodes `packed` to `out`: exactly the length of `file`. Returns the CRC-32.
pub(crate) fn copy(
    file: &PlannedFile,
    packed: &mut dyn Read,
    out: &File,
    budget: &Budget,
    stop: Stop<'_>,
) -> Result<u32, StreamError> {
    let mut packed = BufReader::with_capacity(CHUNK, packed);
    match file.method {
        Method::Store => drain(file, &mut packed, out, stop),
        Method::Deflate => drain(file, &mut Inflate::new(packed).map_err(StreamError::of)?, out, stop),
        Method::Zstd => {
            let log = window_log(packed.fill_buf().map_err(StreamError::of)?, file.size);
            let _alone = (log > SMALL_WINDOW_LOG).then(|| lock(&budget.window));
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(StreamError::of)?;
            decoder.window_log_max(log.clamp(SMALL_WINDOW_LOG, LARGE_WINDOW_LOG)).map_err(StreamError::of)?;
            drain(file, &mut decoder, out, stop)
        }
    }
}

/// Copies `content`, which must be exactly as long as `file`. Returns the CRC-32.
fn drain(file: &PlannedFile, content: &mut dyn Read, out: &File, stop: Stop<'_>) -> Result<u32, StreamError> {
    let mut buffer = vec![0; CHUNK];
    let mut crc = libdeflater::Crc::new();
    let mut at = 0;
    loop {
        if stop() {
            return Err(StreamError::Stopped);
        }
        let len = content.read(&mut buffer).map_err(StreamError::of)?;
        let bytes = buffer.get(..len).unwrap_or_default();
        let end = at + len as u64;
        if (len == 0 && end < file.size) || end > file.size {
            return Err(StreamError::Content(format!("decodes to another length than the {} bytes stated", file.size)));
        }
        if len == 0 {
            break;
        }
        let event = cpack_events::span("verify", || file.path.to_string()).of(len as u64);
        crc.update(bytes);
        drop(event);
        let _event = cpack_events::span("write", || file.path.to_string()).of(len as u64);
        out.write_all_at(bytes, at).map_err(StreamError::Write)?;
        at = end;
    }
    Ok(crc.sum())
}

/// Log2, rounded up, of the window that a zstd frame of this content needs (RFC 8878, 3.1.1.1). A frame without a
/// window descriptor is a single segment: its window is its content.
fn window_log(frame: &[u8], size: u64) -> u32 {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    match (frame.get(4), frame.get(5)) {
        (Some(descriptor), _) if descriptor & SINGLE_SEGMENT != 0 => u64::BITS - size.saturating_sub(1).leading_zeros(),
        (Some(_), Some(window)) => 10 + u32::from(window >> 3) + u32::from(window & 7 != 0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_from_the_frame() {
        for log in [18, 23, 24] {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
            encoder.window_log(log).expect("a window");
            std::io::Write::write_all(&mut encoder, &[7; 100]).expect("writes");
            let frame = encoder.finish().expect("a frame");
            assert_eq!(window_log(&frame, 100), log);
        }
        let single = zstd::bulk::compress(&[7; 3000], 1).expect("a frame");
        assert_eq!(window_log(&single, 3000), 12);
        assert_eq!(window_log(b"", 100), 0);
    }

    #[test]
    fn budget_is_shared_and_given_back() {
        let budget = Arc::new(Budget::new(100));
        let mut one = Large::new(Arc::clone(&budget));
        let mut other = Large::new(Arc::clone(&budget));
        assert!(one.buffers(20, 50).is_some());
        assert!(other.buffers(20, 50).is_none());
        assert!(one.fits(100) && !other.fits(31), "counts what would be given back");
        assert!(one.buffers(10, 80).is_some(), "grows within the budget");
        assert!(one.buffers(10, 40).is_some() && other.buffers(10, 10).is_none(), "keeps what is not much too long");
        assert!(one.buffers(10, 30).is_some() && other.buffers(10, 10).is_some(), "others get what is not needed");
        one.release();
        other.release();
        assert_eq!(budget.free.load(Ordering::Relaxed), 100);
    }
}
