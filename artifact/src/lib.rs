//! What packer and boot must agree on: bytes, names and places.
//!
//! | module | holds |
//! | --- | --- |
//! | [`digest`] | BLAKE3 digests, also of files whose parts are hashed in any order |
//! | [`path`] | relative paths that cannot leave the directory they are joined to |
//! | [`zip`] | zip records, the central directory, and entries cut into frames |
//! | [`content`] | the digest of a layer's content: paths, modes, bytes |
//! | [`manifest`] | the JSON that names an environment's layers |
//! | [`job`] | the JSON that one submission adds to an environment |
//! | [`launcher`] | a job appended to the boot executable |
//! | [`pex_info`] | the JSON in a PEX file that says what it holds and how it starts |
//! | [`pex`] | what is in PEX files, and what an environment made from them has |
//! | [`script`] | scripts of `bin/` that run by the Python beside them |
//! | [`store`] | where layers, manifests and names are kept |
//! | [`events`] | what took how long, in Chrome's trace format |
//! | [`exit`] | the exit codes of both programs |
//! | [`fault`] | steps at which tests kill or refuse something; nothing without the feature `faults` |
//!
//! Nothing here prints or starts a thread, but for the clients of the network stores (features `hdfs` and `s3`) and for
//! tests (feature `faults`); environment variables are read where [`store::StoreOptions::of_process`] is asked for.

pub mod content;
pub mod digest;
pub mod events;
pub mod exit;
pub mod fault;
pub mod job;
pub mod launcher;
pub mod manifest;
pub mod path;
pub mod pex;
pub mod pex_info;
pub mod script;
pub mod store;
pub mod zip;

pub use digest::Digest;
pub use path::SafePath;
