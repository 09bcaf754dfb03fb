//! Extracts the same files with each codec on all cores: a layer (zstd, stored) and zip files (deflate, stored).
//!
//! Archives are in memory. Files are written to fresh directories, on tmpfs if there is one.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up should stop")]

use std::cell::Cell;
use std::fs::File;
use std::io::{Cursor, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use cpack_extract::{BytesSource, LayerTask, Limits, ZipTask, everything, extract_zip};
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::archive::{Body, DEFAULT_LEVEL, Entry, WrittenArchive, write_layer};
use cpack_test::extraction::extract_tasks;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

mod corpus;

fn zip_of(files: &[(String, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, bytes) in files {
        writer.start_file(path, SimpleFileOptions::default().compression_method(method)).expect("starts");
        writer.write_all(bytes).expect("writes");
    }
    writer.finish().expect("finishes").into_inner()
}

fn layer_of(files: &[(String, Vec<u8>)], directory: &Path) -> (WrittenArchive, Vec<u8>) {
    corpus::write(directory, files).expect("writes");
    let entry = |(path, bytes): &(String, Vec<u8>)| Entry {
        path: SafePath::new(path.as_bytes()).expect("safe"),
        kind: Kind::File,
        body: Body::File { path: directory.join(path), size: bytes.len() as u64 },
    };
    let archive = directory.join("layer.zip");
    let entries = files.iter().map(entry).collect();
    let written = write_layer("bench", entries, &archive, DEFAULT_LEVEL, &|_| {}).expect("writes");
    (written, std::fs::read(archive).expect("reads"))
}

fn extraction(criterion: &mut Criterion) {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(place).expect("a directory");
    let files = corpus::distribution();
    let (written, layer) = layer_of(&files, &directory.path().join("files"));
    let number = Cell::new(0);
    let fresh = || -> OwnedFd {
        number.set(number.get() + 1);
        let path = directory.path().join(number.get().to_string());
        std::fs::create_dir(&path).expect("creates");
        File::open(path).expect("opens").into()
    };
    let cancel = AtomicBool::new(false);
    let mut group = criterion.benchmark_group("extract");
    group.throughput(Throughput::Bytes(files.iter().map(|(_, bytes)| bytes.len() as u64).sum())).sample_size(20);
    let all = std::thread::available_parallelism().map_or(2, usize::from);
    for threads in if all == 1 { vec![1] } else { vec![1, all] } {
        let limits = Limits { threads, ..Limits::default() };
        group.bench_function(BenchmarkId::new("layer zstd", format!("{threads} threads")), |bencher| {
            bencher.iter_batched(
                || LayerTask {
                    id: 0,
                    name: "bench".into(),
                    archive: &written.archive,
                    source: Box::new(BytesSource(&layer)),
                    into: fresh(),
                },
                |task| extract_tasks(vec![task], &limits, &cancel, &|_| Ok(())).expect("extracts"),
                BatchSize::PerIteration,
            );
        });
        for (name, method) in [("deflate", CompressionMethod::Deflated), ("stored", CompressionMethod::Stored)] {
            let archive = zip_of(&files, method);
            group.bench_function(BenchmarkId::new(format!("zip {name}"), format!("{threads} threads")), |bencher| {
                bencher.iter_batched(
                    || ZipTask {
                        name: "bench".into(),
                        source: Box::new(BytesSource(&archive)),
                        size: archive.len() as u64,
                        into: fresh(),
                        links: true,
                    },
                    |task| extract_zip(task, &everything, &limits, &cancel).expect("extracts"),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, extraction);
criterion_main!(benches);
