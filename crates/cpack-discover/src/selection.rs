//! Selects the distributions of an environment to pack (`--only`, `--ignore`) and merges those that `--add` resolved to.
//!
//! Names are compared after PEP 503's normalisation. `--only` keeps exactly the named distributions, without their
//! requirements and without unowned files. `--ignore` drops the named distributions. Both apply to editable projects too. If
//! the owner of a file that several distributions list is dropped, the file goes to the next one with its content.
//!
//! With `--with-dependencies` requirements are followed, as a resolver would with the remaining names. `--only` keeps the named
//! distributions and everything that they require. A distribution that `--ignore` names stays, with a warning, if a kept one
//! requires it. Editable projects are then dropped by `--ignore` alone, and their requirements are not followed unless `--only`
//! names them.

use std::collections::{BTreeMap, BTreeSet};

use cpack_format::SafePath;

use super::metadata::normalise;
use super::model::{Distribution, Environment, FileStat, Finding, FindingKind};
use super::names::import_names;
use super::requires::reached;

/// The distributions to pack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names to keep. Empty keeps all.
    pub only: Vec<String>,
    /// Names to drop.
    pub ignore: Vec<String>,
    /// Whether what is kept keeps what it requires.
    pub with_dependencies: bool,
}

/// The environment has no distribution of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {name}: the environment has no such distribution{}", hint(.closest.as_deref()))]
pub struct UnknownName {
    /// `--only` or `--ignore`.
    pub flag: &'static str,
    /// The name, as the user wrote it.
    pub name: String,
    /// The nearest name that the environment has.
    pub closest: Option<String>,
}

fn hint(closest: Option<&str>) -> String {
    closest.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

impl Selection {
    /// Drops distributions that are not selected.
    pub fn apply(&self, environment: &mut Environment) -> Result<(), UnknownName> {
        let only = self.known(environment, "--only", &self.only)?;
        let ignore = self.known(environment, "--ignore", &self.ignore)?;
        let named = |name: &str| (only.is_empty() || only.contains(name)) && !ignore.contains(name);
        let mut kept: BTreeSet<String> = environment.names().filter(|name| named(name)).map(str::to_owned).collect();
        if self.with_dependencies {
            let without_editables = |name: &String| !only.is_empty() || environment.distribution(name).is_some();
            kept = with_dependencies(environment, kept.into_iter().filter(without_editables).collect(), &ignore);
        }
        if !only.is_empty() {
            environment.unowned.clear();
        }
        select_packages(environment, &only, &ignore);
        let stays = |name: &String| !ignore.contains(name) && (self.with_dependencies || kept.contains(name));
        environment.editables.retain(|editable| stays(&editable.name));
        let all = std::mem::take(&mut environment.distributions);
        let (kept, dropped): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| kept.contains(&d.name));
        environment.distributions = kept;
        pass_on(environment, &dropped);
        Ok(())
    }

    fn known(
        &self,
        environment: &Environment,
        flag: &'static str,
        names: &[String],
    ) -> Result<BTreeSet<String>, UnknownName> {
        let packages = environment.packages.iter().map(|package| package.name.as_str());
        let there: BTreeSet<&str> = environment.names().chain(packages).collect();
        let known = |name: &String| {
            let normal = normalise(name);
            if there.contains(normal.as_str()) {
                return Ok(normal);
            }
            Err(UnknownName { flag, name: name.clone(), closest: closest(&normal, &there) })
        };
        names.iter().map(known).collect()
    }
}

/// Drops conda packages that `ignore` names, and if `only` names any, those that neither it nor Python needs.
fn select_packages(environment: &mut Environment, only: &BTreeSet<String>, ignore: &BTreeSet<String>) {
    let packages = &mut environment.packages;
    if !only.is_empty() {
        let needs: BTreeMap<&str, &[String]> =
            packages.iter().map(|p| (p.name.as_str(), p.depends.as_slice())).collect();
        let mut pending: Vec<&str> = only.iter().map(String::as_str).chain(["python"]).collect();
        let mut kept = BTreeSet::new();
        while let Some(name) = pending.pop() {
            if kept.insert(name.to_owned()) {
                pending.extend(needs.get(name).copied().unwrap_or_default().iter().map(String::as_str));
            }
        }
        packages.retain(|package| kept.contains(&package.name));
    }
    packages.retain(|package| !ignore.contains(&package.name) || package.name == "python");
}

/// `roots` and everything that they require. Warns of distributions that are kept although `ignore` names them.
fn with_dependencies(
    environment: &mut Environment,
    roots: BTreeSet<String>,
    ignore: &BTreeSet<String>,
) -> BTreeSet<String> {
    let reached = reached(environment, &roots);
    for (name, by) in &reached {
        let is_ignored = ignore.contains(name) && environment.distribution(name).is_some();
        if let (true, Some(by)) = (is_ignored, by) {
            let message = format!("{name} is packed although it is to be ignored: {by} requires it");
            environment.warnings.push(Finding::new(FindingKind::Required, message));
        }
    }
    reached.into_keys().collect()
}

/// The nearest of `names`, if its similarity is at least 0.7.
fn closest(name: &str, names: &BTreeSet<&str>) -> Option<String> {
    let scored = names.iter().map(|other| (strsim::jaro_winkler(name, other), *other));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= 0.7).then(|| best.1.to_owned())
}

/// Gives contested files of dropped distributions, and their byte-code, to the next distribution with their content.
fn pass_on(environment: &mut Environment, dropped: &[Distribution]) {
    let at: BTreeMap<&str, usize> = dropped.iter().enumerate().map(|(i, d)| (d.name.as_str(), i)).collect();
    let mut changed = BTreeSet::new();
    for contested in &mut environment.contested {
        let owner = contested.matching.first().and_then(|name| at.get(name.as_str())).and_then(|i| dropped.get(*i));
        contested.matching.retain(|name| !at.contains_key(name.as_str()));
        contested.claimants.retain(|name| !at.contains_key(name.as_str()));
        let Some(owner) = owner else { continue };
        let heir = contested.matching.first();
        let heir = heir.and_then(|name| environment.distributions.iter_mut().find(|d| d.name == *name));
        let Some(heir) = heir else { continue };
        let cached = byte_code(&contested.path, &environment.python.cache_tag);
        let moves = |file: &&FileStat| file.path == contested.path || Some(&file.path) == cached.as_ref();
        heir.files.extend(owner.files.iter().filter(moves).cloned());
        changed.insert(heir.name.clone());
    }
    let unclaimed = environment.contested.iter().filter(|c| c.claimants.is_empty()).map(|c| &c.path);
    let unclaimed: BTreeSet<&SafePath> = unclaimed.collect();
    environment.unowned.retain(|file| !unclaimed.contains(&file.path));
    environment.contested.retain(|contested| contested.claimants.len() > 1);
    let site = environment.site_packages.as_bytes();
    for distribution in environment.distributions.iter_mut().filter(|d| changed.contains(&d.name)) {
        distribution.files.sort_by(|a, b| a.path.cmp(&b.path));
        distribution.import_names = import_names(&distribution.files, site);
    }
}

/// The path of the byte-code of the module at `path`.
fn byte_code(path: &SafePath, cache_tag: &str) -> Option<SafePath> {
    let folder = path.parent()?;
    let file = path.components().next_back()?.strip_suffix(b".py")?;
    SafePath::new(&[folder.as_bytes(), b"/__pycache__/", file, b".", cache_tag.as_bytes(), b".pyc"].concat()).ok()
}

/// Merges into `environment` the distributions of `added` that it lacks or has in another version.
///
/// The merged files stay on disk where they are and get a `source`. Their paths are removed from all other distributions
/// and from the unowned files.
pub fn merge(environment: &mut Environment, added: Environment) {
    let is_same = |d: &Distribution| environment.distribution(&d.name).is_some_and(|own| own.version == d.version);
    let prefix = added.prefix.clone();
    let mut incoming: Vec<Distribution> = added.distributions.into_iter().filter(|d| !is_same(d)).collect();
    for file in incoming.iter_mut().flat_map(|d| &mut d.files) {
        let source = file.source.take();
        file.source = Some(source.unwrap_or_else(|| prefix.join(&file.path).into()));
    }
    let names: BTreeSet<String> = incoming.iter().map(|d| d.name.clone()).collect();
    let paths: BTreeSet<SafePath> = incoming.iter().flat_map(|d| &d.files).map(|f| f.path.clone()).collect();
    environment.editables.retain(|e| !names.contains(&e.name));
    let all = std::mem::take(&mut environment.distributions);
    let (replaced, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| names.contains(&d.name));
    environment.distributions = kept;
    pass_on(environment, &replaced);

    let site = environment.site_packages.as_bytes();
    for distribution in &mut environment.distributions {
        let before = distribution.files.len();
        distribution.files.retain(|file| !paths.contains(&file.path));
        if distribution.files.len() != before {
            distribution.suspects.retain(|suspect| !paths.contains(&suspect.path));
            distribution.import_names = import_names(&distribution.files, site);
        }
    }
    environment.unowned.retain(|file| !paths.contains(&file.path));
    environment.contested.retain(|contested| !paths.contains(&contested.path));
    environment.distributions.extend(incoming);
    environment.distributions.sort_by(|a, b| a.name.cmp(&b.name));
    environment.warnings.extend(added.warnings);
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Fixture, SITE, files, findings, shortened};
    use super::*;

    fn selection(only: &[&str], ignore: &[&str]) -> Selection {
        let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Selection { only: owned(only), ignore: owned(ignore), with_dependencies: false }
    }

    fn names(environment: &Environment) -> Vec<&str> {
        environment.distributions.iter().map(|d| d.name.as_str()).collect()
    }

    #[test]
    fn selection_normalises_names() {
        let fixture = Fixture::new();
        fixture.install("Zope.Interface", "1", &[("zope/a.py", "")]);
        fixture.install("numpy", "1", &[("numpy.py", "")]);
        fixture.install("six", "1", &[("six.py", "")]);
        fixture.write("share/x", "");
        for (only, ignore, expected, unowned) in [
            (&[][..], &[][..], &["numpy", "six", "zope-interface"][..], 1),
            (&["zope_interface", "NumPy"], &[], &["numpy", "zope-interface"], 0),
            (&[], &["ZOPE-interface"], &["numpy", "six"], 1),
            (&["six", "numpy"], &["numpy"], &["six"], 0),
        ] {
            let mut environment = fixture.discover();
            selection(only, ignore).apply(&mut environment).expect("known names");
            assert_eq!((names(&environment).as_slice(), environment.unowned.len()), (expected, unowned));
        }
        for (only, ignore, message) in [
            (&["numpi"][..], &[][..], "--only numpi: the environment has no such distribution; did you mean numpy?"),
            (&[], &["zope"], "--ignore zope: the environment has no such distribution; did you mean zope-interface?"),
            (&[], &["qqq"], "--ignore qqq: the environment has no such distribution"),
        ] {
            let error = selection(only, ignore).apply(&mut fixture.discover()).expect_err("unknown");
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn selection_with_dependencies_keeps_what_is_required() {
        let fixture = Fixture::new();
        fixture.install_with("pandas", "1", &["NumPy", "six"], &[("pandas.py", "")]);
        fixture.install_with("scipy", "1", &["numpy"], &[("scipy.py", "")]);
        for name in ["numpy", "six", "other"] {
            fixture.install(name, "1", &[(&format!("{name}.py"), "")]);
        }
        fixture.write("share/x", "");
        for (only, ignore, expected, unowned, reported) in [
            (&["Pandas"][..], &[][..], &["numpy", "pandas", "six"][..], 0, None),
            (&["pandas"], &["NUMPY", "other"], &["numpy", "pandas", "six"], 0, Some("numpy")),
            (&[], &["pandas"], &["numpy", "other", "scipy", "six"], 1, None),
            (&[], &["six", "pandas", "other"], &["numpy", "scipy"], 1, None),
            (&[], &["numpy"], &["numpy", "other", "pandas", "scipy", "six"], 1, Some("numpy")),
            (&["six"], &["six"], &[], 0, None),
        ] {
            let mut environment = fixture.discover();
            let selection = Selection { with_dependencies: true, ..selection(only, ignore) };
            selection.apply(&mut environment).expect("known names");
            assert_eq!(
                (names(&environment).as_slice(), environment.unowned.len()),
                (expected, unowned),
                "{selection:?}"
            );
            let found = findings(&environment, FindingKind::Required);
            assert_eq!(found.len(), usize::from(reported.is_some()), "{found:?}");
            assert!(found.iter().zip(reported).all(|(line, name)| line.starts_with(name)), "{found:?}");
        }
    }

    #[test]
    fn selection_passes_contested_files_on() {
        let fixture = Fixture::new();
        for name in ["aa", "bb", "cc"] {
            fixture.install(name, "1", &[("ns/__init__.py", ""), (&format!("ns/{name}.py"), "")]);
        }
        fixture.module("ns/__pycache__/__init__.cpython-311.pyc", "");
        let mut environment = fixture.discover();
        assert!(files(&environment, "aa").contains(&"ns/__init__.py".to_owned()));
        selection(&[], &["aa"]).apply(&mut environment).expect("known");
        let own = files(&environment, "bb");
        let modules: Vec<_> = own.iter().filter(|f| f.starts_with("ns/")).map(String::as_str).collect();
        assert_eq!(modules, ["ns/__init__.py", "ns/__pycache__/__init__.cpython-311.pyc", "ns/bb.py"]);
        selection(&[], &["bb", "cc"]).apply(&mut environment).expect("known");
        assert_eq!((environment.distributions.len(), environment.contested.len()), (0, 0));
    }

    #[test]
    fn selection_drops_unowned_contested_file_with_its_last_claimant() {
        let fixture = Fixture::new();
        fixture.install("aa", "1", &[("x.py", "a")]);
        fixture.install("bb", "1", &[("x.py", "b")]);
        fixture.module("x.py", "other");
        let mut environment = fixture.discover();
        selection(&[], &["aa"]).apply(&mut environment).expect("known");
        assert_eq!(shortened(&environment.unowned), ["x.py"]);
        let mut environment = fixture.discover();
        selection(&[], &["aa", "bb"]).apply(&mut environment).expect("known");
        assert_eq!(environment.unowned, []);
    }

    #[test]
    fn merge_replaces_other_versions() {
        let (base, more) = (Fixture::new(), Fixture::new());
        base.install("same", "1", &[("same.py", "")]);
        base.install("old", "1", &[("old/__init__.py", "1"), ("old/gone.py", "")]);
        base.install("other", "1", &[("other.py", ""), ("shared.py", "")]);
        base.module("taken.py", "");
        more.install("same", "1", &[("same.py", "")]);
        more.install("old", "2", &[("old/__init__.py", "2"), ("shared.py", "")]);
        more.install("new", "1", &[("new.py", ""), ("taken.py", "")]);
        let mut environment = base.discover();
        merge(&mut environment, more.discover());
        let versions: Vec<_> = environment.distributions.iter().map(|d| format!("{}=={}", d.name, d.version)).collect();
        assert_eq!(versions, ["new==1", "old==2", "other==1", "same==1"]);
        let source = |name: &str, path: &str| {
            let path = SafePath::new(format!("{SITE}/{path}").as_bytes()).expect("safe");
            let own = environment.distribution(name).expect("there").files.iter();
            environment.source(own.clone().find(|f| f.path == path).expect("there"))
        };
        assert!(source("old", "old/__init__.py").starts_with(more.prefix()));
        assert!(source("same", "same.py").starts_with(base.prefix()));
        assert_eq!(environment.distribution("other").expect("there").import_names, ["other"]);
        assert_eq!(environment.unowned, []);
        let owned = environment.distributions.iter().flat_map(|d| &d.files).map(|f| &f.path);
        let (all, unique) = (owned.clone().count(), owned.collect::<BTreeSet<_>>().len());
        assert_eq!(all, unique);
    }
}
