//! Discovers what a Python environment contains, without running pip.
//!
//! One parallel walk of the prefix reads the stat of every file. The files that installers wrote (`RECORD`, `METADATA`, …)
//! are read in parallel. Everything after that is a pure assignment of files to distributions. Discovery changes nothing in
//! the environment and runs no code of it; it starts the interpreter once and keeps its answer in the client's cache.
//!
//! # What happens with
//!
//! | found | behaviour |
//! | --- | --- |
//! | a file that several distributions list | it belongs to the first by name whose RECORD has its hash, else it is unowned; see [`model::Contested`] |
//! | missing files that RECORD lists | reported; the rest is packed |
//! | `.dist-info` without METADATA | name and version from its path; reported |
//! | `.dist-info` or `.egg-info` without a list of files | its modules by `top_level.txt`, else by its name |
//! | `.dist-info` without METADATA and RECORD | its files are packed as unowned files; reported |
//! | two versions of one project | the one with fewer missing files, then the one written last; reported |
//! | `~name`, left by an interrupted `pip uninstall` | left out; reported |
//! | a link into the environment | kept, made relative |
//! | a link to a file outside | replaced by that file |
//! | a link to a directory outside, or to nothing | left out; reported |
//! | empty directories, sockets, pipes | left out |
//! | the virtual environment's own files | left out: `pyvenv.cfg`, interpreters, `activate`, hidden files at the top |
//! | byte-code without source, or of another interpreter or optimisation level | left out |
//! | a prefix that is a project's folder too (`python -m venv .`) | unowned files are packed only from `bin`, `lib`, `share`, `etc` |
//! | an interpreter's own prefix | its site-packages, and the files elsewhere that RECORD lists; reported |
//! | a conda prefix | all of it but `pkgs` and `envs`, by its packages and what pip installed beside them |
//! | the same, where only distributions can be packed | everything except the interpreter, headers, `pkgs` and `envs`; reported |
//! | a file of a conda package that pip overwrote | it belongs to what pip installed, if that RECORD has its hash; reported |
//! | `include-system-site-packages = true` | distributions of the base interpreter are not packed, and reported, unless [`system`] is told otherwise |

mod assign;
mod conda;
mod discover;
mod editable;
pub mod elf;
mod error;
mod installed;
mod metadata;
mod model;
mod names;
mod own;
mod prefix;
mod prefix_files;
mod python;
pub mod record;
mod requires;
pub mod selection;
mod sources;
pub mod system;
mod unowned;
mod walk;

pub use discover::{DiscoverOptions, discover, python_info};
pub use error::DiscoverError;
pub use metadata::{normalise, without_credentials};
pub use model::{
    CondaPackage, Distribution, Editable, EntryPoint, Environment, FileKind, FileStat, Placeholder, PythonInfo,
    PythonKind, Suspect,
};
pub use names::module_name;
pub use prefix::{ActivePrefix, ActiveVariables, active_prefix};
pub use requires::markers;
pub use sources::add_sources;
pub use walk::walk_tree;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
