//! Where layers, manifests and names are kept.
//!
//! ```text
//! <store>/layers/<2 hex>/<archive digest>.zip    immutable
//! <store>/contents/<content digest>.json         content -> the archive that carries it
//! <store>/environments/<environment id>.json     immutable, written after every layer it names
//! <store>/overlays/<2 hex>/<archive digest>.zip  immutable
//! <store>/launchers/<digest>                     jobs, immutable: launchers without their executable
//! <store>/boot/<digest>                          cpack-boot, immutable
//! <store>/{launchers,boot}/<digest>.used         its age is when the object was last published again
//! <store>/names/<name>.json                      the latest environment under a name
//! ```
//!
//! [`Store`] is the contract that every kind of store keeps; `conformance` is the suite that checks it. Executors only
//! read. Everything but `names/` is immutable: a key that exists has its final content, and writing it again changes
//! nothing but its age.

#[cfg(feature = "azure")]
mod azure;
#[cfg(any(feature = "hdfs", feature = "web"))]
mod call;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(any(feature = "hdfs", feature = "web"))]
mod content;
pub mod endings;
mod error;
mod file;
#[cfg(feature = "gs")]
mod gs;
#[cfg(any(feature = "hdfs", feature = "s3"))]
mod hadoop;
#[cfg(feature = "hdfs")]
mod hdfs;
#[cfg(any(feature = "hdfs", feature = "web"))]
mod network;
mod object;
mod open;
mod options;
#[cfg(feature = "rest")]
mod rest;
#[cfg(any(test, feature = "hdfs", feature = "web"))]
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod store;
mod unique;
mod uri;
#[cfg(feature = "web")]
mod web;
#[cfg(feature = "http")]
mod web_server;

pub use cpack_format::key::{Key, NameError};
pub use error::{StoreError, StoreErrorKind};
pub use file::FileStore;
pub use object::{FileOrObject, ObjectUri, ObjectUriError};
#[cfg(all(feature = "conformance", feature = "gs", feature = "azure"))]
pub use open::abandon;
pub use open::{cluster_properties, open};
pub use options::{Deadlines, StoreOptions};
#[cfg(feature = "s3")]
pub use s3::S3Store;
pub use store::{Listed, Put, Source, Stat, Store, Watcher, Written};
pub use unique::unique_name;
pub use uri::{Scheme, StoreUri, UriError, redact};
