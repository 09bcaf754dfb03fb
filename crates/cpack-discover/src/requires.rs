//! What distributions require of each other, as their `Requires-Dist` say, in the environment that they are installed in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr as _;

use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl};

use super::metadata::normalise;
use super::model::{Environment, PythonInfo};

/// The environment of markers as far as environments differ; the machine is this one.
pub fn markers(python: &PythonInfo) -> Option<MarkerEnvironment> {
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

/// The distributions of `environment` that `roots` reach by their requirements, `roots` included: each normalised name with
/// the name of the distribution that requires it, none for a root.
///
/// Markers are evaluated, and an extra counts where a requirement on the way asks for it (`dask[dataframe]`). What is
/// required and not installed is passed over: the environment works without it, or did not work before.
pub(super) fn reached(environment: &Environment, roots: &BTreeSet<String>) -> BTreeMap<String, Option<String>> {
    let markers = markers(&environment.python);
    let mut reached: BTreeMap<String, Option<String>> = roots.iter().map(|name| (name.clone(), None)).collect();
    let mut extras: BTreeMap<String, BTreeSet<ExtraName>> = BTreeMap::new();
    let mut next: VecDeque<String> = roots.iter().cloned().collect();
    while let Some(name) = next.pop_front() {
        let asked: Vec<ExtraName> = extras.get(&name).into_iter().flatten().cloned().collect();
        for text in requires(environment, &name) {
            let Some((required, more)) = required(text, markers.as_ref(), &asked) else { continue };
            if is_absent(environment, &required) {
                continue;
            }
            let known = extras.entry(required.clone()).or_default();
            let before = known.len();
            known.extend(more);
            let has_more = known.len() > before;
            let is_new = !reached.contains_key(&required);
            if is_new {
                reached.insert(required.clone(), Some(name.clone()));
            }
            if is_new || has_more {
                next.push_back(required);
            }
        }
    }
    reached
}

/// `Requires-Dist` of the distribution or editable project with this name.
fn requires<'e>(environment: &'e Environment, name: &str) -> &'e [String] {
    let editable =
        || environment.editables.iter().find(|editable| editable.name == name).map(|e| e.requires.as_slice());
    environment.distribution(name).map(|d| d.requires.as_slice()).or_else(editable).unwrap_or_default()
}

/// Whether nothing of that name is installed.
fn is_absent(environment: &Environment, name: &str) -> bool {
    environment.names().all(|there| there != name)
}

/// The normalised name that a requirement names, with its extras; none where its marker does not hold.
///
/// A requirement that the standard refuses (`pytz (>dev)`) counts by its name.
fn required(text: &str, markers: Option<&MarkerEnvironment>, extras: &[ExtraName]) -> Option<(String, Vec<ExtraName>)> {
    match Requirement::<VerbatimUrl>::from_str(text) {
        Ok(requirement) => {
            let holds = markers.is_none_or(|markers| requirement.evaluate_markers(markers, extras));
            holds.then(|| (normalise(requirement.name.as_ref()), requirement.extras))
        }
        Err(_) => {
            let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(text.len());
            let name = normalise(text.get(..end).unwrap_or_default());
            (!name.is_empty() && !text.contains("extra ==")).then_some((name, Vec::new()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn fixture() -> Fixture {
        let fixture = Fixture::new();
        for (name, requires) in [
            (
                "pandas",
                &["NumPy>=1; python_version < '3.12'", "numpy-next; python_version >= '3.12'", "pytz (>dev)"][..],
            ),
            ("numpy", &[]),
            ("numpy-next", &[]),
            ("pytz", &[]),
            ("dask", &["pandas>=2; extra == 'dataframe'", "distributed; extra == 'distributed'", "absent"]),
            ("distributed", &["dask"]),
            ("report", &["dask[dataframe]", "old (>dev); extra == 'x'"]),
            ("old", &[]),
        ] {
            fixture.install_with(name, "1", requires, &[(&format!("{name}.py"), "")]);
        }
        fixture
    }

    #[test]
    fn reached_follows_markers_and_extras() {
        let environment = fixture().discover();
        for (roots, expected) in [
            (&["pandas"][..], &["numpy", "pandas", "pytz"][..]),
            (&["dask"], &["dask"]),
            (&["distributed"], &["dask", "distributed"]),
            // The extra is asked for after `dask` was reached without it.
            (&["dask", "report"], &["dask", "numpy", "pandas", "pytz", "report"]),
            (&[], &[]),
        ] {
            let roots = roots.iter().map(|name| (*name).to_owned()).collect();
            let found = reached(&environment, &roots);
            assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{roots:?}");
        }
    }

    #[test]
    fn reached_says_who_requires() {
        let environment = fixture().discover();
        let found = reached(&environment, &BTreeSet::from(["report".to_owned()]));
        let by = |name: &str| found.get(name).and_then(Option::as_deref);
        assert_eq!((by("report"), by("dask"), by("numpy")), (None, Some("report"), Some("pandas")));
    }
}
