//! PEX files: what is in them, and what an environment made from them has.
//!
//! | module | does |
//! | --- | --- |
//! | [`mod@file`] | reads `PEX-INFO`, and which files a zipapp, packed or loose PEX has |
//! | [`tags`] | which wheels an interpreter can use, and which of them it prefers |
//! | [`resolve`] | which distributions are active for an interpreter, in the order of `sys.path` |
//! | [`places`] | decides which entry of the PEX becomes which file of which layer |
//! | [`finish`] | what an installer does to the files of a layer after they were unpacked |
//!
//! The rules are those of upstream's runtime (pex 2.1.50 to 2.105): `environment.py` for the selection, `pex.py` for the
//! order, `pep_427.py` for the files.

pub mod file;
pub mod finish;
mod kept;
pub mod places;
mod preamble;
mod requirement;
pub mod resolve;
pub mod tags;

use std::path::PathBuf;

use crate::exit::Exit;
use crate::path::PathError;
use crate::pex_info::PexInfoError;
use crate::zip::ZipError;

pub use file::{Files, Pex, is_pex, open};
pub use kept::keep_youngest;

/// Why a PEX cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PexError {
    /// It cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The PEX.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no zip, or a damaged one.
    #[error("{path} cannot be used", path = path.display())]
    Zip {
        /// The PEX.
        path: PathBuf,
        /// How.
        source: ZipError,
    },
    /// Its `PEX-INFO`.
    #[error("{path} cannot be used", path = path.display())]
    Info {
        /// The PEX.
        path: PathBuf,
        /// How.
        source: PexInfoError,
    },
    /// A name in it that leads elsewhere.
    #[error("{path} cannot be used", path = path.display())]
    Name {
        /// The PEX.
        path: PathBuf,
        /// Which.
        source: PathError,
    },
    /// Something is missing in it.
    #[error("{path} has no {what}: it is damaged, or no PEX", path = path.display())]
    Missing {
        /// The PEX.
        path: PathBuf,
        /// What.
        what: String,
    },
}

impl PexError {
    /// The exit code that fits.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } => Exit::NotFound,
            _ => Exit::Artifact,
        }
    }
}

#[cfg(test)]
mod tests;
