//! Writes records: deterministic, with fixed timestamps, and zip64 only where it is needed.

use super::Entry;
use super::end::{END_SIGNATURE, END64_SIGNATURE, LOCATOR64_SIGNATURE};
use super::record::{CENTRAL_SIGNATURE, FLAG_DESCRIPTOR, LOCAL_SIGNATURE, Method};

/// 1980-01-01 00:00, the least DOS date, for all entries: the same files give the same bytes.
const DOS_TIME_DATE: u32 = 0x0021_0000;
const DESCRIPTOR_SIGNATURE: u32 = 0x0807_4b50;
const MADE_BY_UNIX_63: u16 = 3 << 8 | 63;
const FLAG_UTF8: u16 = 1 << 11;

fn flags(entry: &Entry) -> u16 {
    let descriptor = if entry.frames.is_some() { FLAG_DESCRIPTOR } else { 0 };
    let utf8 = if !entry.name.is_ascii() && std::str::from_utf8(&entry.name).is_ok() { FLAG_UTF8 } else { 0 };
    descriptor | utf8
}

const fn version_needed(entry: &Entry, zip64: bool) -> u16 {
    match entry.method {
        Method::Zstd => 63,
        _ if zip64 => 45,
        _ => 20,
    }
}

/// The bytes of a record with these fields.
fn record(fields: &[&[u8]]) -> Vec<u8> {
    fields.concat()
}

fn len16(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes()
}

/// `value` as 32 bits. A larger value goes to the zip64 field `wide`, and saturates.
fn narrow(value: u64, wide: &mut Vec<u8>) -> [u8; 4] {
    u32::try_from(value)
        .ok()
        .filter(|v| *v != u32::MAX)
        .unwrap_or_else(|| {
            wide.extend_from_slice(&value.to_le_bytes());
            u32::MAX
        })
        .to_le_bytes()
}

fn zip64_extra(wide: &[u8]) -> Vec<u8> {
    if wide.is_empty() {
        return Vec::new();
    }
    record(&[&1u16.to_le_bytes(), &len16(wide), wide])
}

/// The local header of `entry`. An entry with frames has its sizes in a [`descriptor`] behind its data.
///
/// `entry.frames` need not be complete: this only checks that there are any.
pub fn local_header(entry: &Entry) -> Vec<u8> {
    let streamed = entry.frames.is_some();
    let mut wide = Vec::new();
    let (crc32, size, compressed) = if streamed {
        wide.extend_from_slice(&[0; 16]);
        (0, [0xff; 4], [0xff; 4])
    } else {
        let saturated = entry.size >= u64::from(u32::MAX) || entry.compressed_size >= u64::from(u32::MAX);
        if saturated {
            wide = record(&[&entry.size.to_le_bytes(), &entry.compressed_size.to_le_bytes()]);
            (entry.crc32, [0xff; 4], [0xff; 4])
        } else {
            let mut none = Vec::new();
            (entry.crc32, narrow(entry.size, &mut none), narrow(entry.compressed_size, &mut none))
        }
    };
    let extra = zip64_extra(&wide);
    record(&[
        &LOCAL_SIGNATURE.to_le_bytes(),
        &version_needed(entry, !extra.is_empty()).to_le_bytes(),
        &flags(entry).to_le_bytes(),
        &entry.method.number().to_le_bytes(),
        &DOS_TIME_DATE.to_le_bytes(),
        &crc32.to_le_bytes(),
        &compressed,
        &size,
        &len16(&entry.name),
        &len16(&extra),
        &entry.name,
        &extra,
    ])
}

/// The zip64 data descriptor behind the data of a framed entry.
pub fn descriptor(entry: &Entry) -> Vec<u8> {
    record(&[
        &DESCRIPTOR_SIGNATURE.to_le_bytes(),
        &entry.crc32.to_le_bytes(),
        &entry.compressed_size.to_le_bytes(),
        &entry.size.to_le_bytes(),
    ])
}

/// The record of `entry` in the central directory, with `header_offset` as it is.
pub fn central_record(entry: &Entry) -> Vec<u8> {
    let mut wide = Vec::new();
    let size = narrow(entry.size, &mut wide);
    let compressed = narrow(entry.compressed_size, &mut wide);
    let offset = narrow(entry.header_offset, &mut wide);
    let zip64 = !wide.is_empty() || entry.frames.is_some();
    let mut extra = zip64_extra(&wide);
    if let Some(frames) = &entry.frames {
        extra.extend_from_slice(&frames.to_extra());
    }
    let external = entry.mode << 16 | if entry.is_directory() { 0x10 } else { 0 };
    record(&[
        &CENTRAL_SIGNATURE.to_le_bytes(),
        &MADE_BY_UNIX_63.to_le_bytes(),
        &version_needed(entry, zip64).to_le_bytes(),
        &flags(entry).to_le_bytes(),
        &entry.method.number().to_le_bytes(),
        &DOS_TIME_DATE.to_le_bytes(),
        &entry.crc32.to_le_bytes(),
        &compressed,
        &size,
        &len16(&entry.name),
        &len16(&extra),
        &[0; 6], // comment length, disk, internal attributes
        &external.to_le_bytes(),
        &offset,
        &entry.name,
        &extra,
    ])
}

/// The records at the end of an archive with a directory of `size` bytes at `offset`.
pub fn end_records(entries: u64, size: u64, offset: u64, comment: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let needs64 = entries >= u64::from(u16::MAX) || size >= u64::from(u32::MAX) || offset >= u64::from(u32::MAX);
    if needs64 {
        out = record(&[
            &END64_SIGNATURE.to_le_bytes(),
            &44u64.to_le_bytes(),
            &MADE_BY_UNIX_63.to_le_bytes(),
            &45u16.to_le_bytes(),
            &[0; 8],
            &entries.to_le_bytes(),
            &entries.to_le_bytes(),
            &size.to_le_bytes(),
            &offset.to_le_bytes(),
            &LOCATOR64_SIGNATURE.to_le_bytes(),
            &[0; 4],
            &(offset + size).to_le_bytes(),
            &1u32.to_le_bytes(),
        ]);
    }
    let count = u16::try_from(entries).unwrap_or(u16::MAX).to_le_bytes();
    let mut wide = Vec::new();
    out.extend(record(&[
        &END_SIGNATURE.to_le_bytes(),
        &[0; 4],
        &count,
        &count,
        &narrow(size, &mut wide),
        &narrow(offset, &mut wide),
        &len16(comment),
        comment,
    ]));
    out
}
