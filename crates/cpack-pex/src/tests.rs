//! `open` refuses what is no PEX with one line.

use std::fs;

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
