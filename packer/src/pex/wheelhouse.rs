//! Writes an environment as a wheelhouse: each distribution as a wheel again, which `pip install --no-index --find-links` accepts.
//!
//! ```text
//! <wheel name>…       editable projects among them
//! requirements.txt    every distribution, exactly
//! ```
//!
//! A directory, or a zip that holds the wheels as they are. The same environment gives the same bytes.

use std::fs;
use std::path::Path;

use cpack_discover::{Distribution, Environment};
use cpack_layer::archive::Codec;
use cpack_layer::content::script;
use rayon::prelude::*;

use super::chroot::{self, Chroot, Files, Form};
use super::error::PexError;
use super::output::{Staging, replace, zip};
use super::runtime::entries_below;
use super::{metadata, requirements};

/// The directory of the wheels while they are written.
const WHEELS: &str = "wheels";

const REQUIREMENTS: &str = "requirements.txt";

/// A wheelhouse that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenWheelhouse {
    pub size: u64,
    pub wheels: Vec<String>,
    /// What the user should know, a line each.
    pub warnings: Vec<String>,
}

/// Writes `environment` as a wheelhouse to `output`, which is replaced; a zip if its name ends in `.zip`. Calls `progress` with
/// the bytes of files that are done.
pub(crate) fn write_wheelhouse(
    environment: &Environment,
    level: u32,
    output: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<WrittenWheelhouse, PexError> {
    requirements::check(environment)?;
    check_place(output)?;
    let editables: Vec<Distribution> =
        environment.editables.iter().map(|editable| editable.as_distribution(&environment.site_packages)).collect();
    let files = Files::new(environment, None);
    let all: Vec<&Distribution> = environment.distributions.iter().chain(&editables).collect();
    let wheels: Result<Vec<Chroot>, PexError> =
        all.par_iter().map(|distribution| chroot::of_distribution(&files, distribution, Form::Wheel)).collect();
    let mut wheels = wheels?;
    let strangers: Vec<String> = wheels.iter_mut().flat_map(|wheel| std::mem::take(&mut wheel.strangers)).collect();
    let left_out: Vec<String> = wheels.iter_mut().flat_map(|wheel| std::mem::take(&mut wheel.left_out)).collect();
    let mut warnings: Vec<String> = [script::warning(&strangers), metadata::warning(&left_out), unowned(environment)]
        .into_iter()
        .flatten()
        .collect();
    warnings.extend(
        editables
            .iter()
            .map(|d| format!("{} {} is editable: its wheel has the code as it is now", d.display_name, d.version)),
    );
    let mut names: Vec<String> = wheels.iter().map(|wheel| wheel.wheel.clone()).collect();
    names.sort_unstable();

    let staging = Staging::beside(output)?;
    let place = staging.path().join(WHEELS);
    let failed = |source| PexError::Io { action: "write", path: place.clone(), source };
    fs::create_dir(&place).map_err(failed)?;
    wheels.sort_by_key(|wheel| std::cmp::Reverse(wheel.entries.len()));
    let sizes = wheels
        .into_par_iter()
        .with_max_len(1)
        .map(|wheel| zip(wheel.entries, Codec::Deflate(level), b"", &place.join(&wheel.wheel), progress));
    let mut size: u64 = sizes.sum::<Result<u64, PexError>>()?;
    let lines = all.iter().map(|d| format!("{}=={}\n", d.display_name, d.version)).collect::<String>();
    fs::write(place.join(REQUIREMENTS), lines).map_err(failed)?;
    let mut written = place.clone();
    if output.extension().is_some_and(|extension| extension == "zip") {
        written = staging.path().join("zip");
        size = zip(entries_below(&place)?, Codec::Store, b"", &written, &|_| {})?;
    }
    replace(&written, output)?;
    Ok(WrittenWheelhouse { size, wheels: names, warnings })
}

/// Refuses to replace a directory that has anything but wheels and requirements.
fn check_place(output: &Path) -> Result<(), PexError> {
    let is_foreign = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name != REQUIREMENTS && Path::new(&name).extension().is_none_or(|extension| extension != "whl")
    };
    let foreign = fs::read_dir(output).into_iter().flatten().flatten().any(is_foreign);
    if foreign { Err(PexError::Occupied(output.into())) } else { Ok(()) }
}

/// A warning about files that have no wheel.
fn unowned(environment: &Environment) -> Option<String> {
    let first = environment.unowned.first()?;
    Some(format!(
        "{} files that belong to no distribution have no place in a wheelhouse: {} …",
        environment.unowned.len(),
        first.path
    ))
}
