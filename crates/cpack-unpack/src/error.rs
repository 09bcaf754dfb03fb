//! Why an archive cannot be used.

use std::io;
use std::path::PathBuf;

use cpack_extract::Failure;
use cpack_format::exit::Exit;
use cpack_format::prefix::TooLong;

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum UnpackError {
    #[error("cannot read {path}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is compressed by {codec}, which is not read: pack it as .tar.gz or .tar.zst", path = .path.display())]
    Codec { path: PathBuf, codec: &'static str },
    #[error(transparent)]
    Extract(Box<Failure>),
    #[error(
        "{path} holds no Python environment: it has no pyvenv.cfg, conda-meta or lib/python3.X at its top or in the one directory there",
        path = .path.display()
    )]
    NoEnvironment { path: PathBuf },
    #[error(
        "{path} holds a conda environment that works at one path alone: pack it with conda-pack without --dest-prefix, or with \
         cluster-pack launcher --venv PREFIX",
        path = .path.display()
    )]
    Fixed { path: PathBuf },
    #[error("{path} cannot be used: the list in its bin/conda-unpack is damaged at {at:?}", path = .path.display())]
    Records { path: PathBuf, at: String },
    #[error("cannot write {path}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} cannot hold the environment's path", path = .path.display())]
    TooLong { path: PathBuf, source: TooLong },
}

impl UnpackError {
    /// The exit code of a program that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::NotFound,
            Self::Extract(failure) => failure.exit(),
            Self::Codec { .. } | Self::NoEnvironment { .. } | Self::Fixed { .. } | Self::Records { .. } => {
                Exit::Artifact
            }
            Self::Write { .. } | Self::TooLong { .. } => Exit::Disk,
        }
    }
}
