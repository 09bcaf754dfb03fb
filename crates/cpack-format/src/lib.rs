//! What packer and boot must agree on, as bytes.
//!
//! | module | holds |
//! | --- | --- |
//! | [`digest`] | BLAKE3 digests, and digests of files whose parts are hashed in any order |
//! | [`path`] | relative paths that cannot leave their directory |
//! | [`zip`] | zip records, the central directory, and entries cut into frames |
//! | [`content`] | the digest of a layer's content: paths, modes, bytes |
//! | [`manifest`] | the JSON that names an environment's layers |
//! | [`job`] | the JSON that one submission adds to an environment |
//! | [`launcher`] | a job appended to the boot executable |
//! | [`trace`] | what a run reads first, as a file and in a job |
//! | [`script`] | scripts of `bin/` that run by the Python beside them |
//! | [`prefix`] | the path of an environment that is written in its files, and the one that a node writes there |
//! | [`virtual_environment`] | `pyvenv.cfg`, and what an interpreter is called in `bin/` |
//! | [`key`] | the names of objects in a store |
//! | [`metrics`] | words of a line of `CPACK_METRICS` |
//! | [`message`], [`human`] | errors as one line; sizes and tables for people |
//! | [`exit`], [`check`] | the exit codes of both programs; what `doctor` finds |
//!
//! This crate does no I/O: it opens no file, reads no environment variable and starts no thread.

pub mod check;
pub mod content;
pub mod digest;
pub mod exit;
pub mod human;
pub mod job;
pub mod key;
pub mod launcher;
pub mod manifest;
pub mod message;
pub mod metrics;
pub mod path;
pub mod prefix;
pub mod script;
pub mod trace;
pub mod virtual_environment;
pub mod zip;

pub use digest::Digest;
pub use path::SafePath;
