//! Parses what each build backend writes into site-packages for an editable project, and finds the sources.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::super::model::EditableForm;
use super::super::names::module_name;
use super::super::prefix_files::below;
use super::super::walk;
use super::literal::{self, Literal};

/// The locations of an editable project's modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    /// Folders for `sys.path`.
    pub(super) roots: Vec<PathBuf>,
    /// Dotted names of packages and modules, with their folder or file. A file may lack its extension.
    pub(super) modules: Vec<(String, PathBuf)>,
    /// Single files, with their path relative to site-packages.
    pub(super) files: Vec<(Vec<u8>, PathBuf)>,
}

/// Parses a module that a `.pth` file loads. `None` if no known build backend generated it.
pub(super) fn generated_module(source: &str) -> Option<(EditableForm, Places)> {
    let mut places = Places::default();
    let owned = |(name, path): (&str, &str)| (name.to_owned(), PathBuf::from(path));
    if source.contains("MesonpyMetaFinder(") {
        // meson-python: `install('name', {'module'}, '/build/folder', …)`, without the name before 0.16. The install plan in the
        // build folder lists every file.
        let calls = literal::calls(source, "\ninstall");
        let mut texts = calls.last()?.iter().filter_map(Literal::text);
        let build = texts.find(|text| text.starts_with('/'))?;
        let plan = fs::read(Path::new(build).join("meson-info/intro-install_plan.json")).ok()?;
        places.files = install_plan(&plan);
        return Some((EditableForm::Meson, places));
    }
    if let Some(mapping) = literal::assigned(source, "MAPPING").filter(|_| source.contains("__editable__")) {
        places.modules = mapping.texts().into_iter().map(owned).collect();
        return Some((EditableForm::Finder, places));
    }
    if source.contains("from editables") {
        let mapped = literal::calls(source, "map_module");
        let pairs = mapped.iter().filter_map(|arguments| Some((arguments.first()?.text()?, arguments.get(1)?.text()?)));
        places.modules = pairs.map(owned).collect();
        return Some((EditableForm::Proxy, places));
    }
    if source.contains("ScikitBuildRedirectingFinder") {
        // scikit-build-core: the first argument maps names to source files; built files are in site-packages.
        let calls = literal::calls(source, "\ninstall");
        places.modules = calls.last()?.first().map(Literal::texts)?.into_iter().map(owned).collect();
        return Some((EditableForm::Redirect, places));
    }
    None
}

/// The files of meson's install plan that go to site-packages.
fn install_plan(bytes: &[u8]) -> Vec<(Vec<u8>, PathBuf)> {
    let plan: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let sections = plan.as_object().into_iter().flatten().filter_map(|(_, section)| section.as_object());
    let files = sections.flatten().filter_map(|(source, entry)| {
        let destination = entry.get("destination")?.as_str()?;
        let place = destination.strip_prefix("{py_platlib}/").or(destination.strip_prefix("{py_purelib}/"))?;
        Some((place.as_bytes().to_vec(), PathBuf::from(source)))
    });
    files.collect()
}

/// A package's folder or a module's file: its dotted name, its path relative to site-packages, its path on disk.
pub(super) type Resolved = (String, Vec<u8>, PathBuf);

/// Finds the folders and files of `modules`, and the names without any. Names below a package that exists as a whole belong to
/// that package.
pub(super) fn resolve(modules: &[(String, PathBuf)], soabi: &str) -> (Vec<Resolved>, Vec<String>) {
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for (name, path) in modules {
        let place = name.replace('.', "/").into_bytes();
        let folder = path.file_name().is_some_and(|n| n == "__init__.py").then(|| path.parent()).flatten();
        let paths = folder.map_or_else(|| module_files(path, soabi), |folder| vec![folder.to_owned()]);
        if paths.is_empty() {
            lost.push(name.clone());
        }
        for path in paths {
            let file = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
            let above = place.iter().rposition(|b| *b == b'/').and_then(|at| place.get(..at)).unwrap_or_default();
            let place = if path.is_dir() { place.clone() } else { walk::join(above, file) };
            found.push((name.clone(), place, path));
        }
    }
    let packages: Vec<(Vec<u8>, PathBuf)> =
        found.iter().filter(|(.., path)| path.is_dir()).map(|(_, place, path)| (place.clone(), path.clone())).collect();
    // `a.b` at `/src/a/b` is part of the package `a` at `/src/a`.
    let is_part = |place: &[u8], path: &Path| {
        let expected = |(package, folder): &(Vec<u8>, PathBuf)| {
            below(place, package).map(|rest| folder.join(OsStr::from_bytes(rest)))
        };
        packages.iter().filter_map(expected).any(|expected| expected == path)
    };
    found.retain(|(_, place, path)| !is_part(place, path));
    (found, lost)
}

/// The package's folder at a path without extension, otherwise the module's files.
pub(super) fn module_files(path: &Path, soabi: &str) -> Vec<PathBuf> {
    if path.join("__init__.py").is_file() || path.is_file() {
        return vec![path.to_owned()];
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str)) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| {
            let file = entry.file_name();
            let file = file.as_bytes();
            module_name(file) == Some(name) && !file.ends_with(b".pyc") && !is_of_other_abi(file, soabi)
        })
        .map(|entry| entry.path())
        .collect();
    files.sort();
    if files.is_empty() && path.is_dir() {
        files.push(path.to_owned());
    }
    files
}

/// Whether a file is an extension compiled for another interpreter: `x.cpython-310-x86_64-linux-gnu.so`.
pub(super) fn is_of_other_abi(file: &[u8], soabi: &str) -> bool {
    let Ok(name) = std::str::from_utf8(file) else { return false };
    name.ends_with(".so")
        && (name.contains(".cpython-") || name.contains(".pypy"))
        && !name.contains(&format!(".{soabi}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_module_of_every_backend() {
        let finder =
            "import sys\nMAPPING: dict[str, str] = {'a': '/p/a', 'ns.b': '/p/ns/b'}\nPATH = '__editable__.a'\n";
        let proxy = "from editables.redirector import RedirectingFinder as F\nF.install()\nF.map_module('a', '/p/a/__init__.py')";
        let redirect = "class ScikitBuildRedirectingFinder: pass\ndef install(x): pass\n\ninstall({'a': '/p/a/__init__.py', 'a.m': '/p/a/m.py'}, {'a._c': 'a/_c.so'}, None)";
        let pairs =
            |pairs: &[(&str, &str)]| -> Vec<_> { pairs.iter().map(|(n, p)| ((*n).to_owned(), (*p).into())).collect() };
        for (source, form, modules) in [
            (finder, EditableForm::Finder, pairs(&[("a", "/p/a"), ("ns.b", "/p/ns/b")])),
            (proxy, EditableForm::Proxy, pairs(&[("a", "/p/a/__init__.py")])),
            (redirect, EditableForm::Redirect, pairs(&[("a", "/p/a/__init__.py"), ("a.m", "/p/a/m.py")])),
        ] {
            let found = generated_module(source).expect("known");
            assert_eq!(found, (form, Places { modules, ..Places::default() }));
        }
        assert_eq!(generated_module("import os\nMAPPING = {'a': 'b'}\n"), None);
    }

    #[test]
    fn loaders_of_meson_python_lead_to_the_build_folder() {
        let directory = tempfile::tempdir().expect("a directory");
        let build = directory.path().display();
        fs::create_dir(directory.path().join("meson-info")).expect("makes");
        let plan = r#"{"python": {"/s/a.py": {"destination": "{py_purelib}/a.py"}}}"#;
        fs::write(directory.path().join("meson-info/intro-install_plan.json"), plan).expect("writes");
        let loader = "class MesonpyMetaFinder(importlib.abc.MetaPathFinder):\n    pass\n\n\
            def install(package_name, names, path, cmd, verbose):\n    \
                finder = MesonpyMetaFinder(package_name, names, path, cmd, verbose)\n";
        for (release, before) in [("0.15", ""), ("0.20", "    'a-b',\n")] {
            let call =
                format!("\ninstall(\n{before}    {{'a'}},\n    '{build}',\n    ['/v/bin/ninja'],\n    False,\n)");
            let (form, places) = generated_module(&format!("{loader}{call}")).expect("known");
            let files = vec![(b"a.py".to_vec(), PathBuf::from("/s/a.py"))];
            assert_eq!((form, places), (EditableForm::Meson, Places { files, ..Places::default() }), "{release}");
        }
    }

    #[test]
    fn meson_install_plan_is_parsed() {
        let plan = br#"{"targets": {"/b/_c.so": {"destination": "{py_platlib}/a/_c.so", "tag": "runtime"}},
            "python": {"/s/a/__init__.py": {"destination": "{py_purelib}/a/__init__.py"}},
            "man": {"/s/a.1": {"destination": "{mandir}/a.1"}}}"#;
        let mut files = install_plan(plan);
        files.sort();
        assert_eq!(
            files,
            [(b"a/__init__.py".to_vec(), "/s/a/__init__.py".into()), (b"a/_c.so".to_vec(), "/b/_c.so".into())]
        );
        assert_eq!(install_plan(b"["), []);
    }

    #[test]
    fn editable_names_are_resolved_to_folders_and_files() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for file in [
            "a/__init__.py",
            "a/m.py",
            "top.cpython-311-x86_64-linux-gnu.so",
            "top.cpython-310-x86_64-linux-gnu.so",
            "top/c.c",
            "ns/b/__init__.py",
            "ns/c.py",
            "bare/x.py",
        ] {
            fs::create_dir_all(root.join(file).parent().expect("a parent")).expect("makes");
            fs::write(root.join(file), "").expect("writes");
        }
        let names = ["a", "a.m", "top", "ns.b", "ns.c", "bare", "gone"];
        let modules = names.map(|name| (name.to_owned(), root.join(name.replace('.', "/")))).to_vec();
        let (found, lost) = resolve(&modules, "cpython-311-x86_64-linux-gnu");
        let found: Vec<_> = found.iter().map(|(n, place, _)| (n.as_str(), String::from_utf8_lossy(place))).collect();
        let expected = [
            ("a", "a"),
            ("top", "top.cpython-311-x86_64-linux-gnu.so"),
            ("ns.b", "ns/b"),
            ("ns.c", "ns/c.py"),
            ("bare", "bare"),
        ];
        assert_eq!(found, expected.map(|(n, p)| (n, p.into())));
        assert_eq!(lost, ["gone"]);
    }
}
