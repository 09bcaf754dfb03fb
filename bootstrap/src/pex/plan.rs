//! What a PEX becomes: which entry is which file of which layer. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use cpack_artifact::SafePath;
use cpack_artifact::path::PathError;
use cpack_artifact::pex_info::{BinPath, DEPS, InheritPath, PexInfo};

use super::entry::Variables;
use super::file::{Files, Pex};

/// Why a PEX is handed to plain Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// A setting of the PEX.
    Setting(&'static str),
    /// A variable.
    Variable(String),
    /// Several wheels of one project, for several platforms or Pythons.
    SeveralWheels(String),
    /// A wheel that is not for the Python that the PEX names.
    Tag(String),
    /// No Python is named by the PEX or its wheels.
    NoPython,
    /// No such Python was found.
    Python(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(setting) => write!(f, "it has {setting}"),
            Self::Variable(name) => write!(f, "{name} is set"),
            Self::SeveralWheels(project) => write!(f, "it has several wheels of {project}"),
            Self::Tag(wheel) => write!(f, "{wheel} is not for the Python that it names"),
            Self::NoPython => f.write_str("it does not say which Python it is for"),
            Self::Python(reason) => f.write_str(reason),
        }
    }
}

/// What a PEX becomes.
#[derive(Debug)]
pub(super) struct Plan {
    /// `3.11`.
    pub(super) minor: String,
    /// Names of its layers: the distributions, and at last the user's code.
    pub(super) layers: Vec<String>,
}

/// Layer and path of each file that is wanted, by its name in the PEX.
pub(super) type Places = HashMap<Box<[u8]>, (usize, SafePath)>;

/// Variables of upstream's runtime that are honoured, or without effect here.
const HONOURED: [&str; 8] = [
    "PEX",
    "PEX_ROOT",
    "PEX_INTERPRETER",
    "PEX_MODULE",
    "PEX_SCRIPT",
    "PEX_VERBOSE",
    "PEX_MAX_INSTALL_JOBS",
    "PEX_EMIT_WARNINGS",
];

/// Plans `pex`, or tells why it is handed over.
pub(super) fn plan(pex: &Pex, variables: &Variables) -> Result<Plan, Reason> {
    settings(&pex.info)?;
    if let Some(name) = variables.all.keys().find(|name| !HONOURED.contains(&name.as_str())) {
        return Err(Reason::Variable(name.clone()));
    }
    let mut projects = BTreeMap::new();
    for wheel in pex.info.distributions.keys() {
        let project = wheel.split('-').next().unwrap_or_default().to_ascii_lowercase().replace(['.', '_'], "-");
        if projects.insert(project.clone(), wheel).is_some() {
            return Err(Reason::SeveralWheels(project));
        }
    }
    let minor = minor(pex)?;
    let layers: Vec<String> = pex.info.distributions.keys().cloned().chain(["code".into()]).collect();
    Ok(Plan { minor, layers })
}

fn settings(info: &PexInfo) -> Result<(), Reason> {
    let unsupported = [
        (info.deps_are_wheel_files, "wheel files as distributions"),
        (!info.merged_paths().is_empty(), "a PEX path"),
        (info.inherit_path != InheritPath::False, "an inherit path"),
        (!info.interpreter_constraints.is_empty(), "interpreter constraints"),
        (!info.bind_resource_paths.is_empty(), "resource paths"),
        (!info.excluded.is_empty(), "excluded requirements"),
        (!info.overridden.is_empty(), "overridden requirements"),
        (info.venv_system_site_packages, "system site-packages"),
        (info.venv_bin_path != BinPath::False && !info.venv, "a bin path without venv mode"),
        (info.script.is_some() && info.entry_point.is_some(), "a script and an entry point"),
    ];
    unsupported.into_iter().find(|(has, _)| *has).map_or(Ok(()), |(_, what)| Err(Reason::Setting(what)))
}

/// The version of Python that the wheels are for, else the one that the first lines name.
fn minor(pex: &Pex) -> Result<String, Reason> {
    let mut exact: Option<&str> = None;
    let wheels = || pex.info.distributions.keys().filter_map(|wheel| Some((wheel, tags(wheel)?)));
    for (wheel, (python, abi, _)) in wheels() {
        let cpython: Vec<&str> = python.split('.').filter_map(|tag| tag.strip_prefix("cp3")).collect();
        match cpython[..] {
            [minor] if abi != "abi3" => match exact {
                Some(found) if found != minor => return Err(Reason::Tag(wheel.clone())),
                _ => exact = Some(minor),
            },
            _ => {}
        }
    }
    let minor = exact.map(|minor| format!("3.{minor}")).or_else(|| pex.minor.clone()).ok_or(Reason::NoPython)?;
    let number = minor.strip_prefix("3.").and_then(|text| text.parse::<u32>().ok()).ok_or(Reason::NoPython)?;
    let unfit = wheels().find(|(_, (python, abi, platform))| !fits(python, abi, platform, number));
    unfit.map_or(Ok(minor), |(wheel, _)| Err(Reason::Tag(wheel.clone())))
}

/// The three parts of a wheel's tag.
fn tags(wheel: &str) -> Option<(&str, &str, &str)> {
    let mut parts = wheel.strip_suffix(".whl")?.rsplitn(4, '-');
    let (platform, abi, python) = (parts.next()?, parts.next()?, parts.next()?);
    Some((python, abi, platform))
}

fn fits(python: &str, abi: &str, platform: &str, minor: u32) -> bool {
    let exact = format!("cp3{minor}");
    let of =
        |tag: &str| tag.strip_prefix("cp3").or(tag.strip_prefix("py3")).and_then(|minor| minor.parse::<u32>().ok());
    let python_fits = python.split('.').any(|tag| {
        tag == "py3"
            || tag == exact
            || ((abi.contains("abi3") || tag.starts_with("py3")) && of(tag).is_some_and(|m| m <= minor))
    });
    let abi_fits = abi.split('.').any(|tag| tag == "none" || tag == "abi3" || tag == exact);
    let machine = std::env::consts::ARCH;
    let platform_fits = platform.split('.').any(|tag| {
        tag == "any" || ((tag.starts_with("manylinux") || tag.starts_with("linux")) && tag.ends_with(machine))
    });
    python_fits && abi_fits && platform_fits
}

/// Where each file goes. Of several that would be the same one the first in the order of the layers is taken, as
/// `sys.path` does. An error: a name that no environment can have.
pub(super) fn places(files: &Files, plan: &Plan) -> Result<Places, PathError> {
    let site = format!("lib/python{}/site-packages/", plan.minor);
    let index: HashMap<&[u8], usize> = plan.layers.iter().enumerate().map(|(i, name)| (name.as_bytes(), i)).collect();
    let code = plan.layers.len().saturating_sub(1);
    let mut taken: HashMap<SafePath, (usize, Box<[u8]>)> = HashMap::new();
    let in_archives = files.archives.iter().flat_map(|archive| {
        archive.names.iter().map(|name| [archive.prefix.as_slice(), name].concat().into_boxed_slice())
    });
    for name in in_archives.chain(files.plain.iter().map(|(name, _)| name.clone())) {
        let Some((layer, path)) = place(&name, &index, code, &site) else { continue };
        let path = SafePath::new(&path)?;
        if taken.get(&path).is_none_or(|(earlier, _)| layer < *earlier) {
            taken.insert(path, (layer, name));
        }
    }
    Ok(taken.into_iter().map(|(path, (layer, name))| (name, (layer, path))).collect())
}

fn place(name: &[u8], index: &HashMap<&[u8], usize>, code: usize, site: &str) -> Option<(usize, Vec<u8>)> {
    let in_site = |path: &[u8]| [site.as_bytes(), path].concat();
    let Some(rest) = name.strip_prefix(DEPS.as_bytes()).and_then(|rest| rest.strip_prefix(b"/")) else {
        let first = name.split(|b| *b == b'/').next().unwrap_or_default();
        let own: [&[u8]; 7] = [b".bootstrap", b"PEX-INFO", b"PEX-LAYOUT", b"__main__.py", b"__pex__", b".deps", b"pex"];
        return (!own.contains(&first)).then(|| (code, in_site(name)));
    };
    let cut = rest.iter().position(|b| *b == b'/')?;
    let (wheel, path) = rest.split_at_checked(cut)?;
    let (layer, path) = (*index.get(wheel)?, path.get(1..)?);
    let Some(stashed) = path.strip_prefix(b".prefix/") else {
        return (path != b".layout.json").then(|| (layer, in_site(path)));
    };
    for (directory, target) in [(&b"purelib/"[..], site), ("platlib/".as_bytes(), site), (b"data/", "")] {
        if let Some(path) = stashed.strip_prefix(directory) {
            return Some((layer, [target.as_bytes(), path].concat()));
        }
    }
    Some((layer, stashed.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_fit_the_python_that_they_are_for() {
        for (wheel, minor, fit) in [
            ("a-1-py3-none-any.whl", 9, true),
            ("a-1-py2.py3-none-any.whl", 13, true),
            ("a-1-py2-none-any.whl", 11, false),
            ("a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", 11, true),
            ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", 12, false),
            ("a-1-cp39-abi3-manylinux_2_17_x86_64.whl", 12, true),
            ("a-1-cp312-abi3-manylinux_2_17_x86_64.whl", 11, false),
            ("a-1-cp311-cp311-macosx_11_0_arm64.whl", 11, false),
        ] {
            let (python, abi, platform) = tags(wheel).expect("tags");
            let here = platform == "any" || std::env::consts::ARCH == "x86_64";
            assert_eq!(fits(python, abi, platform, minor), fit && here, "{wheel}");
        }
    }

    #[test]
    fn entries_go_where_an_installer_would_put_them() {
        let index = HashMap::from([(&b"a.whl"[..], 0)]);
        let of = |name: &str| {
            place(name.as_bytes(), &index, 1, "S/").map(|(i, path)| (i, String::from_utf8_lossy(&path).into_owned()))
        };
        for (name, expected) in [
            (".deps/a.whl/a/b.py", Some((0, "S/a/b.py"))),
            (".deps/a.whl/.layout.json", None),
            (".deps/a.whl/.prefix/bin/tool", Some((0, "bin/tool"))),
            (".deps/a.whl/.prefix/data/share/x", Some((0, "share/x"))),
            (".deps/a.whl/.prefix/platlib/x.so", Some((0, "S/x.so"))),
            (".deps/b.whl/x", None),
            (".bootstrap/pex/x.py", None),
            ("PEX-INFO", None),
            ("my/code.py", Some((1, "S/my/code.py"))),
        ] {
            assert_eq!(of(name), expected.map(|(i, path)| (i, path.to_owned())), "{name}");
        }
    }
}
