//! Finds the import names of a project of which only the path of its sources is known.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::super::names::{import_name, is_identifier, is_module};
use super::backend::Declared;
use super::imports::imported;

/// Names at the top of a project's own folder that are not meant to be installed: those that setuptools' automatic
/// discovery leaves out of a flat layout, without those that are not importable anyway.
const NOT_INSTALLED: &[&str] = &[
    "benchmark",
    "benchmarks",
    "bin",
    "build",
    "changelog",
    "ci",
    "conanfile",
    "conftest",
    "debian",
    "dist",
    "doc",
    "docs",
    "documentation",
    "dodo",
    "example",
    "examples",
    "exercise",
    "exercises",
    "fabfile",
    "htmlcov",
    "manage",
    "manpages",
    "news",
    "newsfragments",
    "noxfile",
    "pavement",
    "python",
    "scripts",
    "setup",
    "tasks",
    "test",
    "tests",
    "tools",
    "toxfile",
    "unit_test",
    "unit_tests",
    "util",
    "utils",
];

/// Names that nothing declares and whose folder is larger than this are data with some code in them.
const LARGE: u64 = 64 << 20;

/// What a folder on the path provides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Provided {
    /// Top-level names that belong to the overlay, sorted.
    pub(super) names: Vec<String>,
    /// Top-level names that can be imported in the virtual environment and are left out, sorted.
    pub(super) left_out: Vec<String>,
}

/// What is known about a project whose folder is on the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// The project's folder.
    pub(super) dir: &'a Path,
    /// `top_level.txt`, if it has one.
    pub(super) top_level: Option<&'a str>,
    /// What its build backend is told.
    pub(super) declared: &'a Declared,
    /// Modules of its entry points.
    pub(super) entry_points: &'a [String],
}

/// What `root`, a folder on the path, provides.
///
/// All that can be imported there, as in the virtual environment: a project runs with what its folder happens to have, too.
/// From the project's own folder what is not code of the project is left out: names that automatic discovery of setuptools
/// leaves out, and large folders; unless the project's settings, metadata or entry points name them, or what is taken imports
/// them.
pub(super) fn provided(root: &Path, is_project_folder: bool, known: Known<'_>) -> Provided {
    let there = importable(root);
    if !is_project_folder {
        return Provided { names: there.into_iter().collect(), left_out: Vec::new() };
    }
    let tops = |text: &str| text.trim().split(['/', '.', ':']).next().unwrap_or("").to_owned();
    let mut named: BTreeSet<String> = known.top_level.unwrap_or_default().lines().map(tops).collect();
    named.extend(known.entry_points.iter().map(|module| tops(module)));
    let [real, dir] = [root, known.dir].map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()));
    let is_named = |name: &str| named.contains(name) || known.declared.has(name, &real, &dir);
    let is_taken = |name: &String| {
        is_named(name) || (!NOT_INSTALLED.contains(&name.as_str()) && !is_larger(&root.join(name), &mut { LARGE }))
    };
    let (mut names, mut left_out): (BTreeSet<String>, BTreeSet<String>) = there.into_iter().partition(is_taken);
    let mut new: Vec<String> = names.iter().cloned().collect();
    while !left_out.is_empty() && !new.is_empty() {
        let wanted: BTreeSet<String> = new.iter().flat_map(|name| imported_by(root, name)).collect();
        new = left_out.intersection(&wanted).cloned().collect();
        left_out.retain(|name| !new.contains(name));
        names.extend(new.iter().cloned());
    }
    Provided { names: names.into_iter().collect(), left_out: left_out.into_iter().collect() }
}

/// What the module or package `name` in `root` imports.
fn imported_by(root: &Path, name: &str) -> BTreeSet<String> {
    let mut names = imported(&root.join(format!("{name}.py")));
    names.extend(imported(&root.join(name)));
    names
}

/// Whether the files in a folder take more than `rest` bytes, which is what is left of them otherwise.
fn is_larger(folder: &Path, rest: &mut u64) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => return is_larger(&entry.path(), rest),
            Ok(kind) if kind.is_file() => {}
            _ => return false,
        }
        let size = entry.metadata().map_or(0, |m| m.len());
        let more = size > *rest;
        *rest = rest.saturating_sub(size);
        more
    })
}

/// The names at the top of `root` that can be imported: modules, and folders with a module somewhere in them.
fn importable(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let file = entry.file_name();
        if fs::metadata(entry.path()).ok()?.is_dir() {
            let name = file.to_str().filter(|n| is_identifier(n) && *n != "__pycache__")?;
            let is_environment = entry.path().join("pyvenv.cfg").is_file();
            return (!is_environment && has_modules(&entry.path(), 0)).then(|| name.to_owned());
        }
        import_name(file.as_bytes()).filter(|name| !matches!(*name, "__init__" | "__main__")).map(str::to_owned)
    };
    entries.filter_map(name).collect()
}

/// Whether there is a module in `folder`, directly or a few levels below.
fn has_modules(folder: &Path, depth: usize) -> bool {
    let entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    let is_dir = |entry: &&fs::DirEntry| entry.file_type().is_ok_and(|t| t.is_dir());
    entries.iter().any(|e| is_module(e.file_name().as_bytes()))
        || depth < 4
            && entries.iter().filter(is_dir).any(|e| {
                let name = e.file_name();
                name.to_str().is_some_and(|n| is_identifier(n) && n != "__pycache__")
                    && has_modules(&e.path(), depth + 1)
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(path, text).expect("writes");
        }
    }

    #[test]
    fn project_names_by_configuration_and_layout() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        write(
            root,
            &[
                ("my_app/__init__.py", "import single"),
                ("ns/deep/mod.py", ""),
                ("tests/test_a.py", ""),
                ("tools/__init__.py", "from scripts.x import y"),
                ("scripts/x.py", ""),
                ("docs/index.md", ""),
                ("__init__.py", ""),
                ("_version.py", ""),
                ("setup.py", ""),
                ("single.py", ""),
                ("data/x.csv", ""),
                ("env/pyvenv.cfg", ""),
                ("env/x.py", ""),
            ],
        );
        let code = ["_version", "my_app", "ns", "single"];
        let hatch = "[tool.hatch.build.targets.wheel]\npackages = [\"tools\"]";
        for (flat, top_level, entry, configuration, more, left_out) in [
            (true, None, "", "", &[][..], &["scripts", "setup", "tests", "tools"][..]),
            (false, None, "", "", &["scripts", "setup", "tests", "tools"], &[]),
            (true, Some("tests\nns\n\n"), "", "", &["tests"], &["scripts", "setup", "tools"]),
            (true, None, "setup:main", "", &["setup"], &["scripts", "tests", "tools"]),
            (true, None, "", hatch, &["scripts", "tools"], &["setup", "tests"]),
        ] {
            let table: toml::Table = configuration.parse().expect("valid");
            let declared = Declared::read(Some(&table), None);
            let known = Known { dir: root, top_level, declared: &declared, entry_points: &[entry.to_owned()] };
            let found = provided(root, flat, known);
            let mut expected: Vec<&str> = code.iter().chain(more).copied().collect();
            expected.sort_unstable();
            assert_eq!(
                (found.names, found.left_out),
                (owned(&expected), owned(left_out)),
                "{flat} {top_level:?} {entry}"
            );
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn large_folders_are_data_unless_they_are_imported() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        write(root, &[("a.py", ""), ("big/code.py", ""), ("big/deep/x", "")]);
        let big = fs::File::create(root.join("big/deep/x")).expect("opens");
        big.set_len(LARGE + 1).expect("is sparse");
        let declared = Declared::default();
        let known = Known { dir: root, top_level: None, declared: &declared, entry_points: &[] };
        assert_eq!(provided(root, true, known), Provided { names: owned(&["a"]), left_out: owned(&["big"]) });
        write(root, &[("a.py", "import big.code")]);
        assert_eq!(provided(root, true, known), Provided { names: owned(&["a", "big"]), left_out: Vec::new() });
    }
}
