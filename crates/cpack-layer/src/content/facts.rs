//! What packing learns about a layer.

use cpack_format::prefix::Prefixes;
use serde::{Deserialize, Serialize};

/// What packing learned from a layer's files. The client's cache keeps it beside the archive's digests, so a layer that is
/// not packed again has it too. Paths are relative to the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Directories that its shared libraries reach by `RUNPATH` or `RPATH`.
    pub run_paths: Vec<String>,
    /// The newest glibc symbol version that its shared libraries need, e.g. `2.17`.
    pub glibc: Option<String>,
    /// Files that differ from what RECORD says. They are packed as they are.
    pub modified: Vec<String>,
    /// Sources without byte-code, because the interpreter refuses them.
    pub not_compiled: Vec<String>,
    /// Files that were left out, and why.
    pub left_out: Vec<String>,
    /// Scripts that name a Python that is not the environment's, and which.
    #[serde(default)]
    pub strangers: Vec<String>,
    /// Files that name the environment's path.
    #[serde(default)]
    pub prefixed: Vec<String>,
    /// Files that hold a placeholder of the environment's path, which the node writes.
    #[serde(default)]
    pub prefixes: Vec<Prefixes>,
}
