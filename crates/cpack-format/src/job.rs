//! What one submission adds to an environment: `cpack-job.json`.
//!
//! Format 1, with the same rules as the manifest. A job names its environment by digest, and its overlays and payload
//! by content digest: a user who can change a store cannot change what a job runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::manifest::{DocumentError, Layer, parse_document};
use crate::trace::TracedPiece;

/// The format that this release writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// The name of a job's file, in a launcher and in a working directory.
pub const FILE_NAME: &str = "cpack-job.json";

/// The name of the manifest's file in a launcher.
pub const MANIFEST_NAME: &str = "manifest.json";

/// The one file of a payload layer: a pickled dictionary with `func` and `args`.
pub const PAYLOAD_NAME: &str = "payload.pkl";

/// Stands for the environment's path in the values of [`Conda::set`].
pub const PREFIX: &str = "{CONDA_PREFIX}";

/// One submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The version of this format.
    pub format: u32,
    /// Features that a reader must know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
    /// The name under which the environment was uploaded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The environment id: the digest of its manifest.
    pub environment: Digest,
    /// The URI of its store, without credentials.
    pub store: String,
    /// The interpreter that the boot looks for.
    pub interpreter: Interpreter,
    /// Overlays and the payload, in the order of the path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<Layer>,
    /// What runs in the environment.
    #[serde(default)]
    pub entry: Program,
    /// Variables with values that the submitter wrote out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environ: BTreeMap<String, String>,
    /// Variables that the executor must have: named, never copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass: Vec<String>,
    /// What an executor without client configuration needs of the cluster: Hadoop properties, S3 endpoint, region.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cluster: BTreeMap<String, String>,
    /// What activation does, if the environment is one of conda.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conda: Option<Conda>,
    /// When Python runs, unless the node says otherwise by `CPACK_START`.
    #[serde(default, skip_serializing_if = "Start::is_default")]
    pub start: Start,
    /// The pieces that a traced run needed, in its order ([`crate::trace`]).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<TracedPiece>,
}

/// When Python runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// After the environment was built.
    #[default]
    Eager,
    /// At once, from an environment that is served, where the node allows it.
    Lazy,
    /// As `Lazy` where a trace says that little of the environment is needed, else as `Eager`.
    Auto,
}

impl Start {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What activating a conda environment does, as `conda run` activates it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conda {
    /// Its name, for `CONDA_DEFAULT_ENV`.
    pub name: String,
    /// Variables that are set. [`PREFIX`] in a value stands for the environment's path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Variables that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
    /// Whether a shell must run the scripts in `etc/conda/activate.d` at each start, since what they do depends on the node.
    #[serde(default)]
    pub scripts: bool,
}

/// The interpreter that a job wants: all that the warm path needs to know of it, so that it opens no manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The base interpreter on the client, which the boot tries first. Empty if a layer ships the interpreter.
    pub path: String,
    /// Full version on the client, e.g. `3.11.7`.
    pub version: String,
    /// `SOABI`, e.g. `cpython-311-x86_64-linux-gnu`.
    pub soabi: String,
    /// Whether a layer ships the interpreter.
    #[serde(default)]
    pub shipped: bool,
}

/// What runs in the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "value")]
pub enum Program {
    /// Python itself, with the arguments of the start.
    #[default]
    Interpreter,
    /// `python -m MODULE`.
    Module(String),
    /// A console script of the environment.
    Script(String),
    /// The pickled function in the overlay with this content digest.
    Payload(Digest),
}

impl Job {
    /// A job that starts the interpreter of an environment, and nothing else.
    pub const fn new(environment: Digest, store: String, interpreter: Interpreter) -> Self {
        Self {
            format: FORMAT,
            requires: Vec::new(),
            name: String::new(),
            environment,
            store,
            interpreter,
            overlays: Vec::new(),
            entry: Program::Interpreter,
            environ: BTreeMap::new(),
            pass: Vec::new(),
            cluster: BTreeMap::new(),
            conda: None,
            start: Start::Eager,
            trace: Vec::new(),
        }
    }

    /// Parses and checks a job.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let job: Self = parse_document("job", FORMAT, bytes)?;
        job.overlays.iter().try_for_each(Layer::check)?;
        Ok(job)
    }

    /// The bytes that are stored: the same job gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Serialising strings, integers and lists to memory has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// `X.Y` of `X.Y.Z`.
pub fn minor(version: &str) -> &str {
    let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
    version.get(..end).unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_survives_its_bytes() {
        let job = Job {
            name: "n".into(),
            entry: Program::Module("m".into()),
            environ: BTreeMap::from([("A".into(), "1".into())]),
            pass: vec!["B".into()],
            start: Start::Auto,
            trace: vec![TracedPiece(1, 0)],
            ..Job::new(
                Digest::of(b""),
                "file:/s".into(),
                Interpreter {
                    path: "/usr/bin/python3.11".into(),
                    version: "3.11.7".into(),
                    soabi: "cpython-311-x86_64-linux-gnu".into(),
                    shipped: false,
                },
            )
        };
        assert_eq!(Job::parse(&job.to_bytes()), Ok(job));
    }
}
