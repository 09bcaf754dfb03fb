//! From published layers to the manifest that names them: needs, ranks, least glibc.
//!
//! A layer needs the distributions that its `Requires-Dist` names, as far as they are in the environment, and those whose
//! directories its shared libraries reach by `RUNPATH`. Its rank is the length of the longest chain of needs below it, so a
//! layer that others need comes before them. Cycles (they exist) count once.

use std::collections::{BTreeMap, BTreeSet};

use cpack_discover::{Environment, PythonInfo, normalise};
use cpack_format::manifest::{CONDA, EntryPoint, FORMAT, Layer, LayerKind, Manifest, Python, SYSTEM_SITE_PACKAGES};

use crate::publish::PublishedLayer;

/// The manifest of `environment`, made of the `published` layers.
pub fn build(environment: &Environment, published: &[PublishedLayer]) -> Manifest {
    let owners = owners(environment);
    let mut layers: Vec<_> = published
        .iter()
        .map(|PublishedLayer { layer, facts, .. }| {
            let needs = if layer.kind == LayerKind::Conda {
                needs_of_package(&layer.name, environment)
            } else {
                let requires = environment.distribution(&layer.name).map(|d| d.requires.as_slice()).unwrap_or_default();
                needs(&layer.name, requires, &facts.run_paths, environment, &owners)
            };
            Layer { needs, ..layer.clone() }
        })
        .collect();
    let ranks: Vec<u32> = {
        let ranks = ranks(&layers.iter().map(|l| (l.name.as_str(), l.needs.as_slice())).collect());
        layers.iter().map(|l| ranks.get(l.name.as_str()).copied().unwrap_or(0)).collect()
    };
    for (layer, rank) in layers.iter_mut().zip(ranks) {
        layer.rank = rank;
    }
    layers.sort_unstable_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    let least_glibc = published.iter().filter_map(|p| p.facts.glibc.as_deref()).max_by_key(|v| version_key(v));
    let mut requires = vec!["zstd-frames".to_owned()];
    requires.extend(environment.sees_system.then(|| SYSTEM_SITE_PACKAGES.to_owned()));
    requires.extend(environment.is_whole_conda().then(|| CONDA.to_owned()));
    Manifest {
        format: FORMAT,
        requires,
        python: python(&environment.python, least_glibc),
        layers,
        entry_points: entry_points(environment),
    }
}

fn python(info: &PythonInfo, least_glibc: Option<&str>) -> Python {
    Python {
        version: info.version.clone(),
        soabi: info.soabi.clone(),
        platform: info.platform.clone(),
        least_glibc: least_glibc.map(str::to_owned),
    }
}

fn entry_points(environment: &Environment) -> Vec<EntryPoint> {
    let all: BTreeSet<&EntryPoint> = environment.entry_points().collect();
    all.into_iter().cloned().collect()
}

/// `2.17` as numbers.
fn version_key(version: &str) -> Vec<u32> {
    version.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

/// The distributions that have shared libraries in each directory: the targets of `RUNPATH`.
type Owners<'a> = BTreeMap<&'a [u8], BTreeSet<&'a str>>;

fn owners(environment: &Environment) -> Owners<'_> {
    let mut owners = Owners::new();
    for distribution in &environment.distributions {
        for file in &distribution.files {
            let path = file.path.as_bytes();
            let Some(cut) = path.iter().rposition(|b| *b == b'/') else { continue };
            let (directory, name) = path.split_at(cut);
            if name.windows(3).any(|w| w == b".so") {
                owners.entry(directory).or_default().insert(&distribution.name);
            }
        }
    }
    owners
}

fn needs(
    name: &str,
    requires: &[String],
    run_paths: &[String],
    environment: &Environment,
    owners: &Owners<'_>,
) -> Vec<String> {
    let required = requires.iter().filter(|r| !is_extra(r)).map(|r| normalise(requirement_name(r)));
    let mut needs: BTreeSet<String> = required.filter(|r| environment.distribution(r).is_some()).collect();
    let reached = run_paths.iter().filter_map(|path| owners.get(path.as_bytes())).flatten();
    needs.extend(reached.map(|name| (*name).to_owned()));
    needs.remove(name);
    needs.into_iter().collect()
}

/// The packages that a conda package needs, as far as they are there: virtual ones (`__glibc`) are not.
fn needs_of_package(name: &str, environment: &Environment) -> Vec<String> {
    let package = environment.packages.iter().find(|package| package.name == name);
    let is_there = |name: &&String| environment.packages.iter().any(|package| package.name == **name);
    let needs: BTreeSet<&String> = package.iter().flat_map(|package| &package.depends).filter(is_there).collect();
    needs.into_iter().filter(|need| *need != name).cloned().collect()
}

/// The name that a requirement starts with (PEP 508).
pub fn requirement_name(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
    requirement.get(..end.unwrap_or(requirement.len())).unwrap_or_default()
}

/// Whether a requirement holds only with an extra. What is installed does not say which distribution asked for the extra.
fn is_extra(requirement: &str) -> bool {
    requirement.split_once(';').is_some_and(|(_, marker)| marker.contains("extra"))
}

/// For each name the length of the longest chain of needs below it.
fn ranks<'a>(needs: &BTreeMap<&'a str, &'a [String]>) -> BTreeMap<&'a str, u32> {
    fn rank<'a>(
        name: &'a str,
        needs: &BTreeMap<&'a str, &'a [String]>,
        done: &mut BTreeMap<&'a str, u32>,
        open: &mut BTreeSet<&'a str>,
    ) -> u32 {
        if let Some(rank) = done.get(name) {
            return *rank;
        }
        // A need that is being ranked already is a cycle: it counts nothing.
        if !open.insert(name) {
            return 0;
        }
        let below = needs.get(name).copied().unwrap_or_default();
        let deepest = below.iter().map(|n| rank(n, needs, done, open) + 1).max().unwrap_or(0);
        open.remove(name);
        done.insert(name, deepest);
        deepest
    }
    let (mut done, mut open) = (BTreeMap::new(), BTreeSet::new());
    for name in needs.keys() {
        rank(name, needs, &mut done, &mut open);
    }
    done
}

/// The layers that are distributions or conda packages.
pub fn distributions(manifest: &Manifest) -> impl Iterator<Item = &Layer> {
    manifest.layers.iter().filter(|layer| matches!(layer.kind, LayerKind::Distribution | LayerKind::Conda))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_named_whatever_follows() {
        for (requirement, name) in [
            ("numpy>=1.2", "numpy"),
            ("zope.interface", "zope-interface"),
            ("Foo_Bar [x] ; python_version < '3'", "foo-bar"),
            ("a@ file:///x", "a"),
            ("b(>=1)", "b"),
        ] {
            assert_eq!(normalise(requirement_name(requirement)), name, "{requirement}");
        }
        assert!(is_extra("x ; extra == 'all'") && !is_extra("extra-x ; python_version > '3'"));
    }

    #[test]
    fn ranks_follow_the_longest_chain_and_survive_cycles() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let (a, b, c, d) = (names(&["b", "c"]), names(&["c"]), names(&[]), names(&["d", "e"]));
        let e = names(&["d"]);
        let needs = BTreeMap::from([("a", &a[..]), ("b", &b[..]), ("c", &c[..]), ("d", &d[..]), ("e", &e[..])]);
        let ranks = ranks(&needs);
        assert_eq!((ranks["c"], ranks["b"], ranks["a"]), (0, 1, 2));
        assert!(ranks.contains_key("d") && ranks.contains_key("e"));
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version_key("2.17") > version_key("2.5"));
    }
}
