//! Tars: what is read, and what is refused.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use cpack_extract::{Compression, Limits, Stats, TarTask, extract_tar};
use cpack_format::SafePath;
use cpack_format::exit::Exit;
use cpack_format::message::with_causes;
use cpack_test::archives::{Node, open_directory, read_tree};
use cpack_test::programs::succeeded;

const BLOCK: usize = 512;

/// A header that is filled in byte by byte, so that it can be wrong.
fn header(name: &[u8], kind: u8, size: u64, target: &[u8]) -> Vec<u8> {
    let mut header = vec![0; BLOCK];
    let put = |header: &mut Vec<u8>, at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut header, 0, &name[..name.len().min(100)]);
    put(&mut header, 100, b"0000755\0");
    put(&mut header, 124, format!("{size:011o}\0").as_bytes());
    put(&mut header, 136, b"14000000000\0");
    header[156] = kind;
    put(&mut header, 157, &target[..target.len().min(100)]);
    put(&mut header, 257, b"ustar\x0000");
    put(&mut header, 148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    header
}

fn member(name: &[u8], kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, content.len() as u64, b"");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    member(name.as_bytes(), b'0', b"text")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    header(name.as_bytes(), b'2', 0, target.as_bytes())
}

fn same_as(name: &str, target: &str) -> Vec<u8> {
    header(name.as_bytes(), b'1', 0, target.as_bytes())
}

/// PAX records as a member before the one that they describe.
fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let length =
            (1..).find(|digits| (rest.len() + digits).to_string().len() == *digits).expect("a length") + rest.len();
        content.extend_from_slice(length.to_string().as_bytes());
        content.extend_from_slice(&rest);
    }
    member(b"PaxHeaders/x", b'x', &content)
}

fn ended(members: &[Vec<u8>]) -> Vec<u8> {
    [members.concat(), vec![0; 2 * BLOCK]].concat()
}

/// Extracts `bytes`, where `bin/python` may lead out and `twice` may be there several times.
fn extract(bytes: &[u8], compression: Compression, limits: &Limits, into: &Path) -> Result<Stats, (String, Exit)> {
    let mut archive = tempfile::tempfile().expect("a file");
    archive.write_all(bytes).expect("writes");
    std::io::Seek::rewind(&mut archive).expect("seeks");
    let task = TarTask {
        name: "env.tar".into(),
        file: archive,
        compression,
        into: open_directory(into),
        leaves_out: &|path: &SafePath| path.as_bytes() == b"bin/python",
        may_repeat: &|path: &SafePath| path.as_bytes() == b"twice",
    };
    extract_tar(task, limits, &AtomicBool::new(false), &|| {}).map_err(|error| (with_causes(&error), error.exit()))
}

fn refused(members: &[Vec<u8>]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let outside = directory.path().join("outside");
    let into = directory.path().join("into");
    std::fs::create_dir(&into).expect("creates");
    let (said, exit) = extract(&ended(members), Compression::None, &Limits::default(), &into).expect_err("refuses");
    assert_eq!(exit, Exit::Artifact, "{said}");
    assert!(!outside.exists(), "{said}");
    assert!(!said.contains('\n'), "{said}");
    said
}

#[test]
fn tar_members_are_files_directories_and_links_of_any_name() {
    let long = format!("{}/file", "directory".repeat(20));
    let longer = format!("{}/caf\u{e9}", "d".repeat(200));
    let members = [
        member(b"./", b'5', b""),
        member(b"./empty/", b'5', b""),
        file("./a"),
        same_as("b", "./a"),
        link("lib64", "lib"),
        link("bin/python", "/usr/bin/python3"),
        file("twice"),
        member(b"twice", b'0', b"the last one"),
        member(b"././@LongLink", b'L', format!("{long}\0").as_bytes()),
        file("cut"),
        pax(&[("path", longer.as_bytes()), ("mtime", b"1700000000.5"), ("comment", b"\n")]),
        member(b"cut", b'0', b""),
        member(b"pax_global_header", b'g', b"11 comment=x"),
    ];
    let mut members = members.to_vec();
    members.pop();
    members.push(member(b"pax_global_header", b'g', b"13 comment=x\n"));
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz] {
        let plain = ended(&members);
        let bytes = match compression {
            Compression::None => plain,
            // In two members and frames: `pigz` and `cluster-pack pack` write many.
            Compression::Gzip => [gzip(&plain[..1000]), gzip(&plain[1000..])].concat(),
            Compression::Zstd => {
                let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("compresses");
                [frame(&plain[..1000]), frame(&plain[1000..])].concat()
            }
            Compression::Bzip2 => [by_python("bz2", &plain[..1000]), by_python("bz2", &plain[1000..])].concat(),
            Compression::Xz => [by_python("lzma", &plain[..1000]), by_python("lzma", &plain[1000..])].concat(),
        };
        let directory = tempfile::tempdir().expect("a directory");
        let stats = extract(&bytes, compression, &Limits::default(), directory.path()).expect("extracts");
        assert_eq!(stats.files, 9);
        let text = || Node::Executable(b"text".to_vec());
        let expected = [
            ("a", text()),
            ("b", text()),
            ("empty", Node::Directory),
            ("lib64", Node::Link(b"lib".to_vec())),
            ("twice", Node::Executable(b"the last one".to_vec())),
            (&*long, text()),
            (&*longer, Node::Executable(Vec::new())),
        ];
        let expected = expected.map(|(name, node)| (name.to_owned(), node)).into();
        assert_eq!(read_tree(directory.path()), expected, "{compression:?}");
        let modified = std::fs::metadata(directory.path().join(&longer)).expect("is there").modified().expect("a time");
        let since = modified.duration_since(std::time::SystemTime::UNIX_EPOCH).expect("after 1970");
        assert_eq!(since.as_secs(), 1_700_000_000);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compresses");
    encoder.finish().expect("compresses")
}

#[test]
fn tar_with_a_hostile_member_is_refused_and_the_member_named() {
    let cases: Vec<(Vec<Vec<u8>>, &str, &str)> = vec![
        (vec![file("/outside")], "/outside", "absolute"),
        (vec![file("../outside")], "../outside", "unsafe path"),
        (vec![file("a/../../outside")], "a/../../outside", "unsafe path"),
        (vec![link("a", "../outside")], "\"a\"", "leads out"),
        (vec![link("a", "/outside")], "\"a\"", "leads out"),
        (vec![link("a", "b/../../outside")], "\"a\"", "leads out"),
        (vec![link("a", "b"), file("a/outside")], "\"a\"", "both a directory and something else"),
        (vec![file("a/b"), link("a", "c")], "\"a\"", "both a directory and something else"),
        (vec![link("a", "b"), file("a")], "\"a\"", "twice"),
        (vec![file("a"), file("a")], "\"a\"", "twice"),
        (vec![link("twice", "b"), file("twice")], "\"twice\"", "twice"),
        (vec![file("a"), link("a", "b")], "\"a\"", "twice"),
        (vec![same_as("a", "/outside")], "\"a\"", "leads out"),
        (vec![same_as("a", "../outside")], "\"a\"", "leads out"),
        (vec![same_as("a", "b")], "\"a\"", "no file before it"),
        (vec![link("b", "c"), same_as("a", "b")], "\"a\"", "no file before it"),
        (vec![member(b"a", b'3', b"")], "\"a\"", "device or fifo"),
        (vec![member(b"a", b'4', b"")], "\"a\"", "device or fifo"),
        (vec![member(b"a", b'6', b"")], "\"a\"", "device or fifo"),
        (vec![member(b"a", b'S', b"")], "\"a\"", "sparse"),
        (vec![pax(&[("GNU.sparse.major", b"1")]), file("a")], "\"a\"", "sparse"),
        (vec![member(b"a", b'V', b"")], "\"a\"", "unknown type"),
        (vec![pax(&[("path", b"../outside")]), file("a")], "../outside", "unsafe path"),
        (vec![pax(&[("linkpath", b"/outside")]), link("a", "b")], "\"a\"", "leads out"),
        (vec![member(b"././@LongLink", b'L', b"/outside\0"), file("a")], "/outside", "absolute"),
        (vec![member(b"x", b'x', b"99 path=a\n"), file("a")], "\"x\"", "damaged PAX records"),
        (vec![member(b"g", b'g', b"10 path=a\n"), file("a")], "\"g\"", "gives all members"),
        (vec![member(b"a", b'5', b"content")], "\"a\"", "content although it is no file"),
        (vec![member(b"", b'0', b"")], "\"\"", "unsafe path"),
        (vec![header(b"././@LongLink", b'L', 1 << 30, b"")], "@LongLink", "more than"),
    ];
    for (members, name, reason) in cases {
        let said = refused(&members);
        assert!(said.contains(name) && said.contains(reason), "{name} {reason}: {said}");
    }
}

/// What a module of Python's compresses `bytes` to.
fn by_python(module: &str, bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("plain");
    fs::write(&path, bytes).expect("writes");
    let code = "import importlib, sys; path = sys.argv[2]\n\
                packed = importlib.import_module(sys.argv[1]).compress(open(path, 'rb').read()); open(path, 'wb').write(packed)";
    let mut python = Command::new(cpack_test::programs::usual_interpreter());
    succeeded(&python.args(["-c", code, module]).arg(&path).output().expect("starts"), module);
    fs::read(path).expect("reads")
}

#[test]
fn tar_in_bzip2_or_xz_that_was_cut_or_damaged_says_so() {
    let members: Vec<Vec<u8>> = (0..4).map(|n| file(&n.to_string())).collect();
    for (module, compression) in [("bz2", Compression::Bzip2), ("lzma", Compression::Xz)] {
        let packed = by_python(module, &ended(&members));
        let refuses = |bytes: &[u8], what: &str| {
            let directory = tempfile::tempdir().expect("a directory");
            let extracted = extract(bytes, compression, &Limits::default(), directory.path());
            let (said, exit) = extracted.expect_err(what);
            assert!(said.contains("env.tar") && exit == Exit::Artifact, "{module} {what}: {said}");
        };
        for cut in 6..packed.len() {
            refuses(&packed[..cut], &format!("cut at {cut}"));
        }
        // The last byte of bzip2 is filled up with bits that mean nothing.
        for at in (8..packed.len() - 1).step_by(3) {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            refuses(&damaged, &format!("damaged at {at}"));
        }
    }
    // A window of 4 GiB must not be taken from memory.
    let mut greedy = by_python("lzma", &ended(&members));
    let at = greedy.windows(3).position(|bytes| bytes == [0x21, 0x01, 0x16]).expect("LZMA2 in its block's header") + 2;
    greedy[at] = 40;
    let header = 12..12 + (usize::from(greedy[12]) + 1) * 4;
    let checked = header.end - 4;
    let sum = crc32fast::hash(&greedy[header.start..checked]);
    greedy[checked..header.end].copy_from_slice(&sum.to_le_bytes());
    let directory = tempfile::tempdir().expect("a directory");
    let (said, _) = extract(&greedy, Compression::Xz, &Limits::default(), directory.path()).expect_err("refuses");
    assert!(said.contains("env.tar"), "{said}");
}

#[test]
fn tar_that_ends_too_early_is_damaged_wherever_it_was_cut() {
    let members: Vec<Vec<u8>> = (0..4).map(|n| file(&n.to_string())).collect();
    let plain = ended(&members);
    // The last block need not be there: one of zeros ends a tar.
    for cut in (0..=plain.len() - BLOCK - 1).step_by(128) {
        let directory = tempfile::tempdir().expect("a directory");
        let extracted = extract(&plain[..cut], Compression::None, &Limits::default(), directory.path());
        let (said, exit) = extracted.expect_err("is damaged");
        assert!(said.contains("end mark") && exit == Exit::Artifact, "{cut}: {said}");
    }
    let compressed = gzip(&plain);
    for cut in 0..compressed.len() {
        let directory = tempfile::tempdir().expect("a directory");
        let extracted = extract(&compressed[..cut], Compression::Gzip, &Limits::default(), directory.path());
        let (said, exit) = extracted.expect_err("is damaged");
        assert!(said.contains("env.tar") && exit == Exit::Artifact, "{cut}: {said}");
    }
    let mut damaged = compressed.clone();
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    let directory = tempfile::tempdir().expect("a directory");
    let (said, _) = extract(&damaged, Compression::Gzip, &Limits::default(), directory.path()).expect_err("is damaged");
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn tar_that_claims_more_than_the_limits_is_refused() {
    let bytes = ended(&[file("a"), file("b/c")]);
    for (limits, what) in [
        (Limits { max_entries: 2, ..Limits::default() }, "files and directories"),
        (Limits { max_unpacked: 7, ..Limits::default() }, "bytes of content"),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let (said, exit) = extract(&bytes, Compression::None, &limits, directory.path()).expect_err("refuses");
        assert!(said.contains(what) && exit == Exit::Artifact, "{said}");
    }
}

proptest::proptest! {
    #[test]
    fn tar_that_is_damaged_anywhere_ends_in_an_error_or_in_files_below_its_directory(
        changes in proptest::collection::vec((0..6 * BLOCK, proptest::prelude::any::<u8>()), 1..6), valid_sums: bool
    ) {
        let mut bytes = ended(&[
            member(b"d/", b'5', b""), pax(&[("path", b"d/long")]), file("cut"), link("d/l", "long"), same_as("e", "d/long"),
        ]);
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        if valid_sums {
            // A header whose checksum is right gets further.
            for header in bytes.chunks_exact_mut(BLOCK).filter(|block| block.get(257..262) == Some(b"ustar")) {
                header[148..156].copy_from_slice(b"        ");
                let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        let into = directory.path().join("into");
        std::fs::create_dir(&into).expect("creates");
        let extracted = extract(&bytes, Compression::None, &Limits::default(), &into);
        if let Err((said, exit)) = extracted {
            assert_eq!(exit, Exit::Artifact, "{said}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 1);
    }
}
