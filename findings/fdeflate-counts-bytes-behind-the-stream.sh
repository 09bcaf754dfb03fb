#!/usr/bin/env bash
# fdeflate 0.3.7 says that it read up to three bytes more than a zlib stream has, so that what follows cannot be found by the count.
#
# `Decompressor::read` returns "the number of bytes read from `input`". It fills 64 bits at a time. After the checksum whole bytes
# may be left there, which are counted as read and are not given back. How many depends on how long the stream is. Who reads
# members one after the other (gzip, PNG chunks glued together) has to look for the end: by the checksum that stands there.
#
# Seen with: fdeflate 0.3.7, flate2 1.1.10 with zlib-rs, which stops at the end.
# Output:    bytes read behind 64 zlib streams, most: 3 by fdeflate, 0 by flate2
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.1.0"
edition = "2021"
[dependencies]
fdeflate = "=0.3.7"
flate2 = { version = "=1.1.10", default-features = false, features = ["zlib-rs"] }
TOML
cat > src/main.rs <<'RUST'
use std::io::Write;

fn main() {
    let (mut by_fdeflate, mut by_flate2) = (0, 0);
    for len in 0..64_u8 {
        let content: Vec<u8> = (0..len).map(|i| i.wrapping_mul(89)).collect();
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&content).unwrap();
        let mut stream = encoder.finish().unwrap();
        let end = stream.len();
        stream.extend([b'x'; 16]);

        let mut output = vec![0; 1024];
        let mut decoder = fdeflate::Decompressor::new();
        let (read, made) = decoder.read(&stream, &mut output, 0, false).unwrap();
        assert!(decoder.is_done() && output[..made] == content);
        by_fdeflate = by_fdeflate.max(read - end);

        let mut decoder = flate2::Decompress::new(true);
        decoder.decompress(&stream, &mut output, flate2::FlushDecompress::Finish).unwrap();
        by_flate2 = by_flate2.max(decoder.total_in() as usize - end);
    }
    println!("bytes read behind 64 zlib streams, most: {by_fdeflate} by fdeflate, {by_flate2} by flate2");
}
RUST
cargo build --quiet 2> build.log || { cat build.log; exit 1; }
found=$(target/debug/finding)
echo "$found"
[ "$found" = "bytes read behind 64 zlib streams, most: 3 by fdeflate, 0 by flate2" ]
