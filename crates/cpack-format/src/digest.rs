//! BLAKE3 digests, and digests of files whose parts arrive in any order.
//!
//! Several threads decode a large file at once. BLAKE3 is a tree, so each thread hashes its own aligned part ([`part_hash`]),
//! and [`merge_parts`] merges the hashes: the result is the plain BLAKE3 of the file, as `b3sum` prints it.

use std::fmt;
use std::str::FromStr;

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest of these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no digest: expected 64 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match blake3::Hash::from_hex(text) {
            Ok(hash) if lower => Ok(hash.into()),
            _ => Err(DigestError(text.chars().take(80).collect())),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The hash of one part of a file: a node in the tree that [`merge_parts`] completes.
pub type PartHash = ChainingValue;

/// Hashes one part of a file that has more than one.
///
/// The part starts at `offset`, a multiple of the part size. That is a power of two of at least 1024, and the size of every
/// part but the last. A file of a single part has no part hash: its digest is [`Digest::of`].
pub fn part_hash(offset: u64, part: &[u8]) -> PartHash {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher.update(part);
    hasher.finalize_non_root()
}

/// The digest of a file from the hashes of its parts, in order. `None` for fewer than two parts.
pub fn merge_parts(parts: &[PartHash]) -> Option<Digest> {
    if parts.len() < 2 {
        return None;
    }
    let (left, right) = parts.split_at(left_len(parts.len()));
    Some(merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).into())
}

fn subtree(parts: &[PartHash]) -> PartHash {
    match parts {
        [single] => *single,
        _ => {
            let (left, right) = parts.split_at(left_len(parts.len()));
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// BLAKE3's tree: the left side is the largest power of two below the whole.
fn left_len(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_merge_to_the_plain_digest(len in 1025usize..40_000, part_log in 10u32..13) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let size = 1usize << part_log;
            let parts: Vec<_> = bytes.chunks(size).enumerate().map(|(i, c)| part_hash((i * size) as u64, c)).collect();
            prop_assert_eq!(merge_parts(&parts).unwrap_or(Digest::of(&bytes)), Digest::of(&bytes));
        }
    }

    #[test]
    fn text_form_is_strict() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_hex().parse(), Ok(digest));
        for bad in ["", "abc", &digest.to_hex().to_uppercase(), &format!("{digest}0")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
