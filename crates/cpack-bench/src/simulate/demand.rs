//! What one environment demands of a node.

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Demand {
    /// Core seconds of a start of one container, without extraction.
    pub(crate) fixed: f64,
    /// Core seconds of the extraction and of linking the tree.
    pub(crate) extraction: f64,
    /// Bytes that are fetched.
    pub(crate) packed: f64,
    /// Bytes that are written.
    pub(crate) unpacked: f64,
    /// Core seconds of Python, per container.
    pub(crate) python: f64,
    /// The number of cores on which `python` is spent if there are enough: libraries start threads of their own.
    pub(crate) threads: f64,
    /// Seconds that Python waits without a core, per container.
    pub(crate) waiting: f64,
}
