//! `open` refuses what is no PEX with one line.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use cpack_format::exit::Exit;

use super::*;

#[test]
fn the_first_lines_name_the_python() {
    for (head, expected) in [
        (&b"#!/usr/bin/env python3.11\nPK\x03\x04"[..], Some("3.11")),
        (b"#!/bin/sh\nfor p in python3.9 python3; do\nPK\x03\x04", Some("3.9")),
        (b"#!/usr/bin/env python3\nPK\x03\x04 python3.12", None),
    ] {
        assert_eq!(open::named_python(head).as_deref(), expected);
    }
}

/// Writes a PEX whose module holds `code`.
fn write_pex(path: &Path, code: &[u8]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).expect("creates"));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in [("PEX-INFO", &b"{}"[..]), ("module.py", code)] {
        zip.start_file(name, stored).expect("starts");
        zip.write_all(bytes).expect("writes");
    }
    zip.finish().expect("finishes");
}

/// The bytes of a zip whose files are compressed by one method.
fn zip_of(files: &[(&str, &[u8])], method: zip::CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).expect("starts");
        zip.write_all(bytes).expect("writes");
    }
    zip.finish().expect("finishes").into_inner()
}

#[test]
fn metadata_is_read_from_wheels_of_each_method() {
    use zip::CompressionMethod::{Deflated, Stored, Zstd};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("my.pex");
    let metadata = b"Metadata-Version: 2.1\nName: x\nVersion: 1\n".repeat(50);
    // `pex --rc` writes those of Zstandard.
    for method in [Stored, Deflated, Zstd] {
        let wheel = zip_of(&[("x-1.dist-info/METADATA", &metadata)], method);
        let name = ".deps/x-1-py3-none-any.whl";
        let info = br#"{"deps_are_wheel_files":true,"distributions":{"x-1-py3-none-any.whl":"0"}}"#;
        fs::write(&path, zip_of(&[("PEX-INFO", info), (name, &wheel)], Stored)).expect("writes");
        let pexes = [open::open(&path).expect("a PEX")];
        let source =
            file::Source::of(&pexes, |_, _| Err(PexFileError::Missing { path: path.clone(), what: "zip".into() }));
        let found = source.unwrap_or_else(|e| panic!("{method}: {e}")).metadata;
        assert_eq!(found[0]["x-1-py3-none-any.whl"].metadata, metadata, "{method}");
    }
}

#[test]
fn copies_have_one_identity_and_changed_code_has_another() {
    let directory = tempfile::tempdir().expect("a directory");
    let identity = |name: &str, code: &[u8]| {
        let path = directory.path().join(name);
        write_pex(&path, code);
        open::open(&path).expect("a PEX").identity
    };
    let first = identity("first.pex", b"x = 1");
    assert_eq!(identity("second.pex", b"x = 1"), first, "a copy elsewhere");
    assert_ne!(identity("first.pex", b"x = 2"), first, "other code of the same length at the same path");
}

#[test]
fn open_refuses_files_that_are_no_pex() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("my.pex");
    for bytes in [&b""[..], b"#!/bin/sh\necho no zip\n", &[b'#'; 70_000]] {
        fs::write(&path, bytes).expect("writes");
        let error = open::open(&path).expect_err("no PEX");
        assert_eq!(error.exit(), Exit::Artifact, "{error}");
    }
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).expect("creates"));
    zip.start_file("x.py", zip::write::SimpleFileOptions::default()).expect("starts");
    zip.finish().expect("finishes");
    assert!(matches!(open::open(&path), Err(PexFileError::Missing { .. })));
    assert_eq!(open::open(&directory.path().join("none")).expect_err("none").exit(), Exit::NotFound);
}
