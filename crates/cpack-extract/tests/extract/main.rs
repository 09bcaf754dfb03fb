//! Archives are extracted as other readers see them, and hostile ones not at all.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod hostile;
mod random_access;
mod tars;

use std::io::{Seek, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use cpack_extract::{
    BytesSource, ExtractError, Failure, LayerTask, Limits, PieceSource, Stats, ZipTask, everything, extract_zip,
};
use cpack_format::Digest;
use cpack_format::manifest::{Archive, Piece};
use cpack_format::zip::{Entry, Method};
use cpack_store::StoreError;
use cpack_test::archives::{Maker, Node, Nodes, open_directory, read_tree};
use cpack_test::extraction::{extract_tasks, unzip};
use proptest::prelude::*;

const METHODS: [Method; 3] = [Method::Store, Method::Deflate, Method::Zstd];

/// Bytes that compress about 3:1 and differ everywhere.
fn content(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| ((i / 3).wrapping_mul(2_654_435_761).wrapping_add(seed) >> (i % 7)) as u8 & 0x3f).collect()
}

fn nodes() -> Nodes {
    let mut nodes = Nodes::new();
    for i in 0..40 {
        let bytes = content(i * 97, i);
        let node = if i % 5 == 0 { Node::Executable(bytes) } else { Node::File(bytes) };
        nodes.insert(format!("lib/d{}/e{}/file-{i}.py", i % 7, i % 3), node);
    }
    nodes.insert("lib/large.so".into(), Node::Executable(content(70_000, 1)));
    nodes.insert("lib/larger.so".into(), Node::File(content((3 << 20) + 5, 2)));
    nodes.insert("empty/directory".into(), Node::Directory);
    nodes.insert("lib/link.so".into(), Node::Link(b"../lib/large.so".to_vec()));
    nodes.insert("top".into(), Node::File(Vec::new()));
    nodes
}

fn maker(nodes: &Nodes, piece: usize, frame: usize, methods: &[Method]) -> Maker {
    let mut maker = Maker::new(piece);
    for (i, (path, node)) in nodes.iter().enumerate() {
        maker.add(path, node, methods[i % methods.len()], frame);
    }
    maker
}

fn extract_one(bytes: &[u8], archive: &Archive, threads: usize) -> (Nodes, Result<Stats, Failure>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, into) = (Box::new(BytesSource(bytes)), open_directory(directory.path()));
    let task = LayerTask { id: 7, name: "layer test".into(), archive, source, into };
    let limits = Limits { threads, ..Limits::default() };
    let result = extract_tasks(vec![task], &limits, &AtomicBool::new(false), &|id| {
        assert_eq!(id, 7);
        Ok(())
    });
    (read_tree(directory.path()), result)
}

fn unzip_bytes(bytes: &[u8], threads: usize) -> (Nodes, Result<Stats, Failure>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, into) = (directory.path().join("zip"), directory.path().join("into"));
    std::fs::write(&file, bytes).expect("writes");
    let limits = Limits { threads, ..Limits::default() };
    let result = unzip(&file, &into, &limits, &AtomicBool::new(false));
    (read_tree(&into), result)
}

#[test]
fn layers_come_out_as_they_went_in() {
    let nodes = nodes();
    for (piece, frame, threads) in [(1, 1024, 1), (5000, 4096, 3), (1 << 20, 1 << 16, 2), (1 << 22, 1 << 20, 16)] {
        let (bytes, archive, _) = maker(&nodes, piece, frame, &METHODS).layer();
        let (found, result) = extract_one(&bytes, &archive, threads);
        let stats = result.unwrap_or_else(|e| panic!("piece {piece}, frame {frame}: {e:?}"));
        assert!(found == nodes, "piece {piece}, frame {frame}: {:?}", found.keys());
        assert_eq!((stats.files, stats.unpacked), (archive.files, archive.unpacked));
    }
}

#[test]
fn zips_come_out_as_they_went_in() {
    let nodes = nodes();
    for (frame, threads, methods) in
        [(0, 2, &METHODS[..]), (1 << 16, 3, &METHODS), (0, 1, &METHODS[1..2]), (0, 4, &METHODS[2..])]
    {
        let (found, result) = unzip_bytes(&maker(&nodes, 1, frame, methods).zip(), threads);
        result.unwrap_or_else(|e| panic!("frame {frame}: {e:?}"));
        assert!(found == nodes, "frame {frame}: {:?}", found.keys());
    }
}

/// A source that gives wrong bytes the first `wrong` times it is asked for `offset`, and counts.
#[derive(Debug)]
struct Faulty<'a> {
    bytes: BytesSource<&'a [u8]>,
    offset: u64,
    wrong: usize,
    calls: AtomicUsize,
}

impl PieceSource for &Faulty<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.bytes.read(offset, buffer)?;
        let byte = self.offset.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize));
        if let Some(byte) = byte
            && self.calls.fetch_add(1, Ordering::Relaxed) < self.wrong
        {
            *byte ^= 1;
        }
        Ok(())
    }

    fn location(&self) -> String {
        self.bytes.location()
    }
}

#[test]
fn wrong_piece_is_read_again() {
    let (bytes, archive, _) = maker(&nodes(), 5000, 4096, &METHODS).layer();
    let second: u64 = archive.pieces[0].size.into();
    for (offset, wrong, fine) in
        [(0, 1, true), (second, 2, true), (archive.directory, 2, true), (0, 3, false), (archive.directory, 3, false)]
    {
        let directory = tempfile::tempdir().expect("a directory");
        let source = Faulty { bytes: BytesSource(bytes.as_slice()), offset, wrong, calls: AtomicUsize::new(0) };
        let task = LayerTask {
            id: 0,
            name: "layer x".into(),
            archive: &archive,
            source: Box::new(&source),
            into: open_directory(directory.path()),
        };
        let done = AtomicUsize::new(0);
        let result = extract_tasks(vec![task], &Limits::default(), &AtomicBool::new(false), &|_| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok(())
        });
        assert_eq!(result.is_ok(), fine, "{offset} {wrong}: {result:?}");
        assert_eq!(done.into_inner(), usize::from(fine));
        assert_eq!(source.calls.into_inner(), wrong.min(2) + 1);
        if let Err(failure) = result {
            let text = failure.to_string();
            assert!(text.contains("layer x") && text.contains("--repair"), "{text}");
        }
    }
}

#[test]
fn content_that_differs_from_its_crc_is_refused_and_not_handed_over() {
    for (frame, size) in [(0, 300), (1 << 10, 300_000)] {
        let nodes = Nodes::from([("file".into(), Node::File(content(size, 1)))]);
        let (mut bytes, mut archive, _) = maker(&nodes, 1 << 20, frame, &[Method::Store]).layer();
        // As a packer would that has one bit wrong: pieces are those of the bytes.
        let at = archive.pieces[0].size as usize - 100;
        bytes[at] ^= 1;
        archive.pieces[0].digest = Digest::of(&bytes[..archive.pieces[0].size as usize]);
        let (_, result) = extract_one(&bytes, &archive, 2);
        let text = result.expect_err("refused").to_string();
        assert!(text.contains("\"file\" has CRC-32"), "{text}");
    }
}

/// One change to a manifest's description.
type Change = fn(&mut Archive);

#[test]
fn manifest_that_does_not_fit_is_refused() {
    let (bytes, archive, _) = maker(&nodes(), 5000, 4096, &METHODS).layer();
    let table: [(&str, Change); 5] = [
        ("files", |a| a.files += 1),
        ("unpacked bytes", |a| a.unpacked -= 1),
        ("crosses", |a| a.directory += 1),
        ("bytes of pieces", |a| a.size += 1),
        ("offset of the directory", |a| a.directory = u64::from(a.pieces[0].size)),
    ];
    for (reason, change) in table {
        let mut archive = archive.clone();
        change(&mut archive);
        let (found, result) = extract_one(&bytes, &archive, 2);
        let failure = result.expect_err(reason);
        let source = std::error::Error::source(&failure).map(ToString::to_string).unwrap_or_default();
        assert!(source.contains(reason), "{reason}: {failure}: {source}");
        assert!(found.is_empty());
    }
}

#[test]
fn entries_that_cross_pieces_are_refused() {
    let maker = maker(&nodes(), 5000, 4096, &METHODS);
    let bytes = maker.zip();
    let (_, mut archive, _) = maker.layer();
    // The same bytes, cut one byte later.
    let (first, second) = (archive.pieces[0].size as usize + 1, archive.pieces[1].size as usize - 1);
    archive.pieces[0] = Piece { size: first as u32, digest: Digest::of(&bytes[..first]) };
    archive.pieces[1] = Piece { size: second as u32, digest: Digest::of(&bytes[first..first + second]) };
    let (found, result) = extract_one(&bytes, &archive, 2);
    assert!(result.is_err_and(|e| format!("{e:?}").contains("Piece")));
    assert!(found.is_empty());
}

/// Several layers, one of them damaged if `bad`; the numbers of those that were done.
fn extract_many(
    bad: Option<usize>,
    cancel_after: usize,
    threads: usize,
    fetches: usize,
) -> (Vec<usize>, Result<Stats, Failure>) {
    let layers: Vec<_> = (0..6)
        .map(|i| {
            let mut maker = Maker::new(2000);
            for file in 0..20 {
                maker.add(&format!("layer{i}/{file}"), &Node::File(content(3000, i * file)), METHODS[file % 3], 1024);
            }
            let (mut bytes, archive, content) = maker.layer();
            if bad == Some(i) {
                bytes[40] ^= 1;
            }
            (bytes, archive, content)
        })
        .collect();
    let directories: Vec<_> = layers.iter().map(|_| tempfile::tempdir().expect("a directory")).collect();
    let tasks = layers.iter().zip(&directories).enumerate().map(|(id, ((bytes, archive, _), directory))| {
        let (source, into) = (Box::new(BytesSource(bytes)), open_directory(directory.path()));
        LayerTask { id, name: format!("layer {id}"), archive, source, into }
    });
    let (done, cancel) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let limits = Limits { threads, fetches, ..Limits::default() };
    let result = extract_tasks(tasks.collect(), &limits, &cancel, &|id| {
        // Whatever is handed over is whole.
        assert_eq!(read_tree(directories[id].path()).len(), 20);
        let mut done = done.lock().expect("no panic");
        done.push(id);
        cancel.store(done.len() >= cancel_after, Ordering::Relaxed);
        Ok(())
    });
    let mut done = done.into_inner().expect("no panic");
    done.sort_unstable();
    (done, result)
}

#[test]
fn layers_are_handed_over_one_by_one() {
    for (threads, fetches) in [(1, 0), (2, 0), (8, 0), (1, 1), (3, 5)] {
        let (done, result) = extract_many(None, usize::MAX, threads, fetches);
        assert_eq!(done, [0, 1, 2, 3, 4, 5], "{result:?}");
        let stats = result.expect("extracts");
        assert_eq!((stats.files, stats.unpacked), (120, 360_000));
    }
    let (done, result) = extract_many(Some(3), usize::MAX, 1, 0);
    assert_eq!(done, [0, 1, 2]);
    assert!(result.is_err_and(|e| e.to_string().starts_with("layer 3 is damaged")));
}

#[test]
fn stopping_stops() {
    for (threads, fetches) in [(1, 0), (4, 0), (1, 1), (2, 4)] {
        let (done, result) = extract_many(None, 2, threads, fetches);
        assert!(done.len() >= 2, "{result:?}");
        let failure = result.expect_err("stopped");
        assert!(matches!(failure.first(), ExtractError::Stopped), "{failure}");
        assert_eq!(failure.errors().count(), 1);
    }
    let (done, result) = extract_many(None, 2, 1, 0);
    assert_eq!(done.len(), 2, "{result:?}");
}

#[test]
fn extraction_ends_when_the_caller_cannot_keep_a_layer() {
    let (bytes, archive, _) = maker(&nodes(), 5000, 4096, &METHODS).layer();
    let directory = tempfile::tempdir().expect("a directory");
    let (source, into) = (Box::new(BytesSource(bytes.as_slice())), open_directory(directory.path()));
    let task = LayerTask { id: 0, name: "layer x".into(), archive: &archive, source, into };
    let failed = |_| Err("no room".into());
    let result = extract_tasks(vec![task], &Limits::default(), &AtomicBool::new(false), &failed);
    assert!(result.is_err_and(|e| e.to_string() == "cannot keep layer x"));
}

/// A source whose reads take as long as it takes for `wanted` of them to be in flight.
#[derive(Debug)]
struct Slow<'a> {
    bytes: BytesSource<&'a [u8]>,
    wanted: usize,
    flights: &'a Flights,
}

#[derive(Debug, Default)]
struct Flights {
    now_and_most: Mutex<(usize, usize)>,
    changed: Condvar,
    reads: AtomicUsize,
}

impl PieceSource for Slow<'_> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.flights.reads.fetch_add(1, Ordering::Relaxed);
        let mut flights = self.flights.now_and_most.lock().expect("no panic");
        flights.0 += 1;
        flights.1 = flights.1.max(flights.0);
        self.flights.changed.notify_all();
        let few = |flights: &mut (usize, usize)| flights.1 < self.wanted;
        let (mut flights, waited) =
            self.flights.changed.wait_timeout_while(flights, Duration::from_secs(30), few).expect("no panic");
        assert!(!waited.timed_out(), "only {} reads in flight", flights.1);
        flights.0 -= 1;
        self.bytes.read(offset, buffer)
    }

    fn location(&self) -> String {
        self.bytes.location()
    }
}

#[test]
fn fetchers_keep_many_reads_in_flight_whatever_the_number_of_threads() {
    let nodes = nodes();
    let (bytes, archive, _) = maker(&nodes, 100_000, 1 << 16, &METHODS).layer();
    assert!(archive.size > 1 << 20, "not fetched as one");
    let flights = Flights::default();
    let directories: Vec<_> = (0..6).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let tasks = directories.iter().enumerate().map(|(id, directory)| LayerTask {
        id,
        name: format!("layer {id}"),
        archive: &archive,
        source: Box::new(Slow { bytes: BytesSource(bytes.as_slice()), wanted: 6, flights: &flights }),
        into: open_directory(directory.path()),
    });
    let limits = Limits { threads: 2, fetches: 7, ..Limits::default() };
    let tasks = tasks.collect();
    extract_tasks(tasks, &limits, &AtomicBool::new(false), &|_| Ok(())).expect("extracts");
    for directory in &directories {
        assert!(read_tree(directory.path()) == nodes);
    }
    assert!(archive.pieces.len() > 9);
    assert_eq!(flights.reads.load(Ordering::Relaxed), 6 * 2, "a directory is read as one, and so are neighbours");
    assert!(flights.now_and_most.lock().expect("no panic").1 <= 7);
}

#[test]
fn fetched_bytes_stay_within_their_budget() {
    let mut nodes = nodes();
    nodes.extend((0..3).map(|i| (format!("large-{i}"), Node::File(content(9 << 20, i)))));
    let (bytes, archive, _) = maker(&nodes, 100_000, 1 << 16, &[Method::Store]).layer();
    let directory = tempfile::tempdir().expect("a directory");
    let flights = Flights::default();
    let task = LayerTask {
        id: 0,
        name: "layer x".into(),
        archive: &archive,
        source: Box::new(Slow { bytes: BytesSource(bytes.as_slice()), wanted: 1, flights: &flights }),
        into: open_directory(directory.path()),
    };
    // Two threads take all the memory: one range at a time.
    let limits = Limits { threads: 2, fetches: 8, memory: 4 << 20, ..Limits::default() };
    extract_tasks(vec![task], &limits, &AtomicBool::new(false), &|_| Ok(())).expect("extracts");
    assert!(read_tree(directory.path()) == nodes);
    assert_eq!(flights.now_and_most.lock().expect("no panic").1, 1);
    // 30 MiB in ranges of 8.
    assert_eq!(flights.reads.load(Ordering::Relaxed), 1 + 4);
}

#[test]
fn small_layers_are_fetched_by_one_request() {
    let nodes: Nodes = (0..9).map(|i| (format!("f{i}"), Node::File(content(5000, i)))).collect();
    let (bytes, archive, _) = maker(&nodes, 4000, 1024, &METHODS).layer();
    for (wrong, reads, fine) in [(0, 1, true), (2, 3, true), (3, 3, false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let source = Faulty { bytes: BytesSource(bytes.as_slice()), offset: 0, wrong, calls: AtomicUsize::new(0) };
        let into = open_directory(directory.path());
        let name = "layer x".into();
        let task = LayerTask { id: 0, name, archive: &archive, source: Box::new(&source), into };
        let limits = Limits { threads: 2, fetches: 2, ..Limits::default() };
        let result = extract_tasks(vec![task], &limits, &AtomicBool::new(false), &|_| Ok(()));
        assert_eq!(result.is_ok(), fine, "{result:?}");
        assert_eq!(source.calls.into_inner(), reads);
        assert_eq!(read_tree(directory.path()) == nodes, fine);
    }
}

#[test]
fn failed_fetch_ends_the_extraction() {
    let (bytes, archive, _) = maker(&nodes(), 100_000, 1 << 16, &METHODS).layer();
    let directory = tempfile::tempdir().expect("a directory");
    let cut = BytesSource(&bytes[..bytes.len() - 1]);
    let into = open_directory(directory.path());
    let task = LayerTask { id: 0, name: "layer x".into(), archive: &archive, source: Box::new(cut), into };
    let limits = Limits { threads: 2, fetches: 4, ..Limits::default() };
    let failure = extract_tasks(vec![task], &limits, &AtomicBool::new(false), &|_| Ok(())).expect_err("refused");
    assert!(matches!(failure.first(), ExtractError::Read { .. }), "{failure}");
}

#[test]
fn large_entries_stream_where_memory_is_short() {
    let nodes = nodes();
    for methods in [&METHODS[1..2], &METHODS[2..]] {
        let directory = tempfile::tempdir().expect("a directory");
        let bytes = maker(&nodes, 1, 0, methods).zip();
        let (source, into) = (Box::new(BytesSource(bytes.as_slice())), open_directory(directory.path()));
        let task = ZipTask { name: "z".into(), source, size: bytes.len() as u64, into, links: true };
        let limits = Limits { memory: 3 << 20, threads: 4, ..Limits::default() };
        extract_zip(task, &everything, &limits, &AtomicBool::new(false)).expect("extracts");
        assert!(read_tree(directory.path()) == nodes);
    }
}

#[test]
fn entries_are_selected_and_moved() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = maker(&nodes(), 1, 0, &METHODS).zip();
    let (source, into) = (Box::new(BytesSource(bytes.as_slice())), open_directory(directory.path()));
    let task = ZipTask { name: "z".into(), source, size: bytes.len() as u64, into, links: true };
    let select = |entry: &Entry| entry.name.strip_prefix(b"lib/d3/").map(|rest| [b"moved/", rest].concat());
    extract_zip(task, &select, &Limits::default(), &AtomicBool::new(false)).expect("extracts");
    let moved = |(path, node): (String, Node)| Some((format!("moved/{}", path.strip_prefix("lib/d3/")?), node));
    assert_eq!(read_tree(directory.path()), nodes().into_iter().filter_map(moved).collect::<Nodes>());
}

/// How one file is written by the zip crate.
fn options(choice: u8) -> zip::write::SimpleFileOptions {
    let methods = [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated, zip::CompressionMethod::Zstd];
    let mode = if choice & 8 == 0 { 0o644 } else { 0o755 };
    zip::write::SimpleFileOptions::default()
        .compression_method(methods[usize::from(choice) % 3])
        .unix_permissions(mode)
        .large_file(choice & 16 != 0)
}

fn write_files<W: Write + Seek>(mut writer: zip::ZipWriter<W>, nodes: &Nodes, choices: &[u8]) {
    for ((path, node), choice) in nodes.iter().zip(choices) {
        let (Node::File(bytes) | Node::Executable(bytes)) = node else { continue };
        writer.start_file(path, options(*choice)).expect("starts");
        writer.write_all(bytes).expect("writes");
    }
    writer.finish().expect("finishes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// What the zip crate writes comes out as it went in.
    #[test]
    fn archives_of_the_zip_crate_are_extracted(
        files in proptest::collection::btree_map("[a-c]{1,2}/[d-f\u{e9}]{1,2}/[g-z .]{0,7}[g-z]", (0usize..200_000, any::<u8>()), 0..12),
        streamed in any::<bool>(),
        threads in 1usize..5,
    ) {
        let node = |(path, (len, choice)): (&String, &(usize, u8))| {
            let bytes = content(*len, usize::from(*choice));
            (path.clone(), if choice & 8 == 0 { Node::File(bytes) } else { Node::Executable(bytes) })
        };
        let nodes: Nodes = files.iter().map(node).collect();
        let choices: Vec<u8> = files.values().map(|(_, choice)| *choice).collect();
        let mut bytes = Vec::new();
        if streamed {
            write_files(zip::ZipWriter::new_stream(&mut bytes), &nodes, &choices);
        } else {
            write_files(zip::ZipWriter::new(std::io::Cursor::new(&mut bytes)), &nodes, &choices);
        }
        let (found, result) = unzip_bytes(&bytes, threads);
        prop_assert!(result.is_ok(), "{:?}", result);
        prop_assert!(found == nodes, "{:?} {:?}", found.keys(), nodes.keys());
    }
}
