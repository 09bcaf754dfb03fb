//! Why something could not be built.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use cpack_extract::Failure;
use cpack_format::exit::Exit;
use cpack_store::StoreError;

use crate::cache::Cache;
use crate::tree::LinkError;

/// Why something could not be built.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum BuildError {
    #[error(transparent)]
    Extract(Box<Failure>),
    #[error("cannot put up the environment")]
    Link(#[from] LinkError),
    #[error("cannot write to the node cache {path}", path = .path.display())]
    Cache { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} is damaged: it holds something else than the job says: submit the job again")]
    Content(String),
    #[error("stopped before Python ran: {0}")]
    Stopped(String),
    #[error("the environment has no {0} although its job says that it ships the interpreter: pack it again")]
    NoInterpreter(String),
    #[error("there is no place for the environment on this node: {0}; set CPACK_CACHE_DIR to a writable directory")]
    NoPlace(String),
    #[error("layers of this environment are removed from {0} while they are used: is CPACK_CACHE_LIMIT too small?")]
    Vanishing(PathBuf),
}

impl BuildError {
    pub(crate) fn cache(cache: &Cache, source: io::Error) -> Self {
        Self::Cache { path: cache.root().into(), source }
    }

    /// Whether building in another place may succeed.
    pub(crate) fn is_of_this_place(&self) -> bool {
        match self {
            Self::Extract(failure) => failure.exit() == Exit::Disk,
            Self::Link(LinkError::Write { .. } | LinkError::LongPrefix { .. }) | Self::Cache { .. } => true,
            Self::Link(_)
            | Self::Store(_)
            | Self::Content(_)
            | Self::Stopped(_)
            | Self::NoInterpreter(_)
            | Self::NoPlace(_)
            | Self::Vanishing(_) => false,
        }
    }

    /// Whether a disk is full.
    pub(crate) fn is_full(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            }
            next = error.source();
        }
        false
    }

    /// The exit code of a start that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Extract(failure) => failure.exit(),
            Self::Link(LinkError::Twice { .. }) | Self::NoInterpreter(_) | Self::Content(_) => Exit::Artifact,
            Self::Link(_) | Self::Cache { .. } | Self::NoPlace(_) | Self::Vanishing(_) => Exit::Disk,
            Self::Store(error) => error.exit(),
            Self::Stopped(_) => Exit::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use cpack_extract::ExtractError;

    use super::*;

    #[test]
    fn full_disk_is_seen_through_what_is_wrapped_around_it() {
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let link = BuildError::Link(LinkError::Write { path: "x".into(), source: full() });
        let write = ExtractError::Write { archive: "a".into(), path: "p".into(), source: full() };
        let extract = BuildError::Extract(Box::new(write.into()));
        let read_only = BuildError::Cache { path: "x".into(), source: io::ErrorKind::ReadOnlyFilesystem.into() };
        let seen = [link, extract, read_only].map(|e| (e.is_full(), e.is_of_this_place()));
        assert_eq!(seen, [(true, true), (true, true), (false, true)]);
    }
}
