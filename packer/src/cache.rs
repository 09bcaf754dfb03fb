//! What the client remembers of layers that it packed, so that an unchanged distribution is never read again.
//!
//! ```text
//! <cache>/packed/<2 hex>/<fingerprint>.json   what a distribution with these files was packed to
//! <cache>/interpreters/…                      facts of interpreters (see `discover`)
//! <cache>/environments/…                      environments made from requirements (see `requirements`)
//! <cache>/tmp/                                archives being written for remote stores
//! <cache>/store/                              the store where none is named
//! ```
//!
//! A fingerprint covers the path, length, times, inode and mode of every file of the distribution, as `stat` tells them,
//! and everything else that its layer depends on. Records are written to a temporary name and renamed: whoever reads one
//! reads a whole one, and losing one costs a repacking, nothing more. The bytes of layers are not kept here: a store
//! has them, and packing again gives the same bytes.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::fault::point;
use cpack_artifact::manifest::Archive;
use serde::{Deserialize, Serialize};

/// Bump when the same files are packed to other bytes, or more facts are remembered.
const FORMAT: u32 = 3;

/// The directory that a client keeps between runs.
#[derive(Debug, Clone)]
pub struct ClientCache {
    root: PathBuf,
}

/// What a distribution was packed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Digest of its content.
    pub content: Digest,
    /// The archive.
    pub archive: Archive,
    /// What was learned from its bytes on the way.
    #[serde(default)]
    pub facts: Facts,
}

/// What is learned from a distribution's bytes while it is packed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Paths, relative to the prefix, of directories that its shared libraries reach by `RUNPATH` or `RPATH`.
    pub run_paths: Vec<String>,
    /// The newest glibc symbol version that its shared libraries need, e.g. `2.17`.
    pub glibc: Option<String>,
    /// Files that differ from what RECORD says.
    pub modified: Vec<String>,
    /// Files that could not be compiled to byte-code.
    pub not_compiled: Vec<String>,
    /// Files that were left out, and why.
    pub left_out: Vec<String>,
    /// Scripts that name a Python that is not the environment's, and which.
    #[serde(default)]
    pub strangers: Vec<String>,
    /// Files that name the environment's path.
    #[serde(default)]
    pub prefixed: Vec<String>,
}

impl ClientCache {
    /// The cache in `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the store where none is named.
    pub fn default_store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where archives for remote stores are written, made if need be.
    pub fn temporary(&self) -> io::Result<PathBuf> {
        let directory = self.root.join("tmp");
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// What a distribution with this fingerprint was packed to. A record that cannot be read is as good as none.
    pub fn packed(&self, fingerprint: &Digest) -> Option<Packed> {
        serde_json::from_slice(&fs::read(self.record(fingerprint)).ok()?).ok()
    }

    /// Remembers what a distribution was packed to.
    pub fn remember(&self, fingerprint: &Digest, packed: &Packed) -> io::Result<()> {
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

/// Collects what a layer depends on into its fingerprint.
#[derive(Debug)]
pub struct Fingerprint(blake3::Hasher);

impl Fingerprint {
    /// Starts with what holds for all layers: the release's formats and the compression level.
    pub fn new(level: i32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("cluster-pack layer {FORMAT} {} {level}\n", env!("CARGO_PKG_VERSION")).as_bytes());
        Self(hasher)
    }

    /// Adds a text or file name.
    pub fn text(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds numbers.
    pub fn numbers(&mut self, numbers: &[u64]) -> &mut Self {
        for number in numbers {
            self.0.update(&number.to_le_bytes());
        }
        self
    }

    /// The fingerprint.
    pub fn finish(&self) -> Digest {
        self.0.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_again_and_a_damaged_one_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = ClientCache::new(directory.path().join("cache"));
        let key = Fingerprint::new(1).text("numpy").numbers(&[1, 2]).finish();
        assert_eq!(cache.packed(&key), None);
        let digest = Digest::of(b"x");
        let archive = Archive { digest, size: 0, unpacked: 0, files: 0, directory: 0, pieces: Vec::new() };
        let packed = Packed { content: digest, archive, facts: Facts::default() };
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
