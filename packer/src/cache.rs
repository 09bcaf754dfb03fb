//! What the client remembers of the layers that it packed, so that it never reads an unchanged distribution again.
//!
//! ```text
//! <cache>/packed/<2 hex>/<fingerprint>.json   what a distribution with these files was packed to
//! <cache>/interpreters/…                      facts of interpreters (see `discover`)
//! <cache>/environments/…                      environments made from requirements (see `requirements`)
//! <cache>/tmp/                                archives being written for remote stores
//! <cache>/store/                              the store if the user names none
//! ```
//!
//! A fingerprint covers the path, length, times, inode and mode of every file of the distribution, as `stat` tells them,
//! and everything else that its layer depends on. [`ClientCache::remember`] writes a record to a temporary name and renames it,
//! so [`ClientCache::packed`] reads whole records only. A lost record costs a repacking, nothing more. The cache does not keep
//! the bytes of layers: a store has them, and packing again gives the same bytes.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cpack_fault::point;
use cpack_format::Digest;
use cpack_format::manifest::Archive;
use cpack_layer::content::facts::Facts;
use serde::{Deserialize, Serialize};

/// Bump when the same files are packed to other bytes, or more facts are remembered.
const FORMAT: u32 = 3;

/// The directory that a client keeps between runs.
#[derive(Debug, Clone)]
pub struct ClientCache {
    root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLayer {
    pub content: Digest,
    pub archive: Archive,
    #[serde(default)]
    pub facts: Facts,
}

impl ClientCache {
    /// The client's cache directory by the rules of the XDG base directories. `variable` looks up environment variables.
    pub fn of_user(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        let base = variable("XDG_CACHE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(variable("HOME").filter(|home| home.is_absolute())?.join(".cache")))?;
        Some(Self::new(base.join("cluster-pack")))
    }

    /// The cache in `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the store that is used if the user names none.
    pub fn default_store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// The directory in which archives for remote stores are written. It is created if it is missing.
    pub fn temporary(&self) -> io::Result<PathBuf> {
        let directory = self.root.join("tmp");
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// The layer that files with this fingerprint were packed to. A damaged record counts as none.
    pub fn packed(&self, fingerprint: &Digest) -> Option<PackedLayer> {
        serde_json::from_slice(&fs::read(self.record(fingerprint)).ok()?).ok()
    }

    /// Remembers the layer that files with this fingerprint were packed to.
    pub fn remember(&self, fingerprint: &Digest, packed: &PackedLayer) -> io::Result<()> {
        let path = self.record(fingerprint);
        let directory = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        serde_json::to_writer(&mut file, packed)?;
        file.flush()?;
        point("client.recorded")?;
        file.persist(&path).map(|_| ()).map_err(|e| e.error)
    }

    fn record(&self, fingerprint: &Digest) -> PathBuf {
        let hex = fingerprint.to_hex();
        let (shard, _) = hex.split_at_checked(2).unwrap_or(("", ""));
        self.root.join("packed").join(shard).join(format!("{hex}.json"))
    }
}

/// Hashes everything that a layer, or another cached thing, depends on.
#[derive(Debug)]
pub(crate) struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// The fingerprint of a layer at the compression `level`; it also covers this release.
    pub(crate) fn new(level: i32) -> Self {
        Self::of(&format!("cluster-pack layer {FORMAT} {} {level}\n", env!("CARGO_PKG_VERSION")))
    }

    /// A fingerprint of the kind `what`.
    pub(crate) fn of(what: &str) -> Self {
        let mut fingerprint = Self(blake3::Hasher::new());
        fingerprint.text(what);
        fingerprint
    }

    pub(crate) fn text(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn numbers(&mut self, numbers: &[u64]) -> &mut Self {
        for number in numbers {
            self.0.update(&number.to_le_bytes());
        }
        self
    }

    pub(crate) fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_found_again_and_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ClientCache::new(directory.path().join("cache"));
        let key = Fingerprint::new(1).text("numpy").numbers(&[1, 2]).finish();
        assert_eq!(cache.packed(&key), None);
        let digest = Digest::of(b"x");
        let archive = Archive { digest, size: 0, unpacked: 0, files: 0, directory: 0, pieces: Vec::new() };
        let packed = PackedLayer { content: digest, archive, facts: Facts::default() };
        cache.remember(&key, &packed).expect("writes");
        assert_eq!(cache.packed(&key), Some(packed));
        fs::write(cache.record(&key), b"{").expect("writes");
        assert_eq!(cache.packed(&key), None);
    }

    #[test]
    fn fingerprints_keep_fields_apart() {
        let of = |a: &str, b: &str| Fingerprint::new(1).text(a).text(b).finish();
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(Fingerprint::new(1).finish(), Fingerprint::new(2).finish());
    }
}
