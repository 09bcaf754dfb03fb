//! Writes a layer (read, frame, compress, hash) on one thread and on all, with the files in page cache.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::cell::Cell;
use std::path::Path;

use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::archive::{Body, DEFAULT_LEVEL, Entry, write_layer};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

mod corpus;

fn entries(directory: &Path, files: &[(String, Vec<u8>)]) -> Vec<Entry> {
    let entry = |(path, bytes): &(String, Vec<u8>)| Entry {
        path: SafePath::new(path.as_bytes()).expect("safe"),
        kind: Kind::File,
        body: Body::File { path: directory.join(path), size: bytes.len() as u64 },
    };
    files.iter().map(entry).collect()
}

fn write(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let files = corpus::distribution();
    corpus::write(directory.path(), &files).expect("writes");
    let number = Cell::new(0);
    // A new name each time: nothing is created again after its removal.
    let fresh = || {
        number.set(number.get() + 1);
        (directory.path().join(format!("layer-{}.zip", number.get())), entries(directory.path(), &files))
    };
    let mut group = criterion.benchmark_group("write a layer");
    group.throughput(Throughput::Bytes(files.iter().map(|(_, bytes)| bytes.len() as u64).sum())).sample_size(20);
    let all = std::thread::available_parallelism().map_or(2, usize::from);
    for (threads, level) in [(1, DEFAULT_LEVEL), (all, DEFAULT_LEVEL), (all, 3)] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let id = BenchmarkId::new(format!("zstd {level}"), format!("{threads} threads"));
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                fresh,
                |(path, entries)| {
                    pool.install(|| write_layer("bench", entries, &path, level, &|_| {})).expect("writes")
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, write);
criterion_main!(benches);
