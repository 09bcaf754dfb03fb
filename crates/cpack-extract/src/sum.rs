//! The CRC-32 of a file, from those of its parts.

use crate::plan::PlannedFile;

/// The CRC-32 of `file`, whose parts have these, in their order.
pub(crate) fn merge(file: &PlannedFile, parts: &[u32]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for (part, sum) in (0..).zip(parts) {
        crc.combine(&crc32fast::Hasher::new_with_initial_len(*sum, file.part(part).1));
    }
    crc.finalize()
}
