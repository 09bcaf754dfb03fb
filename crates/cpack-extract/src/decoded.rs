//! A compressed stream, decoded by a thread of its own while the caller writes what came before.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use bzip2::bufread::MultiBzDecoder;
use lzma_rust2::XzReader;

use crate::inflate::Gunzip;

/// Bytes that are handed over at once, and how many such buffers there are.
const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 8;

/// KiB of the window of an xz stream: `xz -9` has 64 MiB, and each start may need that much.
const XZ_MEMORY: u32 = 128 << 10;

/// How a tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, in one or several members.
    Gzip,
    /// Zstandard, in one or several frames.
    Zstd,
    /// bzip2, in one or several streams.
    Bzip2,
    /// xz, in one or several streams.
    Xz,
}

impl Compression {
    /// Reads what `file` holds, decoded.
    pub(crate) fn decode(self, file: File) -> io::Result<Box<dyn Read + Send>> {
        let file = io::BufReader::with_capacity(BUFFER, file);
        Ok(match self {
            Self::None => Box::new(file),
            Self::Gzip => Box::new(Gunzip::new(file)),
            Self::Bzip2 => Box::new(MultiBzDecoder::new(file)),
            Self::Xz => Box::new(XzReader::new_mem_limit(file, true, XZ_MEMORY)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        })
    }
}

/// What a thread decodes ahead.
pub(crate) struct Ahead {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    is_done: bool,
}

impl Ahead {
    /// Starts the thread that reads `from`. It ends when the returned value is dropped.
    pub(crate) fn start<'scope>(scope: &'scope Scope<'scope, '_>, from: Box<dyn Read + Send>) -> Self {
        let (send_full, full) = sync_channel(BUFFERS);
        let (empty, take_empty) = sync_channel(BUFFERS);
        scope.spawn(move || fill(from, &send_full, &take_empty));
        Self { full, empty, current: Vec::new(), at: 0, is_done: false }
    }
}

/// Fills buffers until the stream ends or fails, or the receiver is gone.
fn fill(mut from: Box<dyn Read + Send>, full: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) {
    loop {
        let mut buffer = empty.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let event = cpack_events::span("decode", || "archive".into());
        let read = read_full(&mut *from, &mut buffer);
        drop(event);
        let is_last = !matches!(read, Ok(BUFFER));
        let filled = read.map(|length| {
            buffer.truncate(length);
            buffer
        });
        if full.send(filled).is_err() || is_last {
            return;
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn read_full(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.current.len() && !self.is_done {
            let used = std::mem::take(&mut self.current);
            // The thread makes another if it does not take this one.
            let _ = self.empty.try_send(used);
            self.at = 0;
            match self.full.recv() {
                Ok(Ok(next)) => {
                    self.is_done = next.is_empty();
                    self.current = next;
                }
                Ok(Err(error)) => {
                    self.is_done = true;
                    return Err(error);
                }
                // The last buffer was not full.
                Err(_) => self.is_done = true,
            }
        }
        Ok(self.current.get(self.at..).unwrap_or_default())
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

impl Read for Ahead {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let length = from.len().min(out.len());
        if let (Some(out), Some(from)) = (out.get_mut(..length), from.get(..length)) {
            out.copy_from_slice(from);
        }
        self.consume(length);
        Ok(length)
    }
}
