//! Parses a central directory and a manifest, and computes a content digest, in warm memory.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use cpack_format::content::{Item, Kind, content_digest};
use cpack_format::digest::{merge_parts, part_hash};
use cpack_format::manifest::{Archive, Layer, LayerKind, Manifest, Piece, Python};
use cpack_format::zip::{self, Entry, Frames, Method};
use cpack_format::{Digest, SafePath};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn entry(number: u64) -> Entry {
    // One in fifty is a library of 8 MiB in frames, as in torch.
    let framed = number.is_multiple_of(50);
    let size = if framed { 8 << 20 } else { 7000 };
    Entry {
        name: format!("lib/python3.11/site-packages/package/sub{}/module{number}.py", number / 20).into_bytes().into(),
        method: Method::Zstd,
        crc32: 1,
        compressed_size: size / 2,
        size,
        header_offset: number * 5000,
        mode: Kind::File.mode(),
        frames: framed.then(|| Frames { size: 1 << 20, lengths: vec![1 << 19; 8] }),
    }
}

/// torch's environment has 20,402 files.
fn central_directory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("central directory");
    for count in [1_000u64, 20_000] {
        let bytes: Vec<u8> = (0..count).map(entry).flat_map(|entry| zip::central_record(&entry)).collect();
        let (at, size) = (1 << 40, bytes.len() as u64);
        let end =
            zip::End { directory_offset: at, directory_size: size, entries: count, base: 0, end_offset: at + size };
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::new("read", count), &bytes, |bencher, bytes| {
            bencher.iter(|| zip::read_directory(bytes, &end).expect("reads"));
        });
    }
    group.finish();
}

fn manifest(layers: u32) -> Manifest {
    let digest = Digest::of(b"content");
    let layer = |number: u32| {
        let pieces = vec![Piece { size: 4 << 20, digest }; 20];
        let size = pieces.iter().map(|piece| u64::from(piece.size)).sum();
        let archive = Archive { digest, size, unpacked: 2 * size, files: 800, directory: size - (4 << 20), pieces };
        Layer {
            version: "1.2.3".into(),
            imports: vec![format!("package{number}")],
            needs: vec!["numpy".into(), "packaging".into()],
            rank: number,
            ..Layer::new(LayerKind::Distribution, format!("distribution-{number:04}"), digest, archive)
        }
    };
    let python = Python {
        version: "3.11.7".into(),
        soabi: "cpython-311-x86_64-linux-gnu".into(),
        platform: "linux-x86_64".into(),
        least_glibc: Some("2.17".into()),
    };
    let layers = (0..layers).map(layer).collect();
    Manifest { format: 1, requires: vec!["zstd-frames".into()], python, layers, entry_points: Vec::new() }
}

fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifest");
    for layers in [25, 400] {
        let bytes = manifest(layers).to_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("parse", layers), &bytes, |bencher, bytes| {
            bencher.iter(|| Manifest::parse(bytes).expect("parses"));
        });
    }
    group.finish();
}

fn digests(criterion: &mut Criterion) {
    let item = |number: u32| Item {
        path: SafePath::new(format!("package/sub{}/module{number}.py", number / 20).as_bytes()).expect("safe"),
        kind: Kind::File,
        size: 7000,
        digest: Digest::of(&number.to_le_bytes()),
    };
    let mut group = criterion.benchmark_group("digest");
    let mut items: Vec<Item> = (0..20_000).map(item).collect();
    group.throughput(Throughput::Elements(items.len() as u64));
    group.bench_function("content of 20000 items", |bencher| bencher.iter(|| content_digest(&mut items)));
    let frame = vec![7u8; 1 << 20];
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("one frame", |bencher| bencher.iter(|| part_hash(1 << 20, &frame)));
    let parts: Vec<_> = (0..1000u64).map(|i| part_hash(i << 20, &i.to_le_bytes())).collect();
    group.throughput(Throughput::Elements(parts.len() as u64));
    group.bench_function("merge 1000 frames", |bencher| bencher.iter(|| merge_parts(&parts).expect("parts")));
    group.finish();
}

criterion_group!(benches, central_directory, manifests, digests);
criterion_main!(benches);
