//! Why a PEX is handed to plain Python, or a wheelhouse is not started.

use cpack_pex::resolve::ResolveError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Reason {
    #[error("it has {0}")]
    Setting(&'static str),
    #[error("{0} is set")]
    Variable(String),
    #[error("{0}")]
    Requirements(ResolveError),
    #[error("{0}")]
    Python(String),
    #[error("its code replaces {0} of the standard library")]
    Shadows(String),
    #[error("the PEX files that it merges have different versions of {0}")]
    Versions(String),
}
