//! The environment that was made or found for a request.

use std::path::{Path, PathBuf};

use cpack_discover::{DiscoverOptions, Environment, discover, python_info};

use super::error::RequirementsError;
use super::platform::Platform;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    pub prefix: PathBuf,
    /// Whether it was made by an earlier run.
    pub reused: bool,
    /// The platform that it is for. `None` for this machine's.
    pub platform: Option<Platform>,
    /// Whether one of conda's tools made it.
    pub is_conda: bool,
}

impl Prepared {
    /// Discovers it; one of conda whole if `whole_conda` says so.
    pub(crate) fn discover(&self, cache_dir: &Path, whole_conda: bool) -> Result<Environment, RequirementsError> {
        let mut options = DiscoverOptions { whole_conda, cache_dir: cache_dir.to_owned(), python: None };
        if let Some(platform) = &self.platform {
            options.python = Some(platform.python(&python_info(&self.prefix, cache_dir)?));
        }
        let environment = discover(&self.prefix, &options)?;
        let Some(platform) = &self.platform else { return Ok(environment) };
        let stranger = environment
            .distributions
            .iter()
            .find(|d| !d.tags.is_empty() && !d.tags.iter().any(|tag| platform.accepts(tag)));
        match stranger {
            None => Ok(environment),
            Some(distribution) => Err(RequirementsError::BuiltHere {
                name: distribution.display_name.clone(),
                version: distribution.version.clone(),
                platform: platform.name().to_owned(),
                tag: distribution.tags.first().cloned().unwrap_or_default(),
            }),
        }
    }
}
