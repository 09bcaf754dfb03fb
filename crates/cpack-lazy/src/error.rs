//! Why an environment cannot be served, or a file of it not be read.

use std::io;
use std::path::PathBuf;

use cpack_extract::ExtractError;
use cpack_node::building::BuildError;
use cpack_store::StoreError;

/// Why an environment cannot be served, or a file of it not be read.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum LazyError {
    #[error(transparent)]
    Extract(#[from] ExtractError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read {path}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is in two layers, or is a file where another layer has a directory", path = .0.display())]
    Twice(PathBuf),
    #[error("its conda packages have files that hold the environment's path")]
    Prefixes,
    #[error("{path} of {layer} is {size} bytes long and cannot be read in parts", path = .path.display())]
    Uncut { layer: String, path: PathBuf, size: u64 },
    #[error("{0} does not exist")]
    Missing(&'static str),
}

impl LazyError {
    /// An error of reading the file at `path`.
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Read { path, source }
    }
}
