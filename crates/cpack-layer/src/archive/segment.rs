//! Deflate streams that can be continued: a whole stream of libdeflate's becomes a segment that another follows.
//!
//! libdeflate packs better than zlib, and faster, but makes whole streams only. What makes one whole is a bit in
//! the header of its last block. [`into_segment`] walks the blocks to find that header, without decoding them, clears the bit, and
//! ends the segment at a byte as zlib's full flush does.

/// The longest code that deflate allows, in bits (RFC 1951, 3.2.7).
const LONGEST: usize = 15;

/// The order in which lengths of the code for lengths come.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The symbol that ends a block. Smaller ones are literals, larger ones lengths of repetitions.
const END: usize = 256;

/// Bits that `refill` provides: a length with its extra bits takes 20, a distance 28.
const READY: usize = 56;

/// Codes of up to this many bits are in the small table.
const SHORT: usize = 11;

/// An empty block of stored bytes after its three bits: its length and the complement of that.
const EMPTY: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Turns one whole deflate stream into a segment. Returns `false` and changes nothing if it finds no end of a stream at the end of the
/// bytes; it checks no more than it needs to find that.
pub(super) fn into_segment(stream: &mut Vec<u8>) -> bool {
    let Some((header, end)) = last_block(stream) else { return false };
    if end.div_ceil(8) != stream.len() {
        return false;
    }
    if let Some(byte) = stream.get_mut(header / 8) {
        *byte &= !(1 << (header % 8));
    }
    // The header of the empty block is three zeros, the first of which may be left over in the last byte.
    if let (Some(byte), used @ 1..) = (stream.last_mut(), end % 8) {
        *byte &= (1 << used) - 1;
    }
    stream.resize((end + 3).div_ceil(8), 0);
    stream.extend_from_slice(&EMPTY);
    true
}

/// The bits at which the header of the last block begins and the stream ends.
fn last_block(stream: &[u8]) -> Option<(usize, usize)> {
    let mut walk = Walk::new(stream);
    let mut codes = Codes::new();
    loop {
        let header = walk.at();
        let is_last = walk.take(1)? == 1;
        match walk.take(2)? {
            0 => walk.skip_stored()?,
            1 => {
                codes.set_fixed()?;
                walk.skip_symbols(&codes)?;
            }
            2 => {
                walk.read_codes(&mut codes)?;
                walk.skip_symbols(&codes)?;
            }
            _ => return None,
        }
        if is_last {
            return Some((header, walk.at()));
        }
    }
}

/// What a code stands for, and how many bits the code and the extra bits after it have. No bits if no code begins so.
#[derive(Debug, Clone, Copy, Default)]
struct Coded(u16);

impl Coded {
    const fn new(symbol: usize, bits: usize) -> Self {
        Self((symbol << 5 | bits) as u16)
    }

    const fn symbol(self) -> usize {
        (self.0 >> 5) as usize
    }

    const fn bits(self) -> usize {
        (self.0 & 31) as usize
    }

    /// The bits, unless no code begins so.
    fn known_bits(self) -> Option<usize> {
        Some(self.bits()).filter(|bits| *bits > 0)
    }
}

/// Where the codes are that follow a symbol: those of literals and lengths, or, after a length, those of distances.
const LITERALS: usize = 0;
const DISTANCES: usize = 1;

/// The codes of a block. The symbol of a [`Coded`] here is only [`LITERALS`] or [`DISTANCES`], what follows it, or [`END`].
struct Codes {
    /// Codes of up to [`SHORT`] bits but that of the end, in a table that stays in the fastest memory: first literals and lengths,
    /// then distances.
    short: Box<[Coded; 2 << SHORT]>,
    /// All others.
    long: [Box<[Coded; 1 << LONGEST]>; 2],
}

impl Codes {
    fn new() -> Self {
        let long = || Box::new([Coded::default(); 1 << LONGEST]);
        Self { short: Box::new([Coded::default(); 2 << SHORT]), long: [long(), long()] }
    }

    fn set(&mut self, literals: &[u8], distances: &[u8]) -> Option<()> {
        // Four lengths share a number of extra bits; the longest length has none. Two distances do.
        let literal = |symbol, bits| match symbol {
            ..END => Coded::new(LITERALS, bits),
            END => Coded::new(END, bits),
            265..285 => Coded::new(DISTANCES, bits + (symbol - 261) / 4),
            _ => Coded::new(DISTANCES, bits),
        };
        let distance = |symbol: usize, bits| Coded::new(LITERALS, bits + (symbol / 2).saturating_sub(1));
        let (of_literals, of_distances) = self.short.split_at_mut(1 << SHORT);
        fill(of_literals, literals, |symbol, bits| (bits <= SHORT && symbol != END).then(|| literal(symbol, bits)))?;
        fill(of_distances, distances, |symbol, bits| (bits <= SHORT).then(|| distance(symbol, bits)))?;
        let [of_literals, of_distances] = &mut self.long;
        fill(&mut **of_literals, literals, |symbol, bits| {
            (bits > SHORT || symbol == END).then(|| literal(symbol, bits))
        })?;
        fill(&mut **of_distances, distances, |symbol, bits| (bits > SHORT).then(|| distance(symbol, bits)))
    }

    /// The codes of blocks that have none of their own.
    fn set_fixed(&mut self) -> Option<()> {
        let lengths = [[8; 144].as_slice(), &[9; 112], &[7; 24], &[8; 8]].concat();
        self.set(&lengths, &[5; 32])
    }

    /// Finds what the next bits begin with. `table` is [`LITERALS`] or [`DISTANCES`].
    #[inline]
    fn find(&self, table: usize, next: u64) -> Coded {
        let found = self.short[table << SHORT | next as usize & ((1 << SHORT) - 1)];
        if found.bits() > 0 { found } else { self.long[table][next as usize & ((1 << LONGEST) - 1)] }
    }
}

/// Fills a table that is looked up by the next bits with the codes that `coded` makes of symbols and their lengths in bits. `None` if
/// the lengths are those of no code.
fn fill(table: &mut [Coded], lengths: &[u8], coded: impl Fn(usize, usize) -> Option<Coded>) -> Option<()> {
    table.fill(Coded::default());
    let mut code = 0_usize;
    for length in 1..=LONGEST {
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, of)| usize::from(**of) == length) {
            if let Some(coded) = coded(symbol, length) {
                // Codes are written from their highest bit, all else from the lowest.
                let first = code.reverse_bits() >> (usize::BITS as usize - length);
                table.get_mut(first..)?.iter_mut().step_by(1 << length).for_each(|place| *place = coded);
            }
            code += 1;
        }
        if code > 1 << length {
            return None;
        }
        code <<= 1;
    }
    Some(())
}

/// A place in a stream.
struct Walk<'a> {
    stream: &'a [u8],
    /// The bytes before it are in `bits` or were passed.
    next: usize,
    /// The bits that come next. Of those above `count` only zeros or what will come is there.
    bits: u64,
    count: usize,
}

impl<'a> Walk<'a> {
    const fn new(stream: &'a [u8]) -> Self {
        Self { stream, next: 0, bits: 0, count: 0 }
    }

    /// Bits that were passed.
    const fn at(&self) -> usize {
        8 * self.next - self.count
    }

    /// Gets [`READY`] bits or more, as far as there are.
    #[inline]
    fn refill(&mut self) {
        if let Some(word) = self.stream.get(self.next..).and_then(<[u8]>::first_chunk) {
            self.bits |= u64::from_le_bytes(*word) << self.count;
            self.next += (63 - self.count) / 8;
            self.count |= READY;
        } else {
            self.refill_by_bytes();
        }
    }

    #[cold]
    fn refill_by_bytes(&mut self) {
        while self.count < READY
            && let Some(byte) = self.stream.get(self.next)
        {
            self.bits |= u64::from(*byte) << self.count;
            self.next += 1;
            self.count += 8;
        }
    }

    #[inline]
    const fn pass(&mut self, bits: usize) -> Option<()> {
        if bits > self.count {
            return None;
        }
        self.bits >>= bits;
        self.count -= bits;
        Some(())
    }

    /// The next bits, up to 16, as a number.
    fn take(&mut self, bits: usize) -> Option<usize> {
        self.refill();
        let found = self.bits as usize & ((1 << bits) - 1);
        self.pass(bits)?;
        Some(found)
    }

    fn skip_stored(&mut self) -> Option<()> {
        self.pass(self.count % 8)?;
        let length = self.take(16)?;
        self.take(16)?;
        self.next = self.at() / 8 + length;
        (self.bits, self.count) = (0, 0);
        (self.next <= self.stream.len()).then_some(())
    }

    /// Skips what a block of codes has, its end included. The processor guesses only whether a code is long or ends the block.
    fn skip_symbols(&mut self, codes: &Codes) -> Option<()> {
        let mut table = LITERALS;
        loop {
            self.refill();
            for _ in 0..2 {
                let found = codes.find(table, self.bits);
                self.pass(found.known_bits()?)?;
                if found.symbol() == END {
                    return Some(());
                }
                table = found.symbol();
            }
        }
    }

    /// Reads the codes of a block that has its own.
    fn read_codes(&mut self, codes: &mut Codes) -> Option<()> {
        let (literals, distances, count) = (self.take(5)? + 257, self.take(5)? + 1, self.take(4)? + 4);
        let mut lengths = [0; ORDER.len()];
        for place in ORDER.iter().take(count) {
            *lengths.get_mut(*place)? = self.take(3)? as u8;
        }
        let mut table = [Coded::default(); 1 << 7];
        fill(&mut table, &lengths, |symbol, bits| Some(Coded::new(symbol, bits)))?;
        let mut all = Vec::with_capacity(literals + distances);
        while all.len() < literals + distances {
            self.refill();
            let found = *table.get(self.bits as usize & (table.len() - 1))?;
            self.pass(found.known_bits()?)?;
            let (value, times) = match found.symbol() {
                16 => (*all.last()?, 3 + self.take(2)?),
                17 => (0, 3 + self.take(3)?),
                18 => (0, 11 + self.take(7)?),
                length => (length as u8, 1),
            };
            all.extend(std::iter::repeat_n(value, times));
        }
        let (literals, distances) = all.split_at_checked(literals)?;
        codes.set(literals, distances)
    }
}

#[cfg(test)]
mod tests {
    use cpack_test::noise;
    use flate2::{Decompress, FlushDecompress, Status};
    use proptest::prelude::*;

    use super::*;

    fn whole(content: &[u8], level: i32) -> Vec<u8> {
        let level = libdeflater::CompressionLvl::new(level).expect("a level");
        let mut compressor = libdeflater::Compressor::new(level);
        let mut out = vec![0; compressor.deflate_compress_bound(content.len())];
        let len = compressor.deflate_compress(content, &mut out).expect("fits");
        out.truncate(len);
        out
    }

    /// What zlib makes of `stream`, and whether that has ended.
    fn decoded(stream: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut content = Vec::with_capacity(size + 1);
        let status = Decompress::new(false).decompress_vec(stream, &mut content, FlushDecompress::Finish);
        (content, matches!(status, Ok(Status::StreamEnd)))
    }

    /// Text, repetitions and noise: blocks of all kinds. proptest's own lists of bytes take ten times as long to make.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let run = (0..70_000_usize, 0..70_000_usize, prop_oneof![Just(1), Just(8), Just(256)]);
        let run = run.prop_map(|(from, len, of)| {
            noise(from + len).split_off(from).into_iter().map(|byte| (u16::from(byte) % of) as u8).collect::<Vec<_>>()
        });
        prop::collection::vec(run, 0..6).prop_map(|runs| runs.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn segments_and_a_whole_stream_are_one_stream(parts in prop::collection::vec(content(), 1..4), level in 0..13) {
            let (last, before) = parts.split_last().expect("one or more");
            let mut stream = Vec::new();
            for part in before {
                let mut segment = whole(part, level);
                prop_assert!(into_segment(&mut segment));
                // Whatever the bits behind the end are.
                let (mut padded, end) = (whole(part, level), last_block(&whole(part, level)).expect("an end").1);
                if let (Some(byte), used @ 1..) = (padded.last_mut(), end % 8) {
                    *byte |= 0xff << used;
                }
                prop_assert!(into_segment(&mut padded) && padded == segment);
                prop_assert!(segment.ends_with(&EMPTY));
                prop_assert!(!decoded(&segment, part.len()).1, "it can be continued");
                stream.extend(segment);
            }
            stream.extend(whole(last, level));
            let expected = parts.concat();
            let (found, ended) = decoded(&stream, expected.len());
            prop_assert!(ended && found == expected);
        }

        #[test]
        fn what_is_no_stream_stays_as_it_is(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1..9_usize) {
            let mut changed = bytes.clone();
            if !into_segment(&mut changed) {
                prop_assert_eq!(&changed, &bytes);
            }
            let mut short = whole(&bytes, 6);
            short.truncate(short.len().saturating_sub(cut));
            let before = short.clone();
            prop_assert!(!into_segment(&mut short));
            prop_assert_eq!(short, before);
        }
    }
}
