//! An environment that is served: what a name is, and what a range of a file holds.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cpack_format::message::with_causes;
use cpack_format::trace::TracedPiece;
use cpack_node::building::{FETCHES, TreeInputs, stage_own_part};
use cpack_node::cache::{Cache, Staging};
use cpack_parallel::try_map;
use cpack_store::Store;

use crate::demand::Demand;
use crate::error::LazyError;
use crate::layer::Layer;
use crate::reads::{Reads, Record};
use crate::tree::{Content, Node, Tree};

/// Says one line to the person: why something could not be read.
pub type Report = Box<dyn Fn(&str) + Send + Sync>;

/// Threads that fetch ahead from a store on the network.
const AHEAD: usize = 8;

/// How an environment is served.
pub struct Manner<'a> {
    /// Threads that list layers.
    pub threads: usize,
    /// Says what goes wrong.
    pub report: Report,
    /// What a traced run needed, in its order: fetched before it is asked for, or in a directory read by the kernel.
    pub trace: &'a [TracedPiece],
    /// Gets the first read of each part of a file. Nothing is read from the node cache then at first, since what is there has no pieces.
    pub record: Option<Record>,
    /// A read that waits longer is reported.
    pub patience: Duration,
    /// Hears when programs wait for the store.
    pub demand: &'static Demand,
    /// Whether what is fetched through a network is left in the node cache for other servers.
    pub shares: bool,
}

impl fmt::Debug for Manner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Manner({} traced pieces)", self.trace.len())
    }
}

/// Bytes of archives that were fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// All of them, directories included.
    pub all: u64,
    /// Those of pieces that were fetched ahead of the programs.
    pub ahead: u64,
}

/// An environment that is served. What it is made from must live as long as the process that serves.
pub struct Served {
    pub(crate) tree: Tree,
    layers: Vec<Layer>,
    reads: Reads,
    report: Report,
    patience: Duration,
    /// Threads that fetch ahead.
    ahead: usize,
    /// What was reported: programs try again, and one line is enough.
    reported: Mutex<HashSet<String>>,
    /// Holds the files that no layer has, until [`Served::close`].
    staging: Mutex<Option<Staging>>,
}

impl Served {
    /// Lists all layers, fetching directories of archives, and merges them.
    pub fn open(
        cache: &'static Cache,
        inputs: &TreeInputs<'static>,
        store: &'static dyn Store,
        manner: Manner<'_>,
    ) -> Result<Self, LazyError> {
        if inputs.manifest.layers.iter().any(|layer| !layer.prefixes.is_empty()) {
            return Err(LazyError::Prefixes);
        }
        let staging = cache.staging().map_err(LazyError::read(cache.root()))?;
        let own = stage_own_part(cache, inputs, &staging)?;
        let numbered: Vec<_> = (0..).zip(&inputs.manifest.layers).collect();
        let Manner { threads, report, trace, record, patience, demand, shares } = manner;
        let is_near = store.uri().as_directory().is_some();
        let (threads, ahead) = if is_near { (threads, 1) } else { (threads.max(FETCHES), AHEAD) };
        let pieces = record.is_some();
        let layers = try_map(threads, &numbered, |(index, layer)| Layer::open(*index, layer, cache, store, pieces))?;
        let files: Vec<_> = layers.iter().map(Layer::files).collect();
        let tree = Tree::merge(&files, &own, inputs.python)?;
        let order = trace.iter().map(|piece| (*piece, piece.size(&inputs.manifest.layers))).collect();
        // A directory answers at once: reading ahead would take processors that the job needs, and save nothing.
        let sequential = if is_near { Vec::new() } else { layers.iter().map(Layer::pieces).collect() };
        let reads = Reads::new(order, sequential, record, demand, shares && !is_near);
        reads.fetched.fetch_add(layers.iter().map(Layer::directory_size).sum(), Ordering::Relaxed);
        Ok(Self {
            tree,
            layers,
            reads,
            report,
            patience,
            ahead,
            reported: Mutex::default(),
            staging: Mutex::new(Some(staging)),
        })
    }

    /// Starts the threads that fetch ahead, and the one that tells of reads that wait. They go with the process.
    pub fn work_behind(self: &Arc<Self>) {
        let threads = if self.reads.ahead.is_empty() { 0 } else { self.ahead };
        for _ in 0..threads {
            let served = Arc::clone(self);
            thread::spawn(move || served.read_ahead());
        }
        let served = Arc::clone(self);
        thread::spawn(move || served.tell_of_waits());
    }

    /// Removes from the node cache what is there for the time of serving. Threads that work behind may go on meanwhile.
    pub fn close(&self) {
        drop(self.staging.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Bytes that were fetched until now.
    pub fn fetched(&self) -> Fetched {
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Fetched { all: of(&self.reads.fetched), ahead: of(&self.reads.fetched_ahead) }
    }

    fn read_ahead(&self) {
        loop {
            let (piece, purpose) = self.reads.ahead.next();
            let Some(layer) = self.layers.get(piece.0 as usize) else { continue };
            // An error is told when a program needs the piece.
            let _ = layer.read_ahead(&self.reads, piece.1, purpose);
        }
    }

    fn tell_of_waits(&self) {
        loop {
            thread::sleep(self.patience / 10);
            if let Some(what) = self.reads.waits.longer_than(self.patience) {
                let seconds = self.patience.as_secs_f64();
                (self.report)(&format!(
                    "a read has waited for {what} for {seconds} s; it goes on when the store answers"
                ));
                return;
            }
        }
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
                self.layer(*layer).and_then(|layer| layer.read(&self.reads, *number, offset, size))
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
            Content::Link { layer, number } => self.layer(*layer).and_then(|layer| layer.target(&self.reads, *number)),
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
