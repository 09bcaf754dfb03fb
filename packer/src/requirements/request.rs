//! What the user asks for.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where packages come from, and the platform that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The package index, instead of the tool's own.
    pub index_url: Option<String>,
    /// Further package indexes.
    pub extra_index_urls: Vec<String>,
    /// Directories or pages with wheels.
    pub find_links: Vec<String>,
    /// The version of Python, e.g. `3.11`.
    pub python_version: Option<String>,
    /// The platform, as uv names it. `None` for this machine's.
    pub python_platform: Option<String>,
}

/// What [`prepare`](super::prepare()) needs of this machine; the caller reads it once.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// `PATH`.
    pub path: Option<OsString>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// The client's cache.
    pub cache_dir: PathBuf,
}

/// The requirements of an environment.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Requirements files, and with uv also `pyproject.toml`.
    pub files: Vec<PathBuf>,
    /// Requirements that add to the files, or replace what they say of the same project (with uv).
    pub requirements: Vec<String>,
    /// Where packages come from.
    pub options: Options,
}
