//! What the user asks for.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where packages come from, and the platform that they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The package index, instead of the tool's own.
    pub index_url: Option<String>,
    pub extra_index_urls: Vec<String>,
    pub find_links: Vec<String>,
    pub python_version: Option<String>,
    /// The platform, as uv names it. `None` for this machine's.
    pub python_platform: Option<String>,
}

/// What [`prepare`](super::prepare()) needs of this machine; the caller reads it once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub path: Option<OsString>,
    pub home: Option<PathBuf>,
    /// Programs of conda that variables name (`MAMBA_EXE`, `CONDA_EXE`): their installers leave `PATH` alone.
    pub conda: Vec<PathBuf>,
    pub cache_dir: PathBuf,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// Requirements files, and with uv also `pyproject.toml`.
    pub files: Vec<PathBuf>,
    /// Requirements that add to the files, or replace what they say of the same project (with uv).
    pub requirements: Vec<String>,
    pub options: Options,
}
