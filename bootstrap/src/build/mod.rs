//! Building what is missing in one node cache: layers, then the tree that links them.
//!
//! Each layer is claimed at the last moment, when a worker has nothing else to do; what another process builds is left
//! to it and looked at again at the end ([`layers`]). The tree is built by one process, too ([`tree`]).

mod job;
mod layers;
mod tree;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cpack_artifact::exit::Exit;
use cpack_artifact::manifest::{Layer, LayerKind};
use cpack_artifact::store::{Key, Store, StoreError};

use crate::cache::Cache;
use crate::environment::LinkError;
use crate::extract::{Failure, FileSource, Limits, PieceSource, StoreSource};
use crate::watch::Stop;

pub(crate) use job::check_job;
pub use job::{add_to_private, ensure_job};
pub use layers::ensure_layers;
pub use tree::{Tree, ensure_tree, private_tree, repair_tree};

/// How long to sleep between two looks at what others build, at first and at most.
const GLANCES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));

/// Ranges of a store on the network that are fetched at once. With pieces of up to 8 MiB this fills a fast network at
/// a latency of tens of milliseconds; memory is bounded by the budget for what was fetched and not yet decoded.
pub const FETCHES: usize = 8;

/// What building needs beside a cache.
#[derive(Debug)]
pub struct Means<'a> {
    /// Where archives come from.
    pub store: &'a dyn Store,
    /// Threads that fetch, decode, write and link.
    pub threads: usize,
    /// How long another process may do nothing before its work is done here.
    pub stall_timeout: Duration,
    /// Whether to stop.
    pub stop: &'a Stop,
}

impl Means<'_> {
    /// Where a store is no directory, ranges are fetched by threads that do nothing else.
    fn limits(&self) -> Limits {
        let fetches = if self.store.uri().as_directory().is_some() { 0 } else { FETCHES };
        Limits { threads: self.threads, fetches, ..Limits::default() }
    }
}

/// Why something could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Extraction.
    #[error(transparent)]
    Extract(Box<Failure>),
    /// The tree.
    #[error("cannot put up the environment")]
    Link(#[from] LinkError),
    /// The cache itself.
    #[error("cannot write to the node cache {path}", path = .path.display())]
    Cache {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody stopped it.
    #[error("stopped before Python ran: {0}")]
    Stopped(String),
    /// A layer should ship the interpreter, and none does.
    #[error("the environment has no {0} although its job says that it ships the interpreter: pack it again")]
    NoInterpreter(String),
    /// Layers vanish as fast as they are built.
    #[error("layers of this environment are removed from {0} while they are used: is CPACK_CACHE_LIMIT too small?")]
    Vanishing(PathBuf),
}

impl BuildError {
    /// Whether another place for the cache may do better.
    pub fn is_of_this_place(&self) -> bool {
        match self {
            Self::Extract(failure) => failure.exit() == Exit::Disk,
            Self::Link(LinkError::Write { .. }) | Self::Cache { .. } => true,
            Self::Link(_) | Self::Store(_) | Self::Stopped(_) | Self::NoInterpreter(_) | Self::Vanishing(_) => false,
        }
    }

    /// Whether a disk is full.
    pub fn is_full(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>() {
                return matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            }
            next = error.source();
        }
        false
    }

    /// The exit code that fits.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Extract(failure) => failure.exit(),
            Self::Link(LinkError::Twice { .. }) | Self::NoInterpreter(_) => Exit::Artifact,
            Self::Link(_) | Self::Cache { .. } | Self::Vanishing(_) => Exit::Disk,
            Self::Store(error) => error.exit(),
            Self::Stopped(_) => Exit::Stopped,
        }
    }
}

fn cache_error(cache: &Cache, source: io::Error) -> BuildError {
    BuildError::Cache { path: cache.root().into(), source }
}

/// The key of a layer's archive in its store.
fn store_key(layer: &Layer) -> Key {
    match layer.kind {
        LayerKind::Overlay | LayerKind::Payload => Key::overlay(&layer.archive.digest),
        LayerKind::Distribution | LayerKind::Unowned | LayerKind::Interpreter => Key::layer(&layer.archive.digest),
    }
}

/// Where a layer's bytes come from: straight from the file where the store is a directory.
fn source<'a>(store: &'a dyn Store, layer: &Layer) -> Result<Box<dyn PieceSource + 'a>, StoreError> {
    let key = store_key(layer);
    Ok(match store.local_path(&key) {
        Some(path) => match FileSource::open(&path) {
            Ok((source, _)) => Box::new(source),
            // In the store's words, which name the object and what to do.
            Err(error) => return Err(store.read(&key, 0).err().unwrap_or(error)),
        },
        None => Box::new(StoreSource::new(store, key)),
    })
}

/// What a layer is called in messages.
fn title(layer: &Layer) -> String {
    match layer.version.as_str() {
        "" => format!("layer {}", layer.name),
        version => format!("layer {} {version}", layer.name),
    }
}

/// Layers in the order in which they are built: needed first, then longest.
pub fn in_order<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Vec<&'a Layer> {
    let mut layers: Vec<_> = layers.into_iter().collect();
    layers.sort_by_key(|layer| (layer.rank, std::cmp::Reverse(layer.archive.unpacked), layer.content));
    layers.dedup_by_key(|layer| layer.content);
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::ExtractError;
    use cpack_artifact::Digest;
    use cpack_artifact::manifest::Archive;

    fn layer(name: &str, rank: u32, unpacked: u64) -> Layer {
        let digest = Digest::of(name.as_bytes());
        Layer {
            kind: LayerKind::Distribution,
            name: name.into(),
            version: String::new(),
            content: digest,
            archive: Archive { digest, size: 0, unpacked, files: 0, directory: 0, pieces: Vec::new() },
            imports: Vec::new(),
            needs: Vec::new(),
            rank,
            first: Vec::new(),
        }
    }

    #[test]
    fn a_full_disk_is_seen_through_what_is_wrapped_around_it() {
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let link = BuildError::Link(LinkError::Write { path: "x".into(), source: full() });
        let write = ExtractError::Write { archive: "a".into(), path: "p".into(), source: full() };
        let extract = BuildError::Extract(Box::new(write.into()));
        let read_only = BuildError::Cache { path: "x".into(), source: io::ErrorKind::ReadOnlyFilesystem.into() };
        let seen = [link, extract, read_only].map(|e| (e.is_full(), e.is_of_this_place()));
        assert_eq!(seen, [(true, true), (true, true), (false, true)]);
    }

    #[test]
    fn the_needed_first_then_the_longest() {
        let layers = [layer("small", 1, 1), layer("late", 2, 99), layer("large", 1, 50), layer("small", 1, 1)];
        let names: Vec<_> = in_order(&layers).iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["large", "small", "late"]);
    }
}
