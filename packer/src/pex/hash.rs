//! Upstream's hashes: its runtime uses them as cache keys, and its tools to tell whether two distributions are the same.

use std::fs::File;
use std::io::Read as _;

use cpack_format::content::Kind;
use cpack_layer::archive::{Body, Entry};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::error::PexError;

/// SHA-256 of a distribution (`CacheHelper.dir_hash` with `hashlib.sha256`).
pub(super) fn sha256(entries: &[Entry]) -> Result<String, PexError> {
    dir_hash::<Sha256>(entries.iter().collect())
}

/// SHA-1 of the user's code (`CacheHelper.pex_code_hash`): without files whose name starts with a dot.
pub(super) fn sha1(entries: &[Entry]) -> Result<String, PexError> {
    let hidden = |entry: &&Entry| entry.path.components().next_back().is_some_and(|name| name.starts_with(b"."));
    dir_hash::<Sha1>(entries.iter().filter(|entry| !hidden(entry)).collect())
}

pub(super) fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha1::digest(bytes))
}

/// The hash over the joined relative paths, sorted, and then over the bytes of the files in that order; without byte-code.
fn dir_hash<H: Digest>(mut entries: Vec<&Entry>) -> Result<String, PexError> {
    entries.retain(|entry| entry.kind != Kind::Directory && !is_byte_code(entry.path.as_bytes()));
    entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = H::new();
    for entry in &entries {
        hasher.update(entry.path.as_bytes());
    }
    let mut buffer = vec![0; 256 << 10];
    for entry in entries {
        match &entry.body {
            Body::Bytes(bytes) => hasher.update(bytes),
            Body::Made { .. } => {}
            Body::File { path, .. } => {
                let failed = |source| PexError::Io { action: "read", path: path.clone(), source };
                let mut file = File::open(path).map_err(failed)?;
                loop {
                    let read = file.read(&mut buffer).map_err(failed)?;
                    let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
                    hasher.update(part);
                }
            }
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// Whether upstream takes a path for byte-code: the name, or a directory on the way.
pub(super) fn is_byte_code(path: &[u8]) -> bool {
    path.ends_with(b".pyc")
        || path.ends_with(b".pyo")
        || path.split(|b| *b == b'/').rev().skip(1).any(|d| d == b"__pycache__")
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
