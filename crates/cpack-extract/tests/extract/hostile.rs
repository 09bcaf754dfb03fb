//! Archives made to harm: each is refused with one line, and nothing is written outside.

use std::error::Error;
use std::fs;

use cpack_format::exit::Exit;
use proptest::prelude::*;

use super::*;

const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// The error's whole chain, as a user reads it.
fn line(failure: &Failure) -> String {
    let mut line = failure.to_string();
    let mut source = failure.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

/// Extracts `bytes` and returns what is in the directory and the error's line. Whatever happens, nothing else changes.
fn refused(bytes: &[u8]) -> (Nodes, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let (outer, into) = (directory.path().join("outer"), directory.path().join("outer/into"));
    fs::create_dir_all(&into).expect("a directory");
    fs::write(outer.join("target"), b"untouched").expect("writes");
    let file = directory.path().join("zip");
    fs::write(&file, bytes).expect("writes");
    let limits = Limits { threads: 2, ..Limits::default() };
    let result = unzip(&file, &into, &limits, &AtomicBool::new(false));
    let found = read_tree(&into);
    fs::remove_dir_all(&into).expect("removes");
    let outside = Nodes::from([
        ("outer/target".into(), Node::File(b"untouched".to_vec())),
        ("zip".into(), Node::File(bytes.to_vec())),
    ]);
    for path in ["outer/target", "zip"] {
        let path = directory.path().join(path);
        let mut permissions = fs::metadata(&path).expect("there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).expect("changes");
    }
    assert_eq!(read_tree(directory.path()), outside, "something was written outside");
    let failure = result.expect_err("refused");
    assert_eq!(failure.exit(), Exit::Artifact, "{failure:?}");
    let line = line(&failure);
    assert!(!line.contains('\n'), "{line}");
    (found, line)
}

/// Name, mode, content.
type Raw<'a> = (&'a [u8], u32, &'a [u8]);

/// The zip of these entries.
fn raw(entries: &[Raw<'_>]) -> Maker {
    let mut maker = Maker::new(1 << 20);
    for (name, mode, content) in entries {
        maker.add_raw(name, *mode, content, Method::Store, 0);
    }
    maker
}

#[test]
fn extraction_refuses_bad_central_directories_before_it_writes() {
    let good: Raw<'_> = (b"good", FILE, b"content");
    let table: &[(&[Raw<'_>], &str)] = &[
        (&[(b"../target", FILE, b"x")], "'..'"),
        (&[(b"a/../../target", FILE, b"x")], "'..'"),
        (&[(b"/tmp/x", FILE, b"x")], "absolute"),
        (&[(b"a//b", FILE, b"x")], "empty component"),
        (&[(b"./a", FILE, b"x")], "'.' component"),
        (&[(b"a\0b", FILE, b"x")], "NUL"),
        (&[(b"", FILE, b"x")], "empty"),
        (&[(b"a\n\x1b[31m//", FILE, b"x")], "empty component"),
        (&[(b"../", 0o040_755, b"")], "'..'"),
        (&[(b"..", 0o040_755, b"")], "'..'"),
        (&[(b"a", FILE, b"x"), (b"a", FILE, b"y")], "two entries"),
        (&[(b"a", FILE, b"x"), (b"a", LINK, b"good")], "two entries"),
        (&[(b"a", FILE, b"x"), (b"a/", 0o040_755, b"")], "two entries"),
        (&[(b"a/b", FILE, b"x"), (b"a", FILE, b"y")], "both a file and a directory"),
        (&[(b"a", FILE, b"x"), (b"a.b", FILE, b""), (b"a/b/c", FILE, b"y")], "both a file and a directory"),
        (&[(b"a", LINK, b".."), (b"a/target", FILE, b"x")], "both a file and a directory"),
        (&[(b"a", 0o060_644, b"")], "device"),
        (&[(b"a", 0o020_644, b"")], "device"),
        (&[(b"a", 0o010_644, b"")], "fifo"),
        (&[(b"a", 0o140_644, b"")], "socket"),
        (&[(b"a/", 0o040_755, b"content")], "a directory has no content"),
        (&[(b"a", LINK, &[b'x'; 4000])], "no link's target"),
    ];
    for (entries, reason) in table {
        let entries = [&[good], *entries].concat();
        let (found, line) = refused(&raw(&entries).zip());
        assert!(line.contains(reason), "{reason}: {line}");
        assert!(found.is_empty(), "{reason}: {found:?}");
    }
}

#[test]
fn links_that_lead_out_are_not_made() {
    for target in [&b".."[..], b"../target", b"/etc/passwd", b"b/../..", b"b/..", b""] {
        let maker = raw(&[(b"a", LINK, target), (b"b/c", FILE, b"content")]);
        let (found, line) = refused(&maker.zip());
        assert!(line.contains("leads out"), "{line}");
        assert!(!found.contains_key("a"));
    }
}

#[test]
fn links_are_files_where_none_are_made() {
    let bytes = raw(&[(b"a", LINK & !0o111, b"../target"), (b"b", LINK, b"x")]).zip();
    let directory = tempfile::tempdir().expect("a directory");
    let (source, into) = (Box::new(BytesSource(bytes.as_slice())), open_directory(directory.path()));
    let task = ZipTask { name: "z".into(), source, size: bytes.len() as u64, into, links: false };
    extract_zip(task, &everything, &Limits::default(), &AtomicBool::new(false)).expect("extracts");
    let expected = [("a".into(), Node::File(b"../target".to_vec())), ("b".into(), Node::Executable(b"x".to_vec()))];
    assert_eq!(read_tree(directory.path()), Nodes::from(expected));
}

#[test]
fn special_bits_have_no_way_through() {
    let maker = raw(&[(b"a", 0o107_777, b"x"), (b"b", 0o102_644, b"y")]);
    let (found, result) = unzip_bytes(&maker.zip(), 1);
    result.expect("extracts");
    // read_tree checks the modes.
    assert_eq!(
        found,
        Nodes::from([("a".into(), Node::Executable(b"x".to_vec())), ("b".into(), Node::File(b"y".to_vec())),])
    );
}

/// One change to the entries of an archive whose data stays as it was.
type Change = fn(&mut Maker);

#[test]
fn sizes_and_places_that_cannot_be_are_refused_before_anything_is_written() {
    let table: &[(&str, Change)] = &[
        ("overlaps", |m| m.entries[1].header_offset = m.entries[0].header_offset),
        ("overlaps", |m| m.entries[1].header_offset += 1),
        ("overlaps", |m| m.entries[2].compressed_size += 1 << 20),
        ("overlaps", |m| m.entries[1].header_offset = u64::MAX - 10),
        ("overlaps", |m| m.entries[2].compressed_size = u64::MAX),
        ("stored entries", |m| m.entries[0].size = 6000),
        ("deflate cannot", |m| m.entries[1].size = 4 << 30),
        ("more than the", |m| m.entries[2].size = 2 << 30),
        ("more than the", |m| m.entries[2].size = u64::MAX),
        ("nothing to decode", |m| m.entries[2].compressed_size = 0),
    ];
    for (reason, change) in table {
        let mut maker = Maker::new(1);
        for (name, method) in ["a", "b", "c"].into_iter().zip(METHODS) {
            maker.add(name, &Node::File(content(5000, 1)), method, 0);
        }
        change(&mut maker);
        let (found, line) = refused(&maker.zip());
        assert!(line.contains(reason), "{reason}: {line}");
        assert!(found.is_empty(), "{reason}: {found:?}");
    }
}

#[test]
fn data_that_is_not_what_was_stated_is_refused() {
    let table: &[(&str, Change)] = &[
        ("CRC-32", |m| m.entries[0].crc32 ^= 1),
        ("CRC-32", |m| m.entries[1].crc32 ^= 1),
        ("names", |m| m.entries[0].name = b"x"[..].into()),
        ("has method 0", |m| {
            m.entries[0].method = Method::Zstd;
        }),
        ("has size", |m| m.entries[1].size -= 1),
        ("has size", |m| m.entries[2].compressed_size -= 1),
        ("local header", |m| m.entries[0].header_offset += 1),
    ];
    for (reason, change) in table {
        let mut maker = Maker::new(1);
        for (name, method) in ["a", "b", "c"].into_iter().zip(METHODS) {
            maker.add(name, &Node::File(content(5000, 1)), method, 0);
            maker.bytes.extend_from_slice(&[0; 8]); // so that a changed offset need not overlap
        }
        change(&mut maker);
        let (_, line) = refused(&maker.zip());
        assert!(line.contains(reason), "{reason}: {line}");
    }
}

/// An entry whose headers agree on a length that its data does not have.
fn lying(method: Method, len: usize, claimed: u64) -> Vec<u8> {
    let mut maker = Maker::new(1);
    maker.add("bomb", &Node::File(vec![0; len]), method, 0);
    let data =
        maker.bytes.split_off(maker.bytes.len() - usize::try_from(maker.entries[0].compressed_size).expect("small"));
    maker.entries[0].size = claimed;
    maker.bytes = cpack_format::zip::local_header(&maker.entries[0]);
    maker.bytes.extend_from_slice(&data);
    maker.zip()
}

#[test]
fn data_longer_or_shorter_than_stated_is_refused() {
    for method in [Method::Deflate, Method::Zstd] {
        for (len, claimed) in
            [(5 << 20, 1000), (1000, 1001), (1000, 999), (5 << 20, (5 << 20) - 1), (3 << 20, (3 << 20) + 1)]
        {
            let (_, line) = refused(&lying(method, len, claimed));
            assert!(line.contains("decode"), "{method:?} {len} {claimed}: {line}");
        }
    }
}

#[test]
fn limits_hold() {
    let bytes = raw(&[(b"a/b/c/d", FILE, b"12345"), (b"e", FILE, b"67890")]).zip();
    let extract = |limits: Limits| {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, into) = (Box::new(BytesSource(bytes.as_slice())), open_directory(directory.path()));
        let task = ZipTask { name: "z".into(), source, size: bytes.len() as u64, into, links: true };
        extract_zip(task, &everything, &limits, &AtomicBool::new(false)).map_err(|e| line(&e))
    };
    let limits = Limits::default();
    assert!(extract(limits).is_ok());
    assert!(extract(Limits { max_entries: 1, ..limits }).is_err_and(|e| e.contains("2 entries, more than the 1")));
    assert!(extract(Limits { max_entries: 2, ..limits }).is_err_and(|e| e.contains("3 directories")));
    assert!(extract(Limits { max_unpacked: 9, ..limits }).is_err_and(|e| e.contains("10 unpacked bytes")));
}

/// Without the largest file.
fn small_nodes() -> Nodes {
    nodes().into_iter().filter(|(path, _)| path != "lib/larger.so").collect()
}

#[test]
fn truncated_zips_are_refused() {
    let bytes = maker(&small_nodes(), 1, 1 << 16, &METHODS).zip();
    let len = bytes.len();
    for len in (0..100).chain((len - 200..len).step_by(7)).chain([len / 2, len - 1]) {
        refused(&bytes[..len]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A layer is right or refused, whichever byte is wrong.
    #[test]
    fn flipped_bit_in_a_layer_is_always_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let small = small_nodes();
        let (mut bytes, archive, _) = maker(&small, 9000, 4096, &METHODS).layer();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let (_, result) = extract_one(&bytes, &archive, 2);
        let refused = result.is_err_and(|e| matches!(e.first(), ExtractError::Piece { .. }));
        prop_assert!(refused);
    }

    /// A zip without digests: flips are found, or harmless, but never dangerous.
    #[test]
    fn flipped_bits_in_a_zip_do_no_harm(flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 1..4)) {
        let small = small_nodes();
        let mut bytes = maker(&small, 1, 4096, &METHODS).zip();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let (found, result) = unzip_bytes(&bytes, 2);
        if result.is_ok() {
            let contents = |nodes: Nodes| -> Vec<Vec<u8>> {
                let bytes = |node| match node {
                    Node::File(bytes) | Node::Executable(bytes) | Node::Link(bytes) => bytes,
                    Node::Directory => Vec::new(),
                };
                let mut contents: Vec<_> = nodes.into_values().map(bytes).collect();
                contents.sort();
                contents
            };
            prop_assert!(contents(found) == contents(small));
        }
    }
}
