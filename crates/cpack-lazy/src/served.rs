//! An environment that is served: what a name is, and what a range of a file holds.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use cpack_format::message::with_causes;
use cpack_node::building::{FETCHES, TreeInputs, stage_own_part};
use cpack_node::cache::{Cache, Staging};
use cpack_parallel::try_map;
use cpack_store::Store;

use crate::blocks::{BUDGET, Blocks};
use crate::error::LazyError;
use crate::layer::Layer;
use crate::tree::{Content, Node, Tree};

/// Says one line to the person: why something could not be read.
pub type Report = Box<dyn Fn(&str) + Send + Sync>;

/// An environment that is served. What it is made from must live as long as the process that serves.
pub struct Served {
    pub(crate) tree: Tree,
    layers: Vec<Layer>,
    blocks: Blocks,
    report: Report,
    /// What was reported: programs try again, and one line is enough.
    reported: Mutex<HashSet<String>>,
    /// Holds the files that no layer has.
    _staging: Staging,
}

impl Served {
    /// Lists all layers, fetching directories of archives, and merges them.
    pub fn open(
        cache: &'static Cache,
        inputs: &TreeInputs<'static>,
        store: &'static dyn Store,
        threads: usize,
        report: Report,
    ) -> Result<Self, LazyError> {
        if inputs.manifest.layers.iter().any(|layer| !layer.prefixes.is_empty()) {
            return Err(LazyError::Prefixes);
        }
        let staging = cache.staging().map_err(LazyError::read(cache.root()))?;
        let own = stage_own_part(cache, inputs, &staging)?;
        let numbered: Vec<_> = (0..).zip(&inputs.manifest.layers).collect();
        let threads = if store.uri().as_directory().is_some() { threads } else { threads.max(FETCHES) };
        let layers = try_map(threads, &numbered, |(index, layer)| Layer::open(*index, layer, cache, store))?;
        let files: Vec<_> = layers.iter().map(Layer::files).collect();
        let tree = Tree::merge(&files, &own, inputs.python)?;
        let (blocks, reported) = (Blocks::new(BUDGET), Mutex::default());
        Ok(Self { tree, layers, blocks, report, reported, _staging: staging })
    }

    /// The node called `name` in a directory.
    pub(crate) fn child(&self, directory: u32, name: &OsStr) -> Option<(u32, &Node)> {
        let index = self.tree.child(directory, name)?;
        Some((index, self.tree.node(index)?))
    }

    /// Reads `size` bytes of a file from `offset` on, or up to its end. `None`, and reported, if they cannot be read.
    pub(crate) fn read(&self, node: u32, offset: u64, size: u32) -> Option<Vec<u8>> {
        let node = self.tree.node(node)?;
        let read = match &node.content {
            Content::File { layer, number } => {
                self.layer(*layer).and_then(|layer| layer.read(&self.blocks, *number, offset, size))
            }
            Content::OwnFile(path) => {
                let mut bytes =
                    vec![0; node.size.min(offset.saturating_add(size.into())).saturating_sub(offset) as usize];
                let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, offset));
                read.map(|()| bytes).map_err(LazyError::read(path))
            }
            _ => Err(LazyError::Missing("a file")),
        };
        read.map_err(|error| self.report(&error)).ok()
    }

    /// The target of a link. `None`, and reported, if it cannot be read.
    pub(crate) fn target(&self, node: u32) -> Option<Vec<u8>> {
        let target = match &self.tree.node(node)?.content {
            Content::Link { layer, number } => self.layer(*layer).and_then(|layer| layer.target(&self.blocks, *number)),
            Content::OwnLink(target) => Ok(target.clone()),
            _ => Err(LazyError::Missing("a link")),
        };
        target.map_err(|error| self.report(&error)).ok()
    }

    fn layer(&self, layer: u32) -> Result<&Layer, LazyError> {
        self.layers.get(layer as usize).ok_or(LazyError::Missing("a layer"))
    }

    fn report(&self, error: &LazyError) {
        let text = format!("a file of the environment cannot be read: {}", with_causes(error));
        let is_new = self.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone());
        if is_new {
            (self.report)(&text);
        }
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Served({} layers)", self.layers.len())
    }
}
