//! Why a start failed: one line, and an exit code.

use std::io;
use std::path::PathBuf;

use cpack_format::exit::Exit;
use cpack_format::manifest::DocumentError;
use cpack_node::building::BuildError;
use cpack_pex::PexFileError;
use cpack_store::{ObjectUriError, StoreError, UriError, redact};
use cpack_unpack::UnpackError;

use crate::entry::EntryError;
use crate::interpreter::InterpreterError;
use crate::job::FindError;
use crate::settings::SettingError;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Interpreter(#[from] InterpreterError),
    #[error(transparent)]
    Pex(#[from] PexFileError),
    #[error("the wheelhouse {path} cannot be started: {reason}", path = .path.display())]
    Wheelhouse { path: PathBuf, reason: String, exit: Exit },
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the store {store}, which has the environment of this job, is gone or no longer whole: upload the environment again; to \
         move a file like this one use upload_zip or `cluster-pack publish FILE URI`, which take along what it needs; a PEX \
         (C_PACK_FORMAT=pex) needs no store"
    )]
    StoreGone { store: String, source: Box<BootError> },
    #[error("the job's store cannot be used")]
    Uri(#[from] UriError),
    #[error(transparent)]
    Object(#[from] ObjectUriError),
    #[error("{location} cannot be used")]
    Manifest { location: String, source: DocumentError },
    #[error("the manifest of {location} is damaged: {reason}")]
    WrongManifest { location: String, reason: String },
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error("the job needs the variable {0}, which is not set here: pass it on to the executors")]
    Variable(String),
    #[error("stopped before Python ran: {0}")]
    Stopped(String),
    #[error("the server of this environment was ended before Python ran")]
    Unserved,
    #[error("cannot start {program}: {source}; see cpack-boot --cpack verify", program = .program.display())]
    Exec { program: PathBuf, source: io::Error },
    #[error("{0}; see cpack-boot --cpack help")]
    Usage(String),
    #[error("cannot use {path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl BootError {
    /// The exit code of a start that ends with this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Setting(_) | Self::Uri(_) | Self::Object(_) | Self::Usage(_) | Self::Variable(_) => Exit::Usage,
            Self::Find(error) => error.exit(),
            Self::Interpreter(_) | Self::Exec { .. } => Exit::Interpreter,
            Self::Pex(error) => error.exit(),
            Self::Unpack(error) => error.exit(),
            Self::Wheelhouse { exit, .. } => *exit,
            Self::Store(error) => error.exit(),
            Self::StoreGone { source, .. } => source.exit(),
            Self::Manifest { .. } | Self::WrongManifest { .. } | Self::Entry(_) => Exit::Artifact,
            Self::Build(error) => error.exit(),
            Self::Io { .. } => Exit::Disk,
            Self::Stopped(_) => Exit::Stopped,
            Self::Unserved => Exit::Internal,
        }
    }

    /// The same error with the store that the job names, where that lacks something.
    #[must_use]
    pub(crate) fn of_store(self, store: &str) -> Self {
        match self.exit() {
            Exit::NotFound => Self::StoreGone { store: redact(store), source: Box::new(self) },
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use cpack_format::message::with_causes;
    use cpack_store::StoreErrorKind;

    use super::*;
    use crate::message::line;

    #[test]
    fn of_store_names_the_store_that_is_gone() {
        let error = |kind| {
            let (operation, location) = ("cannot read", "file:/s/layers/a.zip".to_owned());
            BootError::Store(StoreError { kind, operation, location, reason: "no such object".into() })
        };
        let gone = error(StoreErrorKind::NotFound).of_store("file:/s");
        let line = with_causes(&gone);
        for needle in ["the store file:/s,", "upload_zip", "C_PACK_FORMAT=pex", "file:/s/layers/a.zip: no such object"]
        {
            assert!(line.contains(needle), "{line}");
        }
        assert_eq!(gone.exit(), Exit::NotFound);
        assert!(matches!(error(StoreErrorKind::Denied).of_store("file:/s"), BootError::Store(_)));
    }

    #[test]
    fn failure_is_one_short_line() {
        let error = BootError::from(BuildError::NoPlace(format!("a\nb\u{1b}[31m{}", "\u{e9}".repeat(5000))));
        let line = line(&with_causes(&error));
        assert!(line.starts_with("cpack-boot: there is no place") && line.len() < 4096);
        assert!(!line.contains(char::is_control));
        assert_eq!(error.exit(), Exit::Disk);
    }
}
