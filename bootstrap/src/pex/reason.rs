//! Why a PEX is handed to plain Python.

use std::fmt;

use cpack_pex::resolve::ResolveError;
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    Setting(&'static str),
    Variable(String),
    Requirements(ResolveError),
    Python(String),
    /// Its code has a module with the name of one of the standard library, which it would replace.
    Shadows(String),
    /// Merged PEX files have several versions of a project.
    Versions(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(setting) => write!(f, "it has {setting}"),
            Self::Variable(name) => write!(f, "{name} is set"),
            Self::Requirements(error) => error.fmt(f),
            Self::Python(reason) => f.write_str(reason),
            Self::Shadows(name) => write!(f, "its code replaces {name} of the standard library"),
            Self::Versions(project) => write!(f, "the PEX files that it merges have different versions of {project}"),
        }
    }
}
