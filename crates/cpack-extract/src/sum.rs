//! What a file's content is checked by: a digest in a layer, the CRC-32 of its entry in any other zip.

use cpack_format::Digest;
use cpack_format::digest::{PartHash, merge_parts, part_hash};

use crate::plan::PlannedFile;

#[derive(Debug, Clone, Copy)]
pub(crate) enum FileSum {
    Digest(Digest),
    Crc32(u32),
}

/// The sum of one part of a cut file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PartSum {
    Hash(PartHash),
    Crc32(u32),
}

impl FileSum {
    pub(crate) fn of(content: &[u8], hashing: bool) -> Self {
        if hashing { Self::Digest(Digest::of(content)) } else { Self::Crc32(libdeflater::crc32(content)) }
    }

    /// The sum of `file` from those of its parts; `None` if there is a single part to hash.
    pub(crate) fn merge(file: &PlannedFile, parts: &[PartSum]) -> Option<Self> {
        let mut hashes = Vec::new();
        let mut crc = crc32fast::Hasher::new();
        for (part, sum) in (0..).zip(parts) {
            match sum {
                PartSum::Hash(hash) => hashes.push(*hash),
                PartSum::Crc32(sum) => {
                    crc.combine(&crc32fast::Hasher::new_with_initial_len(*sum, file.part(part).1));
                }
            }
        }
        if hashes.is_empty() { Some(Self::Crc32(crc.finalize())) } else { merge_parts(&hashes).map(Self::Digest) }
    }
}

impl PartSum {
    /// The sum of a part whose content starts at `offset` of the file's.
    pub(crate) fn of(offset: u64, content: &[u8], hashing: bool) -> Self {
        if hashing { Self::Hash(part_hash(offset, content)) } else { Self::Crc32(libdeflater::crc32(content)) }
    }
}
