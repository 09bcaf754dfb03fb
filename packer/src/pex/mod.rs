//! PEX files, written straight from an environment, that plain Python runs and upstream's tools read; and wheelhouses.
//!
//! ```text
//! #!/bin/sh + a few lines for sh (see `start`)          zipapp only
//! .bootstrap/…          upstream's runtime: taken from the user's installed `pex`, never from this repository
//! .deps/<wheel name>/…  each distribution as an installed-wheel chroot (see `chroot`)
//! PEX-INFO  __main__.py  __pex__/__init__.py
//! …                     modules that no distribution owns, and editable projects
//! ```
//!
//! *zipapp*: one zip. *packed*: a directory in which `.bootstrap` and each `.deps/<wheel name>` are zips. *loose*: a directory
//! of plain files. A packed or loose PEX can be zipped as a whole, `.pex.zip`, to be unpacked before it runs.
//!
//! The same environment and the same release of pex give the same bytes. A PEX is written beside its place under another name
//! and renamed when it is whole: a kill leaves `.<name>.<pid>.tmp`, never half a PEX.

mod chroot;
mod error;
mod hash;
mod metadata;
mod output;
mod requirements;
mod runtime;
mod shape;
mod start;
#[cfg(test)]
mod tests;
pub(crate) mod unpack;
mod wheelhouse;
mod write;

pub(crate) use error::PexError;
pub(crate) use shape::{Layout, Shape};
pub(crate) use start::Start;
pub(crate) use wheelhouse::write_wheelhouse;
pub(crate) use write::{PexOptions, write_pex};
