//! What a virtual environment with `include-system-site-packages` sees beside its own: the packages of its base interpreter.
//!
//! On the path they come after the environment's own. Packed with it they lie in the same directory, so a distribution, a project
//! and a path that the environment has itself are not taken from the base interpreter.

use std::collections::{BTreeSet, HashSet};

use cpack_format::SafePath;

use crate::discover::{DiscoverOptions, discover_layout};
use crate::error::DiscoverError;
use crate::model::{Distribution, Environment, FileStat, FindingKind};
use crate::prefix::Layout;

/// What becomes of the packages of the base interpreter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SystemPackages {
    /// They are not seen where the environment is booted.
    #[default]
    Hide,
    /// What the node's own interpreter has is seen there.
    Node,
    /// They are packed with the environment.
    Pack,
}

/// Applies `choice` to an environment that sees the packages of its base interpreter. Others are left as they are.
pub fn apply(
    environment: &mut Environment,
    choice: SystemPackages,
    options: &DiscoverOptions,
) -> Result<(), DiscoverError> {
    if !environment.sees_system || choice == SystemPackages::Hide {
        environment.sees_system = false;
        return Ok(());
    }
    environment.warnings.retain(|finding| finding.kind != FindingKind::SystemSitePackages);
    if choice == SystemPackages::Pack {
        environment.sees_system = false;
        let mut layout = Layout::of(&environment.python.base_prefix)?;
        layout.executable.clone_from(&environment.python.base_executable);
        let options = DiscoverOptions { whole_conda: false, ..options.clone() };
        add(environment, discover_layout(layout, &options)?);
    }
    Ok(())
}

/// Puts what `base` has, and `environment` has not, into `environment`.
fn add(environment: &mut Environment, base: Environment) {
    let distributions = environment.distributions.iter().map(|d| d.name.clone());
    let names: BTreeSet<String> = distributions.chain(environment.editables.iter().map(|e| e.name.clone())).collect();
    let files = environment.distributions.iter().flat_map(|d| &d.files).chain(&environment.unowned);
    let taken: HashSet<SafePath> = files.map(|file| file.path.clone()).collect();
    let moved = |file: &FileStat| {
        let source = Some(base.source(file).into());
        (!taken.contains(&file.path)).then(|| FileStat { source, ..file.clone() })
    };
    let moved_all = |files: &[FileStat]| files.iter().filter_map(moved).collect::<Vec<_>>();
    for distribution in base.distributions.iter().filter(|d| !names.contains(&d.name)) {
        let files = moved_all(&distribution.files);
        let mut suspects = distribution.suspects.clone();
        suspects.retain(|suspect| !taken.contains(&suspect.path));
        environment.distributions.push(Distribution { files, suspects, ..distribution.clone() });
    }
    environment.distributions.sort_by(|a, b| a.name.cmp(&b.name));
    environment.unowned.extend(moved_all(&base.unowned));
    environment.unowned.sort_by(|a, b| a.path.cmp(&b.path));
    environment.editables.extend(base.editables.iter().filter(|e| !names.contains(&e.name)).cloned());
    environment.editables.sort_by(|a, b| a.name.cmp(&b.name));
    let said = base.warnings.into_iter().filter(|finding| finding.kind != FindingKind::SystemPython);
    environment.warnings.extend(said);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, files};
    use super::*;

    fn names(environment: &Environment) -> Vec<String> {
        environment.distributions.iter().map(|d| format!("{} {}", d.name, d.version)).collect()
    }

    #[test]
    fn system_packages_are_packed_unless_the_environment_has_its_own() {
        let (own, base) = (Fixture::new(), Fixture::new());
        own.install("a", "2", &[("a.py", "own"), ("ns/own.py", "")]);
        base.install("a", "1", &[("a.py", "base"), ("old.py", "")]);
        base.install("b", "1", &[("b.py", ""), ("ns/own.py", "base"), ("../../../bin/tool", "")]);
        let mut environment = own.discover();
        add(&mut environment, base.discover());
        assert_eq!(names(&environment), ["a 2", "b 1"]);
        assert!(!files(&environment, "b").contains(&"ns/own.py".to_owned()));
        let b = environment.distribution("b").expect("there");
        assert!(b.files.iter().all(|file| environment.source(file).starts_with(base.prefix())), "{:?}", b.files);
        assert!(b.files.iter().any(|file| file.path.as_bytes() == b"bin/tool"));
        let a = environment.distribution("a").expect("there");
        assert!(a.files.iter().all(|file| environment.source(file).starts_with(own.prefix())));
    }

    #[test]
    fn system_packages_of_the_node_are_seen_only_where_the_environment_sees_any() {
        let fixture = Fixture::new();
        let mut isolated = fixture.discover();
        apply(&mut isolated, SystemPackages::Node, &fixture.options()).expect("applies");
        assert!(!isolated.sees_system);
        fixture.write("pyvenv.cfg", "home = /nowhere\nversion = 3.11.7\ninclude-system-site-packages = true\n");
        for (choice, sees, warnings) in [(SystemPackages::Node, true, 0), (SystemPackages::Hide, false, 1)] {
            let mut environment = fixture.discover();
            assert!(environment.sees_system);
            apply(&mut environment, choice, &fixture.options()).expect("applies");
            assert_eq!((environment.sees_system, environment.warnings.len()), (sees, warnings), "{choice:?}");
        }
    }
}
