//! Decides which entry of a PEX becomes which file of which layer. Pure.

use std::collections::{BTreeMap, HashMap};

use cpack_format::SafePath;
use cpack_format::path::PathError;

use crate::file::{Files, Metadata, Pex};

/// A part of an environment: a distribution, or the user's code of a PEX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The PEX that it is from: 0 is the one that is started, others are merged in.
    pub pex: usize,
    /// The file name of its wheel. `None` for the user's code.
    pub wheel: Option<String>,
}

/// The order in which upstream's runtime finds modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The user's code, then distributions as they were resolved.
    Usual,
    /// The order before a path that is inherited: the last resolved comes first, code after distributions.
    Reversed,
    /// The order in a virtual environment, which lacks the code of merged PEX files.
    Venv,
}

/// The parts of an environment; Python finds modules of the first part first. `resolved` has the active wheels of each PEX.
pub fn parts(pexes: &[Pex], resolved: &[Vec<String>], order: Order) -> Vec<Part> {
    let mut seen = Vec::new();
    let (mut codes, mut wheels, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (pex, active)) in pexes.iter().zip(resolved).enumerate() {
        codes.push(Part { pex: index, wheel: None });
        steps.push(Part { pex: index, wheel: None });
        for wheel in active {
            let same = (wheel, pex.info.distributions.get(wheel));
            if !seen.contains(&same) {
                seen.push(same);
                wheels.push(Part { pex: index, wheel: Some(wheel.clone()) });
                steps.push(Part { pex: index, wheel: Some(wheel.clone()) });
            }
        }
    }
    match order {
        Order::Usual => codes.into_iter().rev().chain(wheels).collect(),
        Order::Reversed => steps.into_iter().rev().collect(),
        Order::Venv => codes.into_iter().take(1).chain(wheels).collect(),
    }
}

/// Part and path of each file of the environment, by its name in its PEX.
pub type Places = HashMap<Box<[u8]>, (usize, SafePath)>;

/// Decides where the files of each PEX go. If several have the same path, that of the first in the order of `parts` is taken,
/// as `sys.path` does. A name that no environment can have is an error.
pub fn places(pexes: &[Pex], files: &[Files], parts: &[Part], minor: &str) -> Result<Vec<Places>, PathError> {
    let mut taken: HashMap<SafePath, (usize, usize, Box<[u8]>)> = HashMap::new();
    for (index, (pex, files)) in pexes.iter().zip(files).enumerate() {
        let of = |wheel: Option<&str>| parts.iter().position(|p| p.pex == index && p.wheel.as_deref() == wheel);
        let by_wheel: HashMap<&str, usize> =
            pex.info.distributions.keys().filter_map(|wheel| Some((wheel.as_str(), of(Some(wheel))?))).collect();
        let code = of(None);
        for name in files.names() {
            let placed = match pex.wheel_of(&name) {
                // A wheel file as a whole. Another zip has its own files.
                Some((_, [])) => None,
                Some((wheel, path)) => by_wheel
                    .get(wheel)
                    .and_then(|part| Some((*part, installed(wheel, path, pex.info.deps_are_wheel_files, minor)?))),
                None => code.filter(|_| is_code(&name)).map(|part| (part, in_site(&name, minor))),
            };
            let Some((part, path)) = placed else { continue };
            let path = SafePath::new(&path)?;
            if taken.get(&path).is_none_or(|(earlier, ..)| part < *earlier) {
                taken.insert(path, (part, index, name));
            }
        }
    }
    let mut all = vec![Places::new(); pexes.len()];
    for (path, (part, pex, name)) in taken {
        if let Some(places) = all.get_mut(pex) {
            places.insert(name, (part, path));
        }
    }
    Ok(all)
}

impl Files {
    /// The names of all files in the PEX.
    fn names(&self) -> impl Iterator<Item = Box<[u8]>> + '_ {
        let in_zips = self
            .zips
            .iter()
            .flat_map(|zip| zip.entries.iter().map(|entry| [&zip.prefix[..], &entry.name].concat().into_boxed_slice()));
        in_zips.chain(self.plain.iter().map(|(name, _)| name.clone()))
    }
}

/// Whether an entry of a PEX that no distribution has is the user's.
fn is_code(name: &[u8]) -> bool {
    let first = name.split(|b| *b == b'/').next().unwrap_or_default();
    let own: [&[u8]; 8] =
        [b".bootstrap", b"PEX-INFO", b"PEX-LAYOUT", b"__main__.py", b"__pex__", b".deps", b"pex", b"__pycache__"];
    !own.contains(&first)
}

fn in_site(path: &[u8], minor: &str) -> Vec<u8> {
    [b"lib/python", minor.as_bytes(), b"/site-packages/", path].concat()
}

/// Where an installer puts the file at `path` of a distribution. `None` if it does not install it.
pub(super) fn installed(wheel: &str, path: &[u8], is_wheel_file: bool, minor: &str) -> Option<Vec<u8>> {
    let stashed = if is_wheel_file { in_data(wheel, path) } else { path.strip_prefix(b".prefix/") };
    let Some(stashed) = stashed else {
        return (path != b".layout.json").then(|| in_site(path, minor));
    };
    let (key, rest) = stashed.split_at_checked(stashed.iter().position(|b| *b == b'/')?)?;
    let rest = rest.get(1..)?;
    Some(match key {
        b"purelib" | b"platlib" => in_site(rest, minor),
        b"data" => rest.to_vec(),
        b"scripts" => [b"bin/", rest].concat(),
        b"headers" => {
            let project = wheel.split('-').next().unwrap_or_default();
            [b"include/site/python", minor.as_bytes(), b"/", project.as_bytes(), b"/", rest].concat()
        }
        _ => stashed.to_vec(),
    })
}

/// The path below the `.data` directory of a wheel.
fn in_data<'a>(wheel: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    let (directory, rest) = path.split_at_checked(path.iter().position(|b| *b == b'/')?)?;
    let mut parts = wheel.splitn(3, '-');
    let name = format!("{}-{}.data", parts.next()?, parts.next()?);
    let same = directory == name.as_bytes() || (directory.ends_with(b".data") && directory.contains(&b'-'));
    same.then(|| rest.get(1..)).flatten()
}

/// The console scripts of distributions with what each starts (`module:function`). Of several with the same name this takes
/// the first in the order of `wheels`.
pub fn console_scripts<'a>(
    wheels: impl IntoIterator<Item = &'a str>,
    metadata: &BTreeMap<String, Metadata>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for wheel in wheels {
        let text =
            metadata.get(wheel).map(|metadata| String::from_utf8_lossy(&metadata.entry_points)).unwrap_or_default();
        for (name, target) in entry_points(&text) {
            all.entry(name).or_insert(target);
        }
    }
    all
}

/// The scripts in an `entry_points.txt`.
pub fn entry_points(text: &str) -> Vec<(String, String)> {
    let (mut found, mut wanted) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            wanted = line == "[console_scripts]" || line == "[gui_scripts]";
        } else if let (true, Some((name, target))) = (wanted && !line.starts_with(['#', ';']), line.split_once('=')) {
            let target = target.split('[').next().unwrap_or_default().trim();
            found.push((name.trim().to_owned(), target.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_where_an_installer_would_put_them() {
        for (path, wheel_file, expected) in [
            ("a/b.py", false, Some("lib/python3.9/site-packages/a/b.py")),
            (".layout.json", false, None),
            (".prefix/bin/tool", false, Some("bin/tool")),
            (".prefix/data/share/x", false, Some("share/x")),
            (".prefix/share/x", false, Some("share/x")),
            (".prefix/platlib/x.so", false, Some("lib/python3.9/site-packages/x.so")),
            ("a-1.data/scripts/tool", true, Some("bin/tool")),
            ("a-1.data/purelib/x.py", true, Some("lib/python3.9/site-packages/x.py")),
            ("a-1.data/data/etc/x", true, Some("etc/x")),
            ("a-1.data/headers/a.h", true, Some("include/site/python3.9/a/a.h")),
            ("a-1.dist-info/METADATA", true, Some("lib/python3.9/site-packages/a-1.dist-info/METADATA")),
        ] {
            let found = installed("a-1-py3-none-any.whl", path.as_bytes(), wheel_file, "3.9");
            assert_eq!(found.map(|p| String::from_utf8(p).expect("UTF-8")).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn the_runtime_is_no_code_of_the_user() {
        for (name, is) in
            [("my/code.py", true), (".bootstrap/pex/x.py", false), ("PEX-INFO", false), (".deps/x", false)]
        {
            assert_eq!(is_code(name.as_bytes()), is, "{name}");
        }
    }

    #[test]
    fn scripts_are_read_from_entry_points() {
        let text =
            "[x]\na = b\n[console_scripts]\n# c = d\none=m:f [extra]\n two = m.n : C.f\n[gui_scripts]\nthree = g\n";
        let expected = [("one", "m:f"), ("two", "m.n : C.f"), ("three", "g")];
        assert_eq!(entry_points(text), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
