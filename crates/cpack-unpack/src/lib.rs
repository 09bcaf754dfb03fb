//! Archives of whole environments, as conda-pack, venv-pack2, `cluster-pack pack` and `tar` write them: extracted safely, and
//! made right for any other place.
//!
//! | module | does |
//! | --- | --- |
//! | `archive` | recognises an archive, identifies it by `stat`, and unpacks it |
//! | `contents` | finds out what environment was unpacked |
//! | `mend` | makes scripts find the interpreter beside them, and removes byte-code that Python would not use |
//! | `record` | keeps each `RECORD` true after that |
//! | `activation` | what a conda environment says about its activation |
//! | `conda_unpack` | reads which files hold the environment's path, as `bin/conda-unpack` lists them |
//!
//! What is unpacked depends on no place: the files that must hold the environment's path are listed
//! ([`Unpacked::prefixes`]), and written when that path is known. [`cpack_extract`] says what is refused.

mod activation;
mod archive;
mod conda_unpack;
mod contents;
mod error;
mod mend;
mod record;

pub use activation::{activation_scripts, declared_variables};
pub use archive::Archive;
pub use contents::{Python, Unpacked};
pub use error::UnpackError;
