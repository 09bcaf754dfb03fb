//! The JSON that names an environment's layers. Its digest is the *environment id*.
//!
//! Format 1. A reader ignores unknown fields, so a newer packer may add hints. `requires` names the features that a reader
//! must know; a reader refuses an unknown name. Nothing in a manifest depends on the client that packed: interpreter paths
//! belong to the job.

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::key::Key;
use crate::prefix::Prefixes;

/// The format that this release writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The features of this release that a manifest or job may require.
const FEATURES: &[&str] = &["zstd-frames", "payload", SYSTEM_SITE_PACKAGES, CONDA];

/// The feature by which an environment sees the packages of the node's interpreter, after its own.
pub const SYSTEM_SITE_PACKAGES: &str = "system-site-packages";

/// The feature by which an environment is a conda environment: files of its layers hold placeholders of its path
/// ([`Layer::prefixes`]), and its job says what activation sets ([`crate::job::Conda`]).
pub const CONDA: &str = "conda";

/// The largest manifest or job that is read, in bytes: about 40 times that of torch with its traced entries.
pub const MAX_JSON: u64 = 64 << 20;

/// The longest piece of an archive, in bytes.
pub const MAX_PIECE: u64 = 8 << 20;

/// The layers of an environment and what a boot needs to know of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format.
    pub format: u32,
    /// Features that a reader must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The interpreter that it was made for.
    pub python: Python,
    /// Layers, in byte order of their names; no two carry the same path.
    pub layers: Vec<Layer>,
    /// Console and GUI scripts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entry_points: Vec<EntryPoint>,
}

/// The interpreter that an environment was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Python {
    /// Full version, e.g. `3.11.7`. Executors need the same `3.11`.
    pub version: String,
    /// `sysconfig`'s `SOABI`, e.g. `cpython-311-x86_64-linux-gnu`.
    pub soabi: String,
    /// `sysconfig.get_platform()`, e.g. `linux-x86_64`.
    pub platform: String,
    /// The least glibc that its extension modules and libraries need, e.g. `2.17`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_glibc: Option<String>,
}

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerKind {
    /// One distribution.
    Distribution,
    /// The files that no distribution owns.
    Unowned,
    /// A relocatable interpreter: its tree is the environment's prefix.
    Interpreter,
    /// An editable project's files, put before the environment on the path.
    Overlay,
    /// A pickled function with its arguments: the one file `payload.pkl`.
    Payload,
    /// One conda package. Beside it, what pip installed is distributions.
    Conda,
}

/// The files of a distribution, those that no distribution owns, or an interpreter; in a job an overlay or payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// What the layer holds.
    pub kind: LayerKind,
    /// Normalised name (PEP 503) of the distribution. Other layers have a word for people.
    pub name: String,
    /// Version of the distribution.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Digest of the content ([`crate::content`]): the key in the node cache.
    pub content: Digest,
    /// The archive with its content.
    pub archive: Archive,
    /// Top-level names that can be imported from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imports: Vec<String>,
    /// Names of the layers that it needs, by `Requires-Dist` or for shared libraries on its `RUNPATH`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// Order of need: the boot fetches lower ranks first.
    #[serde(default)]
    pub rank: u32,
    /// Its files that hold a placeholder of the environment's path. The node writes them anew into the environment's tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<Prefixes>,
}

impl LayerKind {
    /// The key in a store of the archive `digest` of a layer of this kind.
    pub fn key(self, digest: &Digest) -> Key {
        match self {
            Self::Overlay | Self::Payload => Key::overlay(digest),
            Self::Distribution | Self::Conda | Self::Unowned | Self::Interpreter => Key::layer(digest),
        }
    }
}

impl Archive {
    /// An archive of which only the digest is known: none that could be extracted.
    pub const fn named(digest: Digest) -> Self {
        Self { digest, size: 0, unpacked: 0, files: 0, directory: 0, pieces: Vec::new() }
    }
}

impl Layer {
    /// A layer with nothing but what each has.
    pub const fn new(kind: LayerKind, name: String, content: Digest, archive: Archive) -> Self {
        Self {
            kind,
            name,
            version: String::new(),
            content,
            archive,
            imports: Vec::new(),
            needs: Vec::new(),
            rank: 0,
            prefixes: Vec::new(),
        }
    }

    /// The key in a store of its archive.
    pub fn key(&self) -> Key {
        self.kind.key(&self.archive.digest)
    }
}

/// What a boot must know of a zip archive in a store before it opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Digest of its bytes: the key in the store.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Length of its files together.
    pub unpacked: u64,
    /// Number of files, links and empty directories.
    pub files: u64,
    /// Offset of its central directory. The last pieces hold the directory alone.
    pub directory: u64,
    /// Its pieces, first to last, without gaps. Cuts fall between entries or frames.
    pub pieces: Vec<Piece>,
}

/// A range of an archive's bytes: the unit of fetching and verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Length in bytes, at most [`MAX_PIECE`].
    pub size: u32,
    /// Digest of the bytes.
    pub digest: Digest,
}

/// A script that a distribution declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryPoint {
    /// Its name: the file in `bin/`.
    pub name: String,
    /// `module:function`.
    pub value: String,
}

/// Why a manifest or job was refused. `what` says which of the two it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum DocumentError {
    #[error("{what} is damaged: {reason}")]
    Damaged { what: &'static str, reason: String },
    #[error("{what} has format {found}, this release reads up to {newest}: upgrade cpack-boot and cluster-pack")]
    Newer { what: &'static str, found: u32, newest: u32 },
    #[error("{what} requires the feature {feature:?}, unknown to this release: upgrade cpack-boot and cluster-pack")]
    Feature { what: &'static str, feature: String },
}

/// The fields that [`parse_document`] reads first.
#[derive(Deserialize)]
struct Header {
    format: u32,
    #[serde(default)]
    requires: Vec<String>,
}

/// Parses a versioned document. It checks format and required features first, since a newer document may have another form.
pub(crate) fn parse_document<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    newest: u32,
    bytes: &[u8],
) -> Result<T, DocumentError> {
    let damaged = |error: serde_json::Error| DocumentError::Damaged { what, reason: error.to_string() };
    let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
    if header.format > newest {
        return Err(DocumentError::Newer { what, found: header.format, newest });
    }
    if let Some(feature) = header.requires.into_iter().find(|f| !FEATURES.contains(&f.as_str())) {
        return Err(DocumentError::Feature { what, feature });
    }
    serde_json::from_slice(bytes).map_err(damaged)
}

impl Manifest {
    /// Parses and checks a manifest.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let manifest: Self = parse_document("manifest", FORMAT, bytes)?;
        manifest.layers.iter().try_for_each(Layer::check)?;
        Ok(manifest)
    }

    /// The bytes that are stored: the same manifest gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising strings, integers and lists to memory has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The environment id: the digest of [`Manifest::to_bytes`].
    pub fn id(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Whether the environment sees the packages of the node's interpreter.
    pub fn sees_system(&self) -> bool {
        self.requires.iter().any(|feature| feature == SYSTEM_SITE_PACKAGES)
    }

    /// The length of the longest path that its binaries have room for; `None` if that is no matter.
    pub fn longest_prefix(&self) -> Option<usize> {
        let prefixes = self.layers.iter().flat_map(|layer| &layer.prefixes);
        prefixes.filter(|prefixes| !prefixes.binary.is_empty()).map(|prefixes| prefixes.placeholder.len()).min()
    }
}

impl Layer {
    /// Checks that the sizes of the layer's archive are consistent.
    pub fn check(&self) -> Result<(), DocumentError> {
        let total: u64 = self.archive.pieces.iter().map(|p| u64::from(p.size)).sum();
        let too_large = self.archive.pieces.iter().any(|p| u64::from(p.size) > MAX_PIECE || p.size == 0);
        if total != self.archive.size || too_large || self.archive.directory > total {
            let reason = format!("the pieces of layer {} do not add up to its archive", self.name);
            return Err(DocumentError::Damaged { what: "manifest", reason });
        }
        if self.prefixes.iter().any(|prefixes| prefixes.placeholder.is_empty()) {
            let reason = format!("layer {} has an empty placeholder", self.name);
            return Err(DocumentError::Damaged { what: "manifest", reason });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_format_or_feature_names_the_upgrade() {
        let newer = Manifest::parse(br#"{"format":2,"shape":"other"}"#);
        assert!(newer.is_err_and(|e| e.to_string().contains("upgrade")));
        let feature = Manifest::parse(br#"{"format":1,"requires":["warp"]}"#);
        assert!(feature.is_err_and(|e| e.to_string().contains("warp")));
    }

    #[test]
    fn unknown_fields_are_hints() {
        let text = br#"{"format":1,"new":1,"python":{"version":"3.11.7","soabi":"s","platform":"p"},"layers":[]}"#;
        let manifest = Manifest::parse(text).expect("parses");
        assert_eq!(manifest.python.version, "3.11.7");
        assert_eq!(Manifest::parse(&manifest.to_bytes()), Ok(manifest));
    }
}
