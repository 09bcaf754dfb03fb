//! Why a layer could not be packed.

use std::io;
use std::path::PathBuf;

use cpack_discover::record::RecordError;
use cpack_format::path::PathError;

use crate::archive::ArchiveError;
use crate::content::compile::CompileError;

/// Why a layer could not be packed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum PackError {
    #[error("cannot read {path}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot understand {path}: reinstall the distribution", path = path.display())]
    Record { path: PathBuf, source: RecordError },
    #[error("cannot compile {path}", path = path.display())]
    Compile { path: PathBuf, source: CompileError },
    #[error("cannot pack {path}: {reason}", path = .0.path, reason = .0.reason)]
    Path(PathError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl PackError {
    /// Whether the client's own disk failed, rather than the environment's files.
    pub const fn is_disk(&self) -> bool {
        matches!(self, Self::Archive(ArchiveError::Write { .. }))
    }
}
