//! Looks at the first members of a tar, to tell what it holds.

use std::fs::File;
use std::io::BufReader;

use cpack_format::SafePath;

use crate::decoded::Compression;
use crate::tar_members::{MemberKind, Members};

/// Calls `look` with the path of each file and link until it returns something. `None` at the end, and where the tar is damaged or
/// would be refused: [`extract_tar()`](crate::extract_tar()) says how.
pub fn peek_tar<T>(file: File, compression: Compression, look: &mut dyn FnMut(&SafePath) -> Option<T>) -> Option<T> {
    let mut members = Members::new(BufReader::new(compression.decode(file).ok()?));
    while let Some(member) = members.next().ok()? {
        if member.kind != MemberKind::Directory
            && let Some(found) = look(&member.path)
        {
            return Some(found);
        }
    }
    None
}
