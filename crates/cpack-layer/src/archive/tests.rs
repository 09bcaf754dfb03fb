//! Layers are deterministic, readable by others, and name their content.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use cpack_format::content::{Item, Kind, content_digest};
use cpack_format::zip::{FRAME_SIZE, MAX_TAIL, read_directory, read_end};
use cpack_format::{Digest, SafePath};

use super::*;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|i| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if i / 3000 % 2 == 0 { (state >> 60) as u8 } else { (state >> 33) as u8 }
        })
        .collect()
}

/// Paths and contents: empty, tiny, compressible, larger than a frame, exactly two frames, incompressible.
fn corpus() -> Vec<(&'static str, Kind, Vec<u8>)> {
    vec![
        ("lib/empty", Kind::File, Vec::new()),
        ("bin/tool", Kind::Executable, b"#!/bin/sh\n".to_vec()),
        ("lib/text", Kind::File, b"text ".repeat(5000)),
        ("lib/large.so", Kind::Executable, noise(FRAME_SIZE as usize * 7 + 12345, 1)),
        ("lib/two", Kind::File, vec![3; FRAME_SIZE as usize * 2]),
        ("lib/one", Kind::File, noise(FRAME_SIZE as usize, 2)),
        ("lib/link", Kind::Link, b"text".to_vec()),
        ("lib/nothing", Kind::Directory, Vec::new()),
        ("lib/\u{e9}", Kind::File, b"accent".to_vec()),
    ]
}

fn entries(directory: &Path, made: bool) -> Vec<Entry> {
    let entry = |(i, (path, kind, bytes)): (usize, (&str, Kind, Vec<u8>))| {
        let file = directory.join(format!("{i}"));
        let body = match kind {
            Kind::Link | Kind::Directory => Body::Bytes(bytes),
            _ if made => Body::Made { size_hint: 10, make: Arc::new(move || Ok(Some(bytes.clone()))) },
            _ => {
                fs::write(&file, &bytes).expect("writes");
                Body::File { path: file, size: bytes.len() as u64 }
            }
        };
        Entry { path: SafePath::new(path.as_bytes()).expect("safe"), kind, body }
    };
    corpus().into_iter().enumerate().map(entry).collect()
}

fn write(directory: &Path, entries: Vec<Entry>, threads: usize) -> (WrittenArchive, Vec<u8>) {
    let path = directory.join(format!("layer-{threads}-{}.zip", fs::read_dir(directory).expect("reads").count()));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let written = pool.install(|| write_layer("test", entries, &path, DEFAULT_LEVEL, &|_| {})).expect("writes");
    (written, fs::read(path).expect("reads"))
}

#[test]
fn threads_order_and_origin_of_the_bytes_do_not_matter() {
    let directory = tempfile::tempdir().expect("a directory");
    let (first, bytes) = write(directory.path(), entries(directory.path(), false), 1);
    let mut shuffled = entries(directory.path(), false);
    shuffled.reverse();
    for (written, other) in
        [write(directory.path(), shuffled, 3), write(directory.path(), entries(directory.path(), true), 2)]
    {
        assert_eq!(written, first);
        assert_eq!(other, bytes);
    }
}

#[test]
fn digests_are_those_of_the_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let (written, bytes) = write(directory.path(), entries(directory.path(), false), 2);
    assert_eq!(written.archive.digest, Digest::of(&bytes));
    assert_eq!(written.archive.size, bytes.len() as u64);
    let mut at = 0;
    for piece in &written.archive.pieces {
        let end = at + piece.size as usize;
        assert_eq!(piece.digest, Digest::of(&bytes[at..end]));
        at = end;
    }
    assert_eq!(at, bytes.len());
    let mut items: Vec<Item> = corpus()
        .into_iter()
        .map(|(path, kind, bytes)| Item {
            path: SafePath::new(path.as_bytes()).expect("safe"),
            kind,
            size: bytes.len() as u64,
            digest: Digest::of(&bytes),
        })
        .collect();
    assert_eq!(written.content, content_digest(&mut items));
}

#[test]
fn pieces_are_cut_between_entries_or_frames() {
    let directory = tempfile::tempdir().expect("a directory");
    let (written, bytes) = write(directory.path(), entries(directory.path(), false), 2);
    let cuts: Vec<u64> = written
        .archive
        .pieces
        .iter()
        .scan(0, |at, p| {
            *at += u64::from(p.size);
            Some(*at)
        })
        .collect();
    assert!(cuts.len() > 2 && cuts.contains(&written.archive.directory), "{cuts:?}");
    let end = read_end(&bytes[bytes.len().saturating_sub(MAX_TAIL)..], bytes.len() as u64).expect("an end");
    let records = read_directory(&bytes[end.directory_offset as usize..][..end.directory_size as usize], &end);
    let mut allowed = vec![written.archive.directory, bytes.len() as u64];
    for record in records.expect("a directory") {
        let data = record.header_offset
            + cpack_format::zip::local_header_len(&bytes[record.header_offset as usize..], &record).expect("header")
                as u64;
        allowed.push(record.header_offset);
        let lengths = record.frames.map(|f| f.lengths).unwrap_or_default();
        allowed.extend(lengths.iter().scan(data, |at, l| {
            *at += u64::from(*l);
            Some(*at)
        }));
    }
    assert!(cuts.iter().all(|cut| allowed.contains(cut)), "{cuts:?} {allowed:?}");
}

#[test]
fn the_zip_crate_reads_every_entry() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_, bytes) = write(directory.path(), entries(directory.path(), false), 2);
    let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("a zip");
    assert_eq!(archive.len(), corpus().len());
    for (path, kind, content) in corpus() {
        let name = if kind == Kind::Directory { format!("{path}/") } else { path.to_owned() };
        let mut file = archive.by_name(&name).expect("the entry");
        assert_eq!(file.unix_mode(), Some(kind.mode()), "{path}");
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("content");
        assert!(read == content, "{path}");
    }
}

#[test]
fn entries_whose_content_is_not_made_are_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let nothing = Entry {
        path: SafePath::new(b"lib/refused.pyc").expect("safe"),
        kind: Kind::File,
        body: Body::Made { size_hint: 1 << 30, make: Arc::new(|| Ok(None)) },
    };
    let mut more = entries(directory.path(), false);
    more.push(nothing);
    let expected = write(directory.path(), entries(directory.path(), false), 2);
    assert_eq!(write(directory.path(), more, 2), expected);
}

#[test]
fn every_codec_is_read_by_others_behind_any_head() {
    for codec in [Codec::Zstd(3), Codec::Deflate(1), Codec::Deflate(6), Codec::Deflate(12), Codec::Store] {
        let directory = tempfile::tempdir().expect("a directory");
        let entries = entries(directory.path(), false);
        let path = directory.path().join("out.zip");
        let form = Form { codec, head: b"#!/usr/bin/env python3\n", executable: true };
        let written = write_zip("test", entries, &path, form, &|_| {}).expect("writes");
        let bytes = fs::read(&path).expect("reads");
        assert!(bytes.starts_with(form.head));
        assert_eq!(written.archive.digest, Digest::of(&bytes));
        let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(bytes)).expect("a zip");
        assert_eq!(archive.offset(), 0, "offsets count the head");
        for (path, kind, content) in corpus() {
            let name = if kind == Kind::Directory { format!("{path}/") } else { path.to_owned() };
            let mut file = archive.by_name(&name).expect("the entry");
            let mut read = Vec::new();
            file.read_to_end(&mut read).expect("content");
            assert!(read == content, "{path} {codec:?}");
        }
    }
}

/// A zip of one entry, compressed at this level of deflate.
fn deflated(content: &[u8], level: u32) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let (from, path) = (directory.path().join("content"), directory.path().join("out.zip"));
    fs::write(&from, content).expect("writes");
    let body = Body::File { path: from, size: content.len() as u64 };
    let entry = Entry { path: SafePath::new(b"lib/content").expect("safe"), kind: Kind::File, body };
    let form = Form { codec: Codec::Deflate(level), head: b"", executable: false };
    write_zip("test", vec![entry], &path, form, &|_| {}).expect("writes");
    fs::read(&path).expect("reads")
}

#[test]
fn large_deflated_entry_is_one_stream_for_others() {
    // Dense, raw and compressible segments.
    let mut content = noise(20 << 20, 3);
    content.extend(cpack_test::noise(10 << 20));
    content.extend(b"text ".repeat(1 << 20));
    let zip = deflated(&content, 6);
    let position = memchr::memmem::find(&zip, &content[(20 << 20)..(20 << 20) + 1000]);
    assert!(position.is_some(), "noise is raw");
    let mut archive = ::zip::ZipArchive::new(std::io::Cursor::new(zip)).expect("a zip");
    let mut read = Vec::new();
    archive.by_index(0).expect("the entry").read_to_end(&mut read).expect("content");
    assert!(read == content);
}

#[test]
fn dense_contents_are_deflated_at_a_low_level() {
    // Six bits of each byte are noise.
    let dense: Vec<u8> = cpack_test::noise(1 << 20).iter().map(|byte| byte & 0x3f).collect();
    let text: Vec<u8> =
        (0..60_000_u32).flat_map(|i| format!("line {} of it\n", i.wrapping_mul(2_654_435_761)).into_bytes()).collect();
    assert!(deflated(&dense, 6) == deflated(&dense, 2));
    assert!(deflated(&text, 6).len() < deflated(&text, 2).len());
    // Noise in the middle of a text says nothing of the rest.
    let mixed = [&text[..text.len() / 2], &cpack_test::noise(64 << 10), &text[text.len() / 2..]].concat();
    assert!(deflated(&mixed, 6).len() < deflated(&mixed, 2).len());
}

#[test]
fn file_that_changed_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut entries = entries(directory.path(), false);
    for entry in &mut entries {
        if let Body::File { size, .. } = &mut entry.body {
            *size += 1;
        }
    }
    let result = write_layer("test", entries, &directory.path().join("out.zip"), 1, &|_| {});
    assert!(matches!(result, Err(ArchiveError::Changed(_))), "{result:?}");
}
