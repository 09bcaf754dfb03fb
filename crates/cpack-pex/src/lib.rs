//! PEX files and wheelhouses: what is in them, and what an environment made from them has.
//!
//! | module | does |
//! | --- | --- |
//! | [`mod@file`] | lists the files of a zipapp, packed or loose PEX |
//! | `open`, `within` | read `PEX-INFO`, and zips within files |
//! | `wheelhouse`, `verify` | read a directory or zip of wheels as the PEX that it stands for, and its hashes |
//! | [`tags`] | ranks the wheels that an interpreter can use |
//! | [`resolve`] | finds the distributions that are active for an interpreter, in the order of `sys.path` |
//! | [`places`] | decides which entry of the PEX becomes which file of which layer |
//! | [`finish`] | does what an installer does to the files of a layer after they were unpacked |
//!
//! The rules are those of upstream's runtime (pex 2.1.50 to 2.105): `environment.py` for the selection, `pex.py` for the
//! order, `pep_427.py` for the files.

mod error;
pub mod file;
pub mod finish;
pub mod info;
mod kept;
mod open;
pub mod places;
mod preamble;
mod requirement;
pub mod resolve;
pub mod tags;
mod verify;
mod wheelhouse;
mod within;

pub use error::PexFileError;
pub use file::{Files, Pex};
pub use kept::keep_youngest;
pub use open::{is_pex, open};
pub use verify::verify;
pub use wheelhouse::Wheelhouse;

#[cfg(test)]
mod tests;
