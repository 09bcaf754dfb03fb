//! Why an archive could not be written.

use std::io;
use std::path::PathBuf;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum ArchiveError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} changed while it was packed: wait until the environment is at rest and run again", path = .0.display())]
    Changed(PathBuf),
    #[error("cannot write {path}: {source}", path = path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("two files of layer {layer} have the path {path}")]
    Twice { layer: String, path: String },
    #[error("cannot pack {path}: {reason}")]
    Make { path: String, reason: String },
    #[error("cannot compress {path}: {source}")]
    Compress { path: String, source: io::Error },
}
