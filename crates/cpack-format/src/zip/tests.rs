//! Records written here are read back, here and by the `zip` crate.

use std::io::{Cursor, Read as _};

use proptest::prelude::*;

use super::*;

/// An archive of stored entries, made with the functions of this module.
fn archive(files: &[(&str, &[u8])], comment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut entries = Vec::new();
    for (name, bytes) in files {
        let entry = Entry {
            name: name.as_bytes().into(),
            method: Method::Store,
            crc32: crc(bytes),
            compressed_size: bytes.len() as u64,
            size: bytes.len() as u64,
            header_offset: out.len() as u64,
            mode: 0o100_644,
            frames: None,
        };
        out.extend_from_slice(&local_header(&entry));
        out.extend_from_slice(bytes);
        entries.push(entry);
    }
    let offset = out.len();
    for entry in &entries {
        out.extend_from_slice(&central_record(entry));
    }
    let size = out.len() - offset;
    out.extend_from_slice(&end_records(entries.len() as u64, size as u64, offset as u64, comment));
    out
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 })
    })
}

fn read(file: &[u8]) -> Result<Vec<Entry>, ZipError> {
    let end = read_end(&file[file.len().saturating_sub(MAX_TAIL)..], file.len() as u64)?;
    let (start, len) = (end.directory_offset as usize, end.directory_size as usize);
    read_directory(&file[start..start + len], &end)
}

/// The end of a large archive of `entry`.
fn far(entry: &Entry) -> End {
    let directory_size = central_record(entry).len() as u64;
    End { directory_offset: 1 << 40, directory_size, entries: 1, base: 0, end_offset: (1 << 40) + directory_size }
}

#[test]
fn written_archives_are_read_here_and_by_the_zip_crate() {
    let files = [("a", &b"alpha"[..]), ("dir/\u{e9}", b""), ("z", &[7; 3000])];
    for prefix in [&b""[..], b"#!/usr/bin/env python3\n"] {
        let file = [prefix, &archive(&files, b"a comment")].concat();
        let entries = read(&file).expect("own reader");
        assert_eq!(entries.len(), files.len());
        let mut other = ::zip::ZipArchive::new(Cursor::new(&file)).expect("zip crate");
        for (entry, (name, bytes)) in entries.iter().zip(files) {
            assert_eq!(*entry.name, *name.as_bytes());
            let start = entry.header_offset as usize;
            let data = start + local_header_len(&file[start..], entry).expect("local header");
            assert_eq!(&file[data..data + bytes.len()], bytes);
            let mut read = Vec::new();
            other.by_name(name).expect("entry").read_to_end(&mut read).expect("content");
            assert_eq!(read, bytes);
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let file = archive(&[("a", b"alpha"), ("b", b"beta")], b"");
    for len in 0..file.len() {
        assert!(read(&file[..len]).is_err(), "{len} of {} bytes", file.len());
    }
}

#[test]
fn local_header_that_disagrees_is_refused() {
    let mut file = archive(&[("abc", b"alpha")], b"");
    let entry = read(&file).expect("directory").remove(0);
    file[30] = b'x';
    assert!(matches!(local_header_len(&file, &entry), Err(ZipError::Disagreement { .. })));
}

#[test]
fn wide_values_go_through_zip64() {
    let entry = Entry {
        name: b"big"[..].into(),
        method: Method::Zstd,
        crc32: 1,
        compressed_size: 5 << 30,
        size: 9 << 30,
        header_offset: 7 << 30,
        mode: 0o100_755,
        frames: None,
    };
    assert_eq!(read_directory(&central_record(&entry), &far(&entry)), Ok(vec![entry]));
}

#[test]
fn entry_behind_the_directory_is_refused() {
    let [mut late, mut long] =
        ["late", "long"].map(|name| read(&archive(&[(name, b"x")], b"")).expect("reads").remove(0));
    (late.header_offset, long.compressed_size) = (u64::MAX, 1 << 40);
    for entry in [late, long] {
        assert!(matches!(
            read_directory(&central_record(&entry), &far(&entry)),
            Err(ZipError::Disagreement { what: "data", .. })
        ));
    }
}

proptest! {
    #[test]
    fn frames_survive_the_extra_field(lengths in proptest::collection::vec(1u32..1 << 20, 2..200), last in 1u64..FRAME_SIZE) {
        let entry = Entry {
            name: b"framed"[..].into(),
            method: Method::Zstd,
            crc32: 0,
            compressed_size: lengths.iter().map(|l| u64::from(*l)).sum(),
            size: (lengths.len() as u64 - 1) * FRAME_SIZE + last,
            header_offset: 0,
            mode: 0o100_644,
            frames: Some(Frames { size: FRAME_SIZE, lengths }),
        };
        prop_assert_eq!(read_directory(&central_record(&entry), &far(&entry)), Ok(vec![entry]));
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..400), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4)) {
        let _ = read(&junk);
        let mut file = archive(&[("a", b"alpha"), ("b", b"beta")], b"c");
        for (at, byte) in flips {
            let at = at % file.len();
            file[at] = byte;
        }
        if let Ok(entries) = read(&file) {
            for entry in entries {
                let start = usize::try_from(entry.header_offset).unwrap_or(usize::MAX).min(file.len());
                let _ = local_header_len(&file[start..], &entry);
            }
        }
    }
}
