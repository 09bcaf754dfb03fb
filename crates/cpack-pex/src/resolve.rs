//! Finds the distributions of a PEX that are active for an interpreter, and their order on `sys.path`.
//!
//! It does so as upstream's `PEXEnvironment.resolve`: for each requirement that applies it takes the wheel of that project
//! whose tag fits best, then the highest version. The requirements of that wheel follow, depth first, with the extras that
//! are wanted of it. Of a wheelhouse it takes the highest version first, as pip does.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, PackageName};

use crate::file::{Metadata, Pex};
use crate::info::PexInfo;
use crate::requirement::Requirement;
use crate::tags::{Rank, Target};

/// The Python that wheels are chosen for.
#[derive(Debug, Clone)]
pub struct ResolverPython {
    /// For tags.
    pub target: Target,
    /// For markers.
    pub markers: MarkerEnvironment,
}

/// The values of markers that depend on the machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `x86_64`.
    pub machine: String,
    /// The kernel's release.
    pub release: String,
    /// The kernel's version.
    pub version: String,
}

/// Why the active distributions are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum ResolveError {
    #[error("{0} cannot be understood")]
    Unreadable(String),
    #[error("nothing in it meets {0}")]
    Unmet(String),
    #[error("several overrides of {0} apply")]
    Overrides(String),
    #[error("it has {0}: keep one of them, or name its version in a requirements.txt beside it")]
    Versions(String),
}

impl ResolverPython {
    /// A CPython on Linux of this full version, `3.11.7`.
    pub fn new(version: &str, target: Target, machine: &Machine) -> Option<Self> {
        let minor = format!("3.{}", target.minor);
        let markers = MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: version,
            os_name: "posix",
            platform_machine: &machine.machine,
            platform_python_implementation: "CPython",
            platform_release: &machine.release,
            platform_system: "Linux",
            platform_version: &machine.version,
            python_full_version: version,
            python_version: &minor,
            sys_platform: "linux",
        };
        Some(Self { target, markers: MarkerEnvironment::try_from(markers).ok()? })
    }

    /// Whether it meets one of these constraints of a PEX (`CPython>=3.9,<3.14`), or there are none.
    pub fn meets(&self, constraints: &[String]) -> Result<bool, ResolveError> {
        let mut met = constraints.is_empty();
        for constraint in constraints {
            let specifiers = match constraint.strip_prefix("CPython") {
                // `CPython+t` and `CPython-t` are for builds with and without a global lock.
                Some(rest) => match rest.get(..2) {
                    Some("+t") => self.target.abi.ends_with('t').then(|| &rest[2..]),
                    Some("-t") => (!self.target.abi.ends_with('t')).then(|| &rest[2..]),
                    _ => Some(rest),
                },
                None => (!constraint.starts_with("PyPy")).then_some(constraint.as_str()),
            };
            let Some(specifiers) = specifiers else { continue };
            let specifiers = VersionSpecifiers::from_str(specifiers).map_err(|_| unreadable(constraint))?;
            met |= specifiers.contains(self.markers.python_full_version());
        }
        Ok(met)
    }
}

fn unreadable(text: &str) -> ResolveError {
    ResolveError::Unreadable(format!("{:?}", text.chars().take(200).collect::<String>()))
}

/// A wheel that the interpreter can use.
struct Candidate<'a> {
    wheel: &'a str,
    fingerprint: &'a str,
    rank: Rank,
    version: Version,
    build: (u64, &'a str),
    requires: Vec<&'a str>,
}

/// Which of several wheels of a project is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    /// That with the best tag, then the highest version.
    Tag,
    /// That of the highest version, then of the highest build, then with the best tag.
    Version,
    /// The same, but several versions are an error.
    OnlyVersion,
}

impl Preference {
    fn of(pex: &Pex) -> Self {
        match &pex.wheelhouse {
            None => Self::Tag,
            Some(wheelhouse) if wheelhouse.has_requirements => Self::Version,
            Some(_) => Self::OnlyVersion,
        }
    }

    fn compare(self, a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
        let higher = b.version.cmp(&a.version);
        let order = match self {
            Self::Tag => a.rank.cmp(&b.rank).then(higher),
            Self::Version | Self::OnlyVersion => higher.then(b.build.cmp(&a.build)).then(a.rank.cmp(&b.rank)),
        };
        order.then_with(|| a.fingerprint.cmp(b.fingerprint))
    }
}

struct Resolution<'a> {
    preference: Preference,
    interpreter: &'a ResolverPython,
    available: BTreeMap<PackageName, Vec<Candidate<'a>>>,
    excluded: Vec<Requirement>,
    overridden: BTreeMap<PackageName, Vec<Requirement>>,
    /// Projects with their extras, and the wheel that was chosen for each, in order.
    resolved: Vec<(PackageName, BTreeSet<ExtraName>, &'a str)>,
    /// The first requirement that nothing meets, and the wheel that has it.
    unmet: Option<(Requirement, Option<&'a str>)>,
}

/// Finds the wheels that are active, in the order of `sys.path`.
fn resolve<'a>(
    info: &'a PexInfo,
    preference: Preference,
    metadata: &'a BTreeMap<String, Metadata>,
    interpreter: &'a ResolverPython,
) -> Result<Vec<&'a str>, ResolveError> {
    let mut resolution = Resolution {
        preference,
        interpreter,
        available: BTreeMap::new(),
        excluded: info.excluded.iter().map(|text| requirement(text)).collect::<Result<_, _>>()?,
        overridden: BTreeMap::new(),
        resolved: Vec::new(),
        unmet: None,
    };
    for text in &info.overridden {
        let (project, requirement) = overriding(text)?;
        resolution.overridden.entry(project).or_default().push(requirement);
    }
    for (wheel, fingerprint) in &info.distributions {
        resolution.add(wheel, fingerprint, metadata.get(wheel))?;
    }
    for root in resolution.roots(info)? {
        resolution.follow(&root)?;
    }
    if let (Some((unmet, owner)), false) = (&resolution.unmet, info.ignore_errors) {
        return Err(ResolveError::Unmet(describe(unmet, *owner, info.distributions.keys())));
    }
    let mut order: Vec<&str> = Vec::new();
    for (_, _, wheel) in resolution.resolved {
        if !order.contains(&wheel) {
            order.push(wheel);
        }
    }
    Ok(order)
}

/// The wheels of each of `pexes` that are active. `None` if the interpreter does not meet the constraints of the first.
pub fn resolve_all(
    pexes: &[Pex],
    metadata: &[BTreeMap<String, Metadata>],
    interpreter: &ResolverPython,
) -> Result<Option<Vec<Vec<String>>>, ResolveError> {
    if !interpreter.meets(pexes.first().map(|pex| pex.info.interpreter_constraints.as_slice()).unwrap_or_default())? {
        return Ok(None);
    }
    let each = pexes.iter().zip(metadata).map(|(pex, metadata)| {
        let preference = Preference::of(pex);
        let active =
            resolve(&pex.info, preference, metadata, interpreter).map_err(|error| match (error, &pex.wheelhouse) {
                (ResolveError::Unmet(what), Some(wheelhouse)) => ResolveError::Unmet(wheelhouse.explain(what)),
                (error, _) => error,
            })?;
        Ok(active.into_iter().map(str::to_owned).collect())
    });
    each.collect::<Result<_, _>>().map(Some)
}

/// In [`ResolveError::Unmet`] this comes before the wheels of the same project, which do not fit.
pub const OTHERS: &str = " (there is ";

/// Names a requirement that nothing meets, who has it, and the wheels that there are of its project.
fn describe<'a>(unmet: &Requirement, owner: Option<&str>, wheels: impl Iterator<Item = &'a String>) -> String {
    let mut text = unmet.to_string();
    if let Some(owner) = owner {
        text += &format!(" of {owner}");
    }
    let same = |wheel: &&String| {
        PackageName::from_str(wheel.split('-').next().unwrap_or_default()).is_ok_and(|name| name == unmet.name)
    };
    let others: Vec<&str> = wheels.filter(same).map(String::as_str).take(3).collect();
    if !others.is_empty() {
        text += &format!("{OTHERS}{})", others.join(", "));
    }
    text
}

fn requirement(text: &str) -> Result<Requirement, ResolveError> {
    Requirement::parse(text).ok_or_else(|| unreadable(text))
}

/// `project=requirement`, or a requirement that replaces those of its own project.
fn overriding(text: &str) -> Result<(PackageName, Requirement), ResolveError> {
    if let Some((project, rest)) = text.split_once('=')
        && rest.trim_start().starts_with(|c: char| c.is_ascii_alphanumeric())
        && let Ok(project) = PackageName::from_str(project.trim())
    {
        return Ok((project, requirement(rest.trim())?));
    }
    let requirement = requirement(text)?;
    Ok((requirement.name.clone(), requirement))
}

/// The values of a field in the headers of a `METADATA`.
fn fields<'a>(metadata: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let headers = metadata.lines().take_while(|line| !line.is_empty());
    headers.filter_map(move |line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

impl<'a> Resolution<'a> {
    /// Adds a wheel, if the interpreter can use it.
    fn add(
        &mut self,
        wheel: &'a str,
        fingerprint: &'a str,
        metadata: Option<&'a Metadata>,
    ) -> Result<(), ResolveError> {
        let Some(rank) = self.interpreter.target.rank(wheel) else { return Ok(()) };
        let mut parts = wheel.split('-');
        let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let name = PackageName::from_str(name).map_err(|_| unreadable(wheel))?;
        let version = Version::from_str(&version.replace('_', "-")).map_err(|_| unreadable(wheel))?;
        let text = metadata.map(|metadata| std::str::from_utf8(&metadata.metadata)).transpose();
        let text = text.map_err(|_| unreadable(wheel))?.unwrap_or_default();
        for python in fields(text, "Requires-Python").filter(|python| !python.is_empty()) {
            let specifiers = VersionSpecifiers::from_str(python).map_err(|_| unreadable(python))?;
            if !specifiers.contains(self.interpreter.markers.python_full_version()) {
                return Ok(());
            }
        }
        let requires = fields(text, "Requires-Dist").collect();
        // `name-version-build-python-abi-platform`
        let build = if wheel.split('-').count() == 6 { parts.next().unwrap_or_default() } else { "" };
        let (number, rest) = build.split_at(build.find(|c: char| !c.is_ascii_digit()).unwrap_or(build.len()));
        let build = (number.parse().unwrap_or(0), rest);
        let candidate = Candidate { wheel, fingerprint, rank, version, build, requires };
        self.available.entry(name).or_default().push(candidate);
        Ok(())
    }

    fn is_excluded(&self, wanted: &Requirement) -> bool {
        // Upstream compares a requirement with an exclusion by its name alone, and only with one without specifiers.
        self.excluded.iter().any(|excluded| excluded.name == wanted.name && !excluded.is_constrained)
    }

    /// Whether a requirement applies with these extras of its owner.
    fn applies(&self, wanted: &Requirement, extras: &[ExtraName]) -> bool {
        wanted.applies(&self.interpreter.markers, extras)
    }

    /// The requirements of the PEX, merged to one for each project, with the extras of all.
    fn roots(&mut self, info: &PexInfo) -> Result<Vec<Requirement>, ResolveError> {
        let mut projects: Vec<(PackageName, Vec<Requirement>)> = Vec::new();
        for text in &info.requirements {
            let wanted = requirement(text)?;
            if self.is_excluded(&wanted) || !self.applies(&wanted, &[]) {
                continue;
            }
            match projects.iter_mut().find(|(name, _)| *name == wanted.name) {
                Some((_, all)) => all.push(wanted),
                None => projects.push((wanted.name.clone(), vec![wanted])),
            }
        }
        let mut roots = Vec::new();
        for (name, wanted) in projects {
            let candidates = self.available.get(&name).map(Vec::as_slice).unwrap_or_default();
            let fits = |wanted: &&Requirement| candidates.iter().any(|c| wanted.meets(&c.version));
            let fitting: Vec<&Requirement> = wanted.iter().filter(fits).collect();
            let Some(first) = fitting.first() else {
                self.unmet = self.unmet.take().or_else(|| Some((wanted.into_iter().next()?, None)));
                continue;
            };
            let mut root = (*first).clone();
            root.extras = fitting.iter().flat_map(|wanted| wanted.extras.iter().cloned()).collect();
            root.extras.sort();
            root.extras.dedup();
            roots.push(root);
        }
        Ok(roots)
    }

    /// Resolves a requirement and all that follow from it. A loop ends at a project that was resolved with these extras before.
    fn follow(&mut self, wanted: &Requirement) -> Result<(), ResolveError> {
        let mut stack = vec![(wanted.clone(), None)];
        while let Some((wanted, owner)) = stack.pop() {
            let extras: BTreeSet<ExtraName> = wanted.extras.iter().cloned().collect();
            let known = |(name, all, _): &(PackageName, BTreeSet<ExtraName>, &str)| {
                *name == wanted.name && extras.is_subset(all)
            };
            if self.is_excluded(&wanted) || self.resolved.iter().any(known) {
                continue;
            }
            let candidates = self.available.get(&wanted.name).map(Vec::as_slice).unwrap_or_default();
            let fitting: Vec<&Candidate<'_>> = candidates.iter().filter(|c| wanted.meets(&c.version)).collect();
            let Some(best) = fitting.iter().copied().min_by(|a, b| self.preference.compare(a, b)) else {
                self.unmet.get_or_insert((wanted, owner));
                continue;
            };
            if let (Preference::OnlyVersion, Some(other)) =
                (self.preference, fitting.iter().find(|candidate| candidate.version != best.version))
            {
                return Err(ResolveError::Versions(format!("{} and {}", other.wheel, best.wheel)));
            }
            let (requires, best) = (best.requires.clone(), best.wheel);
            self.resolved.push((wanted.name.clone(), extras, best));
            let mut next = Vec::new();
            for text in requires {
                let required = self.overridden_by(requirement(text)?)?;
                if self.applies(&required, &wanted.extras) {
                    next.push((required, Some(best)));
                }
            }
            // Depth first, in the order of the metadata.
            stack.extend(next.into_iter().rev());
        }
        Ok(())
    }

    fn overridden_by(&self, required: Requirement) -> Result<Requirement, ResolveError> {
        let Some(overrides) = self.overridden.get(&required.name) else { return Ok(required) };
        let mut applicable = overrides.iter().filter(|requirement| self.applies(requirement, &[]));
        match (applicable.next(), applicable.next()) {
            (None, _) => Ok(required),
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(ResolveError::Overrides(required.name.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interpreter() -> ResolverPython {
        let target = Target::new(11, "cpython-311-x86_64-linux-gnu", "x86_64", "2.36");
        let machine = Machine { machine: "x86_64".into(), release: "6.1".into(), version: "#1 SMP".into() };
        ResolverPython::new("3.11.7", target, &machine).expect("versions")
    }

    fn info(requirements: &[&str], wheels: &[&str]) -> PexInfo {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let distributions = wheels.iter().map(|wheel| ((*wheel).to_owned(), (*wheel).to_owned())).collect();
        PexInfo { requirements: texts(requirements), distributions, ..PexInfo::new() }
    }

    fn order(info: &PexInfo, metadata: &[(&str, &str)]) -> Result<Vec<String>, ResolveError> {
        order_by(Preference::Tag, info, metadata)
    }

    fn order_by(
        preference: Preference,
        info: &PexInfo,
        metadata: &[(&str, &str)],
    ) -> Result<Vec<String>, ResolveError> {
        let metadata = metadata.iter().map(|(wheel, text)| {
            ((*wheel).to_owned(), Metadata { metadata: text.as_bytes().to_vec(), ..Metadata::default() })
        });
        let (metadata, interpreter) = (metadata.collect(), interpreter());
        Ok(resolve(info, preference, &metadata, &interpreter)?.into_iter().map(str::to_owned).collect())
    }

    const A: &str = "a-1-py3-none-any.whl";
    const B: &str = "b-1.5-py3-none-any.whl";
    const C: &str = "c-1-py3-none-any.whl";

    #[test]
    fn requirements_are_followed_depth_first() {
        let a = "Requires-Dist: b (>=1)\nRequires-Dist: C ; extra == 'more'\nRequires-Dist: d; python_version<'3'\n\nRequires-Dist: x";
        let metadata = [(A, a), (B, "Requires-Dist: a\n")];
        for (requirements, expected) in
            [(&["a"][..], &[A, B][..]), (&["a[more]"], &[A, B, C]), (&["c", "a"], &[C, A, B])]
        {
            assert_eq!(
                order(&info(requirements, &[A, B, C]), &metadata).expect("resolves"),
                expected,
                "{requirements:?}"
            );
        }
    }

    #[test]
    fn the_best_tag_and_then_the_highest_version_win() {
        let (exact, newer) = ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "a-2-py3-none-any.whl");
        let foreign = "a-3-cp312-cp312-manylinux_2_17_x86_64.whl";
        assert_eq!(order(&info(&["a"], &[A, exact, newer, foreign]), &[]).expect("resolves"), [exact]);
        assert_eq!(order(&info(&["a"], &[A, newer, foreign]), &[]).expect("resolves"), [newer]);
        assert_eq!(order(&info(&["a<2"], &[A, newer, foreign]), &[]).expect("resolves"), [A]);
    }

    #[test]
    fn wheelhouse_takes_the_highest_version_or_refuses_to_choose() {
        let (exact, newer) = ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "a-2-py3-none-any.whl");
        let (built, rebuilt) = ("a-2-2-py3-none-any.whl", "a-2-10x-py3-none-any.whl");
        let foreign = "a-3-cp312-cp312-manylinux_2_17_x86_64.whl";
        let by = |preference, requirement, wheels: &[&str]| order_by(preference, &info(&[requirement], wheels), &[]);
        let all = [exact, newer, foreign];
        assert_eq!(by(Preference::Version, "a", &all), Ok(vec![newer.to_owned()]));
        assert_eq!(by(Preference::Version, "a", &[exact, newer, built, rebuilt]), Ok(vec![rebuilt.to_owned()]));
        assert_eq!(by(Preference::OnlyVersion, "a", &[exact, A]), Ok(vec![exact.to_owned()]));
        let refused = by(Preference::OnlyVersion, "a", &all).expect_err("two versions").to_string();
        assert!(refused.starts_with(&format!("it has {exact} and {newer}: keep one")), "{refused}");
        let unmet = by(Preference::Version, "a>2", &all).expect_err("nothing").to_string();
        assert!(unmet.ends_with(&format!("meets a>2 (there is {exact}, {newer}, {foreign})")), "{unmet}");
        let needs = order(&info(&["a"], &[A]), &[(A, "Requires-Dist: none\n")]).expect_err("nothing").to_string();
        assert!(needs.ends_with(&format!("meets none of {A}")), "{needs}");
    }

    #[test]
    fn exclusions_overrides_and_what_is_unmet() {
        let metadata = [(A, "Requires-Dist: b>=2\n")];
        let plain = info(&["a"], &[A, B, C]);
        assert!(matches!(order(&plain, &metadata), Err(ResolveError::Unmet(what)) if what.starts_with("b>=2")));
        let lenient = PexInfo { ignore_errors: true, ..plain.clone() };
        assert_eq!(order(&lenient, &metadata).expect("resolves"), [A]);
        let excluded = PexInfo { excluded: vec!["b".into()], ..plain.clone() };
        assert_eq!(order(&excluded, &metadata).expect("resolves"), [A]);
        for (text, wheel) in [("b<2", B), ("b=c", C), ("b = c>=1", C)] {
            let overridden = PexInfo { overridden: vec![text.into()], ..plain.clone() };
            assert_eq!(order(&overridden, &metadata).expect("resolves"), [A, wheel], "{text}");
        }
    }

    #[test]
    fn constraints_name_versions_and_implementations() {
        for (constraints, met) in [
            (&[][..], true),
            (&["CPython>=3.9,<3.14"], true),
            (&[">=3.12"], false),
            (&["PyPy>=3.9"], false),
            (&["PyPy>=3.9", "CPython==3.11.*"], true),
            (&["CPython+t>=3.9"], false),
        ] {
            let constraints: Vec<String> = constraints.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(interpreter().meets(&constraints), Ok(met), "{constraints:?}");
        }
        assert!(interpreter().meets(&["nonsense".into()]).is_err());
    }
}
