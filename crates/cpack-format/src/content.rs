//! The digest of a layer's content: paths, modes and bytes, however they are compressed.
//!
//! It is the layer's name in the node cache. The packer computes it from what it packs, the boot again from what it
//! decoded, and a layer is published on a node only when the two agree.
//!
//! Hashed, in the byte order of the paths (format 1): for each item its kind (`f`, `x`, `l` or `d`), the length of its
//! path as `u32` and the path, the length of its bytes as `u64`, and the BLAKE3 of its bytes. Integers are
//! little-endian. A link's bytes are its target. Directories are items only where they are empty. The permission to
//! execute is all that is kept of a mode: the rest is the umask of whoever installed the file.

use crate::{Digest, SafePath};

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file that may be executed.
    Executable,
    /// A symbolic link.
    Link,
    /// An empty directory.
    Directory,
}

impl Kind {
    /// The byte that stands for the kind in the content digest.
    const fn tag(self) -> u8 {
        match self {
            Self::File => b'f',
            Self::Executable => b'x',
            Self::Link => b'l',
            Self::Directory => b'd',
        }
    }

    /// The `st_mode` that archives carry for the kind.
    pub const fn mode(self) -> u32 {
        match self {
            Self::File => 0o100_644,
            Self::Executable => 0o100_755,
            Self::Link => 0o120_777,
            Self::Directory => 0o040_755,
        }
    }
}

/// One file, link or empty directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is, relative to the layer's root.
    pub path: SafePath,
    /// What it is.
    pub kind: Kind,
    /// Length of its bytes.
    pub size: u64,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
}

/// The content digest of a layer with these items, in whatever order they are given.
pub fn content_digest(items: &mut [Item]) -> Digest {
    items.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"cluster-pack content 1\n");
    for item in items.iter() {
        let path = item.path.as_bytes();
        hasher.update(&[item.kind.tag()]);
        hasher.update(&u32::try_from(path.len()).unwrap_or(u32::MAX).to_le_bytes());
        hasher.update(path);
        hasher.update(&item.size.to_le_bytes());
        hasher.update(item.digest.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, kind: Kind, bytes: &[u8]) -> Item {
        let path = SafePath::new(path.as_bytes()).expect("safe");
        Item { path, kind, size: bytes.len() as u64, digest: Digest::of(bytes) }
    }

    #[test]
    fn order_does_not_matter_and_everything_else_does() {
        let base = [item("a", Kind::File, b"1"), item("b/c", Kind::Executable, b"2")];
        let digest = content_digest(&mut base.clone());
        assert_eq!(content_digest(&mut [base[1].clone(), base[0].clone()]), digest);
        for other in [item("a", Kind::Executable, b"1"), item("a", Kind::File, b"3"), item("d", Kind::File, b"1")] {
            assert_ne!(content_digest(&mut [other, base[1].clone()]), digest);
        }
    }

    #[test]
    fn format_one_stays_what_it_was() {
        let digest = content_digest(&mut [item("a", Kind::File, b"1")]);
        assert_eq!(digest.to_hex(), "d40a0c0abbbdc0ac7e6d3941483b5572514440ed6499f914f4a7144772d6cb0d");
    }
}
