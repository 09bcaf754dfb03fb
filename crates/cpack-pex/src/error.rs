//! Why a PEX or wheelhouse cannot be used.

use std::io;
use std::path::PathBuf;

use cpack_format::exit::Exit;
use cpack_format::path::PathError;
use cpack_format::zip::ZipError;

use crate::info::PexInfoError;

/// Why a PEX or wheelhouse cannot be used. `path` is the PEX, or the file in it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum PexFileError {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used", path = path.display())]
    Zip { path: PathBuf, source: ZipError },
    #[error("{path} cannot be used", path = path.display())]
    Info { path: PathBuf, source: PexInfoError },
    /// A name in it leads out of its directory.
    #[error("{path} cannot be used", path = path.display())]
    Name { path: PathBuf, source: PathError },
    #[error("{path} has no {what}: it is damaged, or neither a PEX nor a wheelhouse", path = path.display())]
    Missing { path: PathBuf, what: String },
    #[error("the wheelhouse {path} cannot be used: {reason}", path = path.display())]
    Wheelhouse { path: PathBuf, reason: String },
}

impl PexFileError {
    /// The exit code of a program that ends with this error.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::NotFound,
            _ => Exit::Artifact,
        }
    }
}
