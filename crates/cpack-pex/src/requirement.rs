//! One requirement (PEP 508) without its URL: a PEX has the wheels, wherever they came from.
//!
//! `pep508_rs` and `pep440_rs` read names, versions and markers. The requirement of `pep508_rs` would bring URLs and regular
//! expressions along, which are a third of the boot's executable.

use std::fmt;
use std::str::FromStr as _;

use pep440_rs::{Version, VersionSpecifiers};
use pep508_rs::{ExtraName, MarkerEnvironment, MarkerTree, PackageName};

/// A project with the versions that are wanted of it.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    pub(super) name: PackageName,
    pub(super) extras: Vec<ExtraName>,
    specifiers: VersionSpecifiers,
    /// Whether there is more than a name and a marker.
    pub(super) is_constrained: bool,
    marker: MarkerTree,
    text: String,
}

impl Requirement {
    /// Reads `name[extras] specifiers ; marker`, also with the specifiers in brackets or a URL behind an `@`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let whole = text.trim();
        let (name, rest) = whole.split_at(whole.find(|c| !is_name(c)).unwrap_or(whole.len()));
        let rest = rest.trim_start();
        let (extras, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let rest = rest.trim_start();
        let is_url = rest.starts_with('@');
        // A semicolon may be part of a URL; one behind a space is not.
        let (wanted, marker) = rest.split_once(if is_url { " ;" } else { ";" }).unwrap_or((rest, ""));
        let wanted = wanted.trim();
        let bare = wanted.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(wanted).trim();
        let specifiers = if is_url { "" } else { bare };
        let names = extras.split(',').map(str::trim).filter(|extra| !extra.is_empty());
        Some(Self {
            name: PackageName::from_str(name).ok().filter(|_| name.starts_with(|c: char| c.is_ascii_alphanumeric()))?,
            extras: names.map(|extra| ExtraName::from_str(extra).ok()).collect::<Option<_>>()?,
            specifiers: VersionSpecifiers::from_str(specifiers).ok()?,
            is_constrained: !bare.is_empty(),
            marker: match marker.trim() {
                "" => MarkerTree::TRUE,
                marker => MarkerTree::from_str(marker).ok()?,
            },
            text: whole.to_owned(),
        })
    }

    /// Whether `version` is wanted.
    pub(super) fn meets(&self, version: &Version) -> bool {
        self.specifiers.contains(version)
    }

    /// Whether it applies to this interpreter with these extras of its owner.
    pub(super) fn applies(&self, environment: &MarkerEnvironment, extras: &[ExtraName]) -> bool {
        self.marker.evaluate(environment, extras)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_as_by_the_whole_parser() {
        for text in [
            "a",
            "A.b_c",
            "a>=1",
            "a >= 1, <2",
            "a(>=1.0)",
            "a (>=1.0,<3) ; python_version >= '3.9'",
            "a[x]",
            "a[x, y]==1.*",
            "a [x] ~= 2.0; extra == 'z'",
            "a @ https://b/c-1.zip",
            "a[x] @ https://b/c;d.zip ; os_name == 'posix'",
            "a; sys_platform == 'win32' and extra == \"q\"",
        ] {
            let ours = Requirement::parse(text).expect(text);
            let theirs: pep508_rs::Requirement = text.parse().expect(text);
            assert_eq!((&ours.name, &ours.extras), (&theirs.name, &theirs.extras.to_vec()), "{text}");
            assert_eq!(ours.marker, theirs.marker, "{text}");
            assert_eq!(ours.is_constrained, theirs.version_or_url.is_some(), "{text}");
            let specifiers = match &theirs.version_or_url {
                Some(pep508_rs::VersionOrUrl::VersionSpecifier(specifiers)) => specifiers.clone(),
                _ => VersionSpecifiers::empty(),
            };
            assert_eq!(ours.specifiers, specifiers, "{text}");
        }
        for text in ["", "-", "a b", "a[", "a ==", "a; nonsense", "a[!]", "a (>=1"] {
            assert!(Requirement::parse(text).is_none(), "{text}");
        }
    }
}
