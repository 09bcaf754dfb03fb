//! The interpreter for a PEX: the one that variables or the PEX name, or else one that meets its constraints and can use its
//! wheels.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cpack_format::job::minor;
use cpack_pex::file::Metadata;
use cpack_pex::info::SelectionStrategy;
use cpack_pex::resolve::{Machine, OTHERS, ResolveError, ResolverPython, resolve_all};
use cpack_pex::tags::Target;

use super::reason::Reason;
use super::setup::{Setup, Variables};
use crate::interpreter::{Choice, Identity, Search, identities_at, inspect};
use crate::settings::Settings;

/// Minor versions that a start looks for: those that both upstream's runtime and this one know.
const MINORS: std::ops::RangeInclusive<u32> = 8..=15;

/// An interpreter that fits, and the wheels of each PEX that are active for it.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) choice: Choice,
    pub(super) soabi: String,
    pub(super) active: Vec<Vec<String>>,
}

/// The interpreters that exist, best first, each once. The iterator reads a directory only when it gets there.
pub(super) fn identities<'a>(
    setup: &'a Setup,
    variables: &'a Variables,
    settings: &'a Settings,
) -> impl Iterator<Item = Identity> + 'a {
    identities_at(paths(setup, variables, settings))
}

fn paths<'a>(
    setup: &'a Setup,
    variables: &'a Variables,
    settings: &'a Settings,
) -> Box<dyn Iterator<Item = PathBuf> + 'a> {
    if let Some(forced) = &settings.python {
        return Box::new(std::iter::once(forced.clone()));
    }
    let on_path = |name: &str| -> Vec<PathBuf> {
        std::env::split_paths(&settings.path).filter(|d| d.is_absolute()).map(|d| d.join(name)).collect()
    };
    let path = variables.paths("PEX_PYTHON_PATH");
    match variables.get("PEX_PYTHON") {
        Some(python) if Path::new(python).is_absolute() => return Box::new(std::iter::once(python.into())),
        Some(python) if path.is_empty() => return Box::new(on_path(python).into_iter()),
        _ => {}
    }
    let minors: Vec<u32> = match setup.pex().info.interpreter_selection_strategy {
        SelectionStrategy::Oldest => MINORS.collect(),
        SelectionStrategy::Newest => MINORS.rev().collect(),
    };
    if !path.is_empty() {
        let names = move |place: PathBuf| -> Vec<PathBuf> {
            if !place.is_dir() {
                return vec![place];
            }
            let versioned = minors.iter().map(|minor| format!("python3.{minor}"));
            versioned.chain(["python3".into(), "python".into()]).map(|name| place.join(name)).collect()
        };
        return Box::new(path.into_iter().flat_map(names));
    }
    let of_minor = |minor: String| Search::of_minor(&minor, settings).candidates().collect::<Vec<_>>();
    let named = setup.pex().minor.iter().flat_map(move |minor| of_minor(minor.clone()));
    let plain = ["python3", "python"].into_iter().flat_map(on_path);
    let others = minors
        .into_iter()
        .flat_map(move |minor| Search::of_minor(&format!("3.{minor}"), settings).candidates().collect::<Vec<_>>());
    Box::new(named.chain(plain).chain(others))
}

/// Asks the interpreters, best first, and returns the first that meets the constraints and can use the wheels.
pub(super) fn choose(
    setup: &Setup,
    metadata: &[BTreeMap<String, Metadata>],
    variables: &Variables,
    settings: &Settings,
) -> Result<Chosen, Reason> {
    let (mut found, mut unmet) = (Vec::new(), Vec::new());
    let machine = machine();
    for identity in identities(setup, variables, settings) {
        let shown = identity.path.display().to_string();
        let (choice, soabi) = match inspect(&identity.path) {
            Ok(answer) => answer,
            Err(error) => {
                found.push(format!("{shown} {error}"));
                continue;
            }
        };
        let number = minor(&choice.version).strip_prefix("3.").and_then(|text| text.parse().ok());
        let interpreter = number.and_then(|number| {
            let target = Target::new(number, &soabi, &machine.machine, &choice.glibc);
            ResolverPython::new(&choice.version, target, &machine)
        });
        let Some(interpreter) = interpreter.filter(|_| soabi.starts_with("cpython-")) else {
            found.push(format!("{shown} is no CPython 3"));
            continue;
        };
        match resolve_all(&setup.pexes, metadata, &interpreter) {
            Ok(Some(active)) => return Ok(Chosen { choice, soabi, active }),
            Ok(None) => found.push(format!("{shown} is Python {}", choice.version)),
            Err(ResolveError::Unmet(what)) => {
                found.push(format!("for {shown} nothing in it meets {what}"));
                unmet.extend(found.last().cloned());
            }
            Err(error) => return Err(Reason::Requirements(error)),
        }
    }
    // Of a wheelhouse the interpreter tells most for which a wheel is missing, not of another version.
    if let (Some(why), true) = (unmet.iter().min_by_key(|why| why.contains(OTHERS)), setup.pex().wheelhouse.is_some()) {
        let others = found.len() - 1;
        let others = if others > 0 { format!("; {others} other Pythons were tried") } else { String::new() };
        return Err(Reason::Python(format!("{why}{others}")));
    }
    let constraints = setup.pex().info.interpreter_constraints.join(" or ");
    let wanted = if constraints.is_empty() { String::new() } else { format!(" that meets {constraints}") };
    let more = if found.len() > 3 { format!(" and {} others", found.len() - 3) } else { String::new() };
    found.truncate(3);
    let found = if found.is_empty() { "there is none".to_owned() } else { found.join("; ") };
    Err(Reason::Python(format!("no Python{wanted} can use its distributions: {found}{more}")))
}

fn machine() -> Machine {
    let Ok(name) = nix::sys::utsname::uname() else {
        return Machine { machine: std::env::consts::ARCH.into(), release: String::new(), version: String::new() };
    };
    let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    Machine { machine: text(name.machine()), release: text(name.release()), version: text(name.version()) }
}
