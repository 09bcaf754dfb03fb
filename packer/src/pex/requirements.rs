//! What a PEX of an environment requires: everything in it, exactly.
//!
//! Upstream's runtime activates what the requirements reach and refuses to start when a `Requires-Dist` on the way is not
//! met. Real environments often have one that is not (what `pip check` reports), and work: for those the runtime is told
//! to pass over it.

use std::str::FromStr as _;

use pep440_rs::Version;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl, VersionOrUrl};

use super::PexError;
use crate::discover::{Distribution, Environment, normalise};

/// One requirement for each distribution.
pub(super) fn of(environment: &Environment) -> Vec<String> {
    let distributions = environment.distributions.iter();
    distributions.map(|d| format!("{}=={}", d.display_name, d.version)).collect()
}

/// Refuses a distribution that nothing can require exactly: upstream's runtime would not start.
pub(super) fn check(environment: &Environment) -> Result<(), PexError> {
    let odd = environment.distributions.iter().find(|distribution| Version::from_str(&distribution.version).is_err());
    match odd {
        None => Ok(()),
        Some(Distribution { display_name, version, .. }) => Err(PexError::Distribution {
            distribution: display_name.clone(),
            reason: format!(
                "its version {version:?} is none that a PEX can require (PEP 440): leave it out with --ignore \
                 {display_name}, or upload the environment as layers"
            ),
        }),
    }
}

/// The first requirement that the environment does not meet, told to the user.
pub(super) fn unmet(environment: &Environment) -> Option<String> {
    let markers = markers(environment);
    environment.distributions.iter().find_map(|distribution| {
        let unmet = distribution.requires.iter().find(|text| !is_met(text, environment, markers.as_ref()))?;
        let name = &distribution.display_name;
        Some(format!(
            "{name} requires {unmet:?}, which the environment does not meet: the PEX is told to start all the same"
        ))
    })
}

fn is_met(text: &str, environment: &Environment, markers: Option<&MarkerEnvironment>) -> bool {
    // It is left out of the metadata.
    let Ok(requirement) = Requirement::<VerbatimUrl>::from_str(text) else { return true };
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

/// The environment of markers as far as environments differ; the machine is this one.
fn markers(environment: &Environment) -> Option<MarkerEnvironment> {
    let python = &environment.python;
    let machine = python.platform.rsplit_once('-').map_or("x86_64", |(_, machine)| machine);
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &python.version,
        os_name: "posix",
        platform_machine: machine,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &python.version,
        python_version: &python.tag,
        sys_platform: "linux",
    })
    .ok()
}
