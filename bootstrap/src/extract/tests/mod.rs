//! Archives are extracted as other readers see them, and hostile ones not at all.

mod make;

use std::sync::atomic::AtomicBool;

use cpack_artifact::Digest;
use cpack_artifact::manifest::Archive;
use cpack_artifact::zip::Method;
use make::{Maker, Node, Nodes, open_directory, read_tree};

use super::*;

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

fn extract_one(bytes: &[u8], archive: &Archive, content: Digest, threads: usize) -> (Nodes, Result<Stats, Failure>) {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, into) = (Box::new(BytesSource(bytes)), open_directory(directory.path()));
    let task = LayerTask { id: 7, name: "layer test".into(), archive, content, source, into };
    let limits = Limits { threads, ..Limits::default() };
    let result = extract_layers(vec![task], &limits, &AtomicBool::new(false), &|id, _| {
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
        let (bytes, archive, content) = maker(&nodes, piece, frame, &METHODS).layer();
        let (found, result) = extract_one(&bytes, &archive, content, threads);
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
