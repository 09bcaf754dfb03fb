//! Errors that end a command, and their exit codes.

use std::io;
use std::path::PathBuf;

use cpack_discover::DiscoverError;
use cpack_discover::selection::UnknownName;
use cpack_format::exit::Exit;
use cpack_format::manifest::DocumentError;
use cpack_store::{ObjectUriError, StoreError, UriError};

use crate::cli::config::ConfigError;
use crate::environment_archive::EnvironmentArchiveError;
use crate::launcher::LauncherError;
use crate::pex::PexError;
use crate::prune::PruneError;
use crate::publish::PublishError;
use crate::requirements::RequirementsError;
use crate::submit::SubmitError;
use crate::unpack_archive::UnpackArchiveError;

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum CommandError {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--store {0}")]
    Uri(#[from] UriError),
    #[error("{0}: write SCHEME://…/DIRECTORY/NAME")]
    Object(#[from] ObjectUriError),
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    #[error(transparent)]
    Selection(#[from] UnknownName),
    #[error(transparent)]
    Requirements(#[from] RequirementsError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Prune(#[from] PruneError),
    #[error(transparent)]
    Pex(#[from] PexError),
    #[error(transparent)]
    Archive(#[from] EnvironmentArchiveError),
    #[error(transparent)]
    UnpackArchive(#[from] UnpackArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error(
        "cannot start cpack-bench: {source}; it stands beside cluster-pack or on PATH: cargo build --release -p cpack-bench"
    )]
    NoBench { source: io::Error },
    #[error("{what}: {error}")]
    Document { what: String, error: DocumentError },
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    NotFound(String),
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
}

impl CommandError {
    /// Adds the path and the verb to an error of the operating system.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { verb, path, source }
    }

    /// The exit code of the process.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage(_)
            | Self::Selection(_)
            | Self::Config(_)
            | Self::Uri(_)
            | Self::Object(_)
            | Self::Launcher(LauncherError::NoBoot { .. }) => Exit::Usage,
            Self::Discover(_) | Self::Requirements(_) | Self::NoBench { .. } => Exit::Environment,
            Self::Submit(error) => submit(error),
            Self::Publish(error) => publish(error),
            Self::Prune(error) => prune(error),
            Self::Pex(error) => pex(error),
            Self::Archive(error) => archive(error),
            Self::UnpackArchive(error) => error.exit(),
            Self::Store(error) => error.exit(),
            Self::Launcher(LauncherError::NotBoot { .. } | LauncherError::NoStore { .. }) => Exit::Usage,
            Self::Document { .. } | Self::Damaged(_) | Self::Launcher(LauncherError::Damaged { .. }) => Exit::Artifact,
            Self::NotFound(_) => Exit::NotFound,
            Self::Launcher(LauncherError::Io { .. }) | Self::Io { .. } => Exit::Disk,
        }
    }
}

fn pex(error: &PexError) -> Exit {
    match error {
        PexError::Io { .. } => Exit::Disk,
        PexError::Pack(error) if error.is_disk() => Exit::Disk,
        PexError::Given(error) => error.exit(),
        PexError::NoPython { .. } => Exit::Interpreter,
        PexError::Pack(_) | PexError::Runtime { .. } | PexError::Distribution { .. } => Exit::Environment,
        PexError::NoScript { .. } | PexError::TooLarge { .. } | PexError::Occupied(_) => Exit::Usage,
    }
}

fn archive(error: &EnvironmentArchiveError) -> Exit {
    match error {
        EnvironmentArchiveError::Pack(error) if error.is_disk() => Exit::Disk,
        EnvironmentArchiveError::Pack(_) | EnvironmentArchiveError::Assemble(_) => Exit::Environment,
        EnvironmentArchiveError::Occupied(_) => Exit::Usage,
    }
}

fn submit(error: &SubmitError) -> Exit {
    match error {
        SubmitError::Publish(error) => publish(error),
        SubmitError::Pack(error) if error.is_disk() => Exit::Disk,
        SubmitError::Pack(_) | SubmitError::Assemble(_) => Exit::Environment,
        SubmitError::Payload { .. } | SubmitError::Script { .. } => Exit::Usage,
    }
}

fn prune(error: &PruneError) -> Exit {
    match error {
        PruneError::Store(error) => error.exit(),
        PruneError::Name(error) => publish(error),
        PruneError::Document { .. } | PruneError::Launcher { .. } => Exit::Artifact,
    }
}

fn publish(error: &PublishError) -> Exit {
    match error {
        PublishError::Store(error) => error.exit(),
        PublishError::Local { .. } => Exit::Disk,
        PublishError::Vanished { .. } => Exit::Unavailable,
        PublishError::Damaged { .. } => Exit::Artifact,
        PublishError::Name(_) => Exit::Usage,
    }
}
