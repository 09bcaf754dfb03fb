//! The digest of a layer's content: paths, modes and bytes, however they are compressed.
//!
//! It is the layer's name in the node cache. The packer computes it from what it packs, and the boot again from what it
//! decoded. The boot publishes a layer on a node only if the two agree.
//!
//! Format 1 hashes the items in the byte order of their paths. Each item adds its kind (`f`, `x`, `l` or `d`), the length of
//! its path as `u32` and the path, the length of its bytes as `u64`, and the BLAKE3 of its bytes. Integers are
//! little-endian. A link's bytes are its target. Only empty directories are items. Of a mode only the permission to execute
//! counts: the rest is the umask of the user who installed the file.

use crate::{Digest, SafePath};

/// The kind of an item.
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
    /// The kind's byte in the content digest.
    const fn tag(self) -> u8 {
        match self {
            Self::File => b'f',
            Self::Executable => b'x',
            Self::Link => b'l',
            Self::Directory => b'd',
        }
    }

    /// The kind's `st_mode` in archives.
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
    /// Relative to the layer's root.
    pub path: SafePath,
    /// File, link or empty directory.
    pub kind: Kind,
    /// Length of its bytes.
    pub size: u64,
    /// BLAKE3 of its bytes.
    pub digest: Digest,
}

/// The content digest of a layer with these items, which may be in any order.
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
