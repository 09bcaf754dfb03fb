//! The requirements of a PEX: every distribution of its environment, exactly.
//!
//! Upstream's runtime activates the distributions that the requirements reach, and refuses to start if a `Requires-Dist` on the way
//! is not met. Real environments often have an unmet one (`pip check` reports it) and work: their PEX sets `ignore_errors`.

use std::str::FromStr as _;

use cpack_discover::{Environment, markers, normalise};
use pep440_rs::Version;
use pep508_rs::{MarkerEnvironment, Requirement, VerbatimUrl, VersionOrUrl};

/// One requirement for each distribution.
pub(super) fn of(environment: &Environment) -> Vec<String> {
    let distributions = environment.distributions.iter();
    distributions.map(|d| format!("{}=={}", d.display_name, d.version)).collect()
}

/// A warning about the first requirement that the environment does not meet.
pub(super) fn unmet(environment: &Environment) -> Option<String> {
    let markers = markers(&environment.python);
    environment.distributions.iter().find_map(|distribution| {
        let unmet = distribution.requires.iter().find(|text| !is_met(text, environment, markers.as_ref()))?;
        let name = &distribution.display_name;
        Some(format!(
            "{name} requires {unmet:?}, which the environment does not meet: the PEX is told to start all the same"
        ))
    })
}

fn is_met(text: &str, environment: &Environment, markers: Option<&MarkerEnvironment>) -> bool {
    let Ok(requirement) = Requirement::<VerbatimUrl>::from_str(text) else { return false };
    if markers.is_some_and(|markers| !requirement.evaluate_markers(markers, &[])) {
        return true;
    }
    let Some(found) = environment.distribution(&normalise(requirement.name.as_ref())) else { return false };
    match (&requirement.version_or_url, Version::from_str(&found.version)) {
        (Some(VersionOrUrl::VersionSpecifier(specifiers)), Ok(version)) => specifiers.contains(&version),
        (Some(VersionOrUrl::VersionSpecifier(_)), Err(_)) => false,
        _ => true,
    }
}
