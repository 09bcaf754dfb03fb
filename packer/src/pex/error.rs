//! Why a PEX or wheelhouse could not be written, or made into an environment.

use std::io;
use std::path::PathBuf;

use cpack_layer::PackError;
use cpack_layer::archive::ArchiveError;

#[derive(Debug, thiserror::Error)]
pub enum PexError {
    #[error("cannot {action} {path}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A PEX that the user gave.
    #[error(transparent)]
    Given(#[from] cpack_pex::PexFileError),
    #[error("no Python can use the distributions of {path}: {reason}", path = path.display())]
    NoPython { path: PathBuf, reason: String },
    #[error(
        "cannot take the PEX runtime from {pex}: {reason}; install pex 2.70 or newer into the environment, or put it on PATH"
    )]
    Runtime { pex: String, reason: String },
    #[error("no distribution of {environment} has a script {script:?}{hint}", environment = environment.display())]
    NoScript { script: String, environment: PathBuf, hint: String },
    #[error("cannot pack {distribution}: {reason}")]
    Distribution { distribution: String, reason: String },
    #[error(
        "{path} would have {found}, and Python before 3.13 starts no zip file of {limit} or more: write it as \
         --format pex-packed or pex-loose, or with a name that ends in .pex.zip", path = path.display()
    )]
    TooLarge { path: PathBuf, found: String, limit: &'static str },
    #[error("{path} is a directory with something else in it: remove it or write elsewhere", path = .0.display())]
    Occupied(PathBuf),
}

impl From<ArchiveError> for PexError {
    fn from(error: ArchiveError) -> Self {
        Self::Pack(error.into())
    }
}
