//! Deflate (RFC 1951), decoded as it is read, and gzip (RFC 1952).
//!
//! libdeflate, which decodes what is in memory as a whole, is faster still. Milliseconds of a core for each MiB (AMD EPYC, best
//! of three):
//!
//! | content | zlib-rs 0.6.8 | fdeflate 0.3.7 | libdeflate 1.25 |
//! | --- | ---: | ---: | ---: |
//! | `libtorch_cuda.so`, 128 MiB | 2.83 | 2.08 | 1.97 |
//! | tar of an environment of pandas and pyspark, its beginning | 2.07 | 1.94 | 1.62 |
//! | its end | 1.50 | 1.29 | 0.93 |

use std::io::{self, BufRead, ErrorKind, Read};

use fdeflate::Decompressor;

/// How far back a deflate stream refers.
const WINDOW: usize = 32 << 10;

/// What is decoded at a time, behind the window. Half of a core's usual level 2 cache.
const OUTPUT: usize = 256 << 10;

/// The decoder is for zlib streams (RFC 1950), which begin with these bytes and end with a checksum of four.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];
const CHECKSUM: [u8; 4] = [0; 4];

/// A deflate stream within another one.
struct Stream {
    decoder: Decompressor,
    output: Vec<u8>,
    /// Where in `output` the next bytes are taken, and where they end.
    taken: usize,
    made: usize,
    /// The last bytes that the decoder was given: the checksum, and up to three bytes that follow it.
    last: [u8; CHECKSUM.len() + 3],
}

impl Stream {
    /// Decodes nothing before [`Self::begin`].
    fn new() -> Self {
        let output = vec![0; WINDOW + OUTPUT];
        Self { decoder: Decompressor::new(), output, taken: 0, made: 0, last: Default::default() }
    }

    /// Makes it ready for a stream.
    fn begin(&mut self) -> io::Result<()> {
        self.decoder = Decompressor::new();
        self.decoder.ignore_adler32();
        self.decoder.read(&ZLIB_HEADER, &mut [], 0, false).map_err(|_| damaged())?;
        (self.taken, self.made) = (0, 0);
        Ok(())
    }

    /// Decodes some of `packed`, which has a checksum of any value behind the stream. Returns nothing at the end of the stream.
    fn read(&mut self, packed: &mut impl BufRead, out: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.made && !self.decoder.is_done() {
            self.decode(packed)?;
        }
        let from = self.output.get(self.taken..self.made).unwrap_or_default();
        let len = from.len().min(out.len());
        if let (Some(out), Some(from)) = (out.get_mut(..len), from.get(..len)) {
            out.copy_from_slice(from);
        }
        self.taken += len;
        Ok(len)
    }

    fn decode(&mut self, packed: &mut impl BufRead) -> io::Result<()> {
        if self.made == self.output.len() {
            self.output.copy_within(OUTPUT.., 0);
            (self.taken, self.made) = (WINDOW, WINDOW);
        }
        let input = packed.fill_buf()?;
        let is_end = input.is_empty();
        let (used, made) = self.decoder.read(input, &mut self.output, self.made, false).map_err(|_| damaged())?;
        for byte in input.get(..used).unwrap_or_default().iter().rev().take(self.last.len()).rev() {
            self.last.rotate_left(1);
            *self.last.last_mut().ok_or_else(damaged)? = *byte;
        }
        packed.consume(used);
        self.made += made;
        if is_end && made == 0 && !self.decoder.is_done() {
            return Err(cut_short());
        }
        Ok(())
    }
}

/// A deflate stream, such as that of an entry of a zip.
pub(crate) struct Inflate<R> {
    packed: io::Chain<R, &'static [u8]>,
    stream: Stream,
}

impl<R: BufRead> Inflate<R> {
    /// `packed` ends with the stream.
    pub(crate) fn new(packed: R) -> io::Result<Self> {
        let mut stream = Stream::new();
        stream.begin()?;
        Ok(Self { packed: packed.chain(&CHECKSUM), stream })
    }
}

impl<R: BufRead> Read for Inflate<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.stream.read(&mut self.packed, out)
    }
}

/// A gzip file: one or several members.
pub(crate) struct Gunzip<R> {
    packed: R,
    stream: Stream,
    /// CRC-32 and length of what the member has decoded to; `None` between members.
    member: Option<(crc32fast::Hasher, u32)>,
    is_first: bool,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(packed: R) -> Self {
        Self { packed, stream: Stream::new(), member: None, is_first: true }
    }

    /// Begins a member. Returns whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        if !self.is_first && self.packed.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.is_first = false;
        self.header()?;
        self.stream.begin()?;
        self.member = Some(Default::default());
        Ok(true)
    }

    /// RFC 1952, 2.3.
    fn header(&mut self) -> io::Result<()> {
        const CRC: u8 = 1 << 1;
        const EXTRA: u8 = 1 << 2;
        const NAME: u8 = 1 << 3;
        const COMMENT: u8 = 1 << 4;
        let [31, 139, 8, flags, _, _, _, _, _, _] = self.bytes()? else {
            return Err(io::Error::new(ErrorKind::InvalidData, "invalid gzip header"));
        };
        if flags & EXTRA != 0 {
            let len = u16::from_le_bytes(self.bytes()?);
            io::copy(&mut (&mut self.packed).take(u64::from(len)), &mut io::sink())?;
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                self.packed.skip_until(0)?;
            }
        }
        if flags & CRC != 0 {
            self.bytes::<2>()?;
        }
        Ok(())
    }

    fn bytes<const LEN: usize>(&mut self) -> io::Result<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.packed.read_exact(&mut bytes).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => cut_short(),
            _ => e,
        })?;
        Ok(bytes)
    }

    /// Compares what stands behind a member with what it decoded to. The decoder has taken its first four bytes, and up to three more,
    /// and does not say how many.
    fn check(&mut self, crc: u32, len: u32) -> io::Result<()> {
        let wanted = [crc.to_le_bytes(), len.to_le_bytes()];
        let mut found = [&[0; 1][..], &self.stream.last].concat();
        for _ in 0..4 {
            found.remove(0);
            found.extend(self.bytes::<1>()?);
            // All eight are zero for an empty member, and so may be what stands before them.
            let is_more = len == 0 && self.packed.fill_buf()?.first() == Some(&0);
            if found == wanted.as_flattened() && !is_more {
                return Ok(());
            }
        }
        Err(io::Error::new(ErrorKind::InvalidData, "its checksum or length is not that of its content"))
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some((crc, size)) = &mut self.member else {
                if self.begin()? {
                    continue;
                }
                return Ok(0);
            };
            let len = self.stream.read(&mut self.packed, out)?;
            if len > 0 || out.is_empty() {
                crc.update(out.get(..len).unwrap_or_default());
                *size = size.wrapping_add(len as u32);
                return Ok(len);
            }
            let (crc, size) = (crc.clone().finalize(), *size);
            self.member = None;
            self.check(crc, size)?;
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "damaged deflate data")
}

fn cut_short() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "is cut short")
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use flate2::write::{DeflateEncoder, GzEncoder};
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    use super::*;

    fn gunzip(packed: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Gunzip::new(BufReader::with_capacity(buffer, packed)).read_to_end(&mut content)?;
        Ok(content)
    }

    fn inflate(packed: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Inflate::new(BufReader::with_capacity(buffer, packed))?.read_to_end(&mut content)?;
        Ok(content)
    }

    fn gzip(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(content).expect("writes");
        encoder.finish().expect("ends")
    }

    /// Runs, noise and repetitions from near and far, so that all kinds of blocks and distances occur.
    fn content(len: usize) -> Vec<u8> {
        let mut bytes = cpack_test::noise(len);
        let third = len / 3;
        bytes[..third].iter_mut().for_each(|byte| *byte = b'a' + *byte % 3);
        bytes[third / 2..third].fill(7);
        if len > 3 * WINDOW {
            let from = len - 2 * WINDOW;
            bytes.copy_within(from - WINDOW..from - WINDOW + 5000, from);
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn streams_of_others_are_decoded(
            len in prop_oneof![0_usize..600, 200_000_usize..900_000],
            level in 0_u32..10,
            buffer in prop_oneof![1_usize..20, Just(256 << 10)],
        ) {
            let content = content(len);
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
            encoder.write_all(&content).expect("writes");
            let packed = encoder.finish().expect("ends");
            prop_assert!(inflate(&packed, buffer).expect("decodes") == content);
            let members = [gzip(&content, level), gzip(b"", level), gzip(b"the next", level)].concat();
            prop_assert!(gunzip(&members, buffer).expect("decodes") == [&content, &b"the next"[..]].concat());
        }
    }

    #[test]
    fn members_may_have_names_and_more() {
        let mut packed = Vec::new();
        let builder = GzBuilder::new().filename("env.tar").comment("made by hand").extra(vec![1; 300]);
        let mut encoder = builder.write(&mut packed, Compression::fast());
        encoder.write_all(b"content").expect("writes");
        encoder.finish().expect("ends");
        assert_eq!(gunzip(&packed, 3).expect("decodes"), b"content");
    }

    #[test]
    fn whatever_is_cut_damaged_or_appended_is_found() {
        let whole = content(3000);
        let packed = gzip(&whole, 6);
        for len in 0..packed.len() {
            let error = gunzip(&packed[..len], 64).expect_err("is cut short");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{len} bytes: {error}");
        }
        for bit in 8 * 10..8 * packed.len() {
            let mut damaged = packed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Some bits mean nothing, or the same: those that fill the last byte, another distance within a run.
            assert!(gunzip(&damaged, 64).map_or(true, |found| found == whole), "bit {bit}");
        }
        let error = gunzip(&[&packed[..], b"more than ten bytes"].concat(), 64).expect_err("is no member");
        assert_eq!(error.to_string(), "invalid gzip header");
    }
}
