//! Why requirements did not become an environment.

use std::io;
use std::path::{Path, PathBuf};

use cpack_discover::DiscoverError;

/// Why requirements did not become an environment. `output` has no credentials.
#[derive(Debug, thiserror::Error)]
pub enum RequirementsError {
    #[error("requirements need uv or a python3 on PATH: install uv, or name an environment with --venv")]
    NoTool,
    #[error("there is no Python {0} here: install it, or install uv, which downloads it")]
    NoInterpreter(String),
    #[error("{0} is no platform to pack for: expected a Linux as uv names it, e.g. x86_64-manylinux_2_28")]
    Platform(String),
    #[error("cannot read the requirements file {path}: {source}", path = path.display())]
    Requirements { path: PathBuf, source: io::Error },
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{what} failed ({status}):\n{output}")]
    Failed { what: &'static str, status: String, output: String },
    #[error(
        "{path} needs one of {tools}, and none is on PATH: install one, or name an environment that is there by --venv PREFIX",
        path = .path.display()
    )]
    NoCondaTool { path: PathBuf, tools: String },
    #[error("{path} stands for a whole environment: name it as the only -r, and what comes on top by --add", path = .path.display())]
    CondaAlone { path: PathBuf },
    #[error(
        "{path} says itself which Python, platform and indexes it is for: write them there instead of --python-version, \
         --python-platform, --index-url, --extra-index-url and --find-links",
        path = .path.display()
    )]
    CondaOptions { path: PathBuf },
    #[error("the environment of {path} has no bin/python: add python to its dependencies", path = .path.display())]
    CondaPython { path: PathBuf },
    #[error("cannot use {path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{name} {version} has no wheel for {platform}: it was built for this machine ({tag})")]
    BuiltHere { name: String, version: String, platform: String, tag: String },
    #[error(transparent)]
    Discover(#[from] DiscoverError),
}

impl RequirementsError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
