//! Finds the import names of a project of which only the path of its sources is known.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use toml::{Table, Value};

use super::super::names::{import_name, is_identifier, is_module};

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

/// The sorted top-level names that the project `name` provides in `root`, a folder on `sys.path`.
///
/// `top_level` is the project's `top_level.txt`, `configuration` its `pyproject.toml`. Without either, a folder of sources
/// provides everything that can be imported from it; the project's own folder provides the package with the project's name,
/// otherwise what setuptools' automatic discovery would take.
pub(super) fn provided_names(
    root: &Path,
    is_project_folder: bool,
    name: &str,
    top_level: Option<&str>,
    configuration: Option<&Table>,
) -> Vec<String> {
    let there = importable(root);
    let only = |names: Vec<String>| -> Vec<String> { names.into_iter().filter(|n| there.contains(n)).collect() };
    if let Some(text) = top_level {
        let names =
            only(text.lines().map(|line| line.trim().split(['/', '.']).next().unwrap_or("").to_owned()).collect());
        if !names.is_empty() {
            return sorted(names);
        }
    }
    let configured = only(configuration.map(configured_names).unwrap_or_default());
    if !configured.is_empty() {
        return sorted(configured);
    }
    if !is_project_folder {
        return there.into_iter().collect();
    }
    let own = name.replace('-', "_");
    let own: Vec<String> = there.iter().filter(|n| n.to_lowercase() == own).cloned().collect();
    if !own.is_empty() {
        return own;
    }
    there.into_iter().filter(|n| !n.starts_with('_') && !NOT_INSTALLED.contains(&n.as_str())).collect()
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names.dedup();
    names
}

/// The names at the top of `root` that can be imported: modules, and folders with a module somewhere in them.
fn importable(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let file = entry.file_name();
        if fs::metadata(entry.path()).ok()?.is_dir() {
            let name = file.to_str().filter(|n| is_identifier(n) && *n != "__pycache__")?;
            return has_modules(&entry.path(), 0).then(|| name.to_owned());
        }
        import_name(file.as_bytes()).map(str::to_owned)
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

/// The names in the settings of build backends in `pyproject.toml`.
fn configured_names(configuration: &Table) -> Vec<String> {
    let tool = |path: &[&str]| -> Option<&Value> {
        let (last, tables) = path.split_last()?;
        let tool = configuration.get("tool")?.as_table()?;
        tables.iter().try_fold(tool, |table, key| table.get(*key)?.as_table())?.get(*last)
    };
    let texts = |value: Option<&Value>| -> Vec<String> {
        let one = |value: &Value| value.as_str().map(str::to_owned);
        match value {
            Some(Value::Array(values)) => values.iter().filter_map(one).collect(),
            value => value.and_then(one).into_iter().collect(),
        }
    };
    let last_component = |path: String| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let first_component = |name: String| name.split(['.', '/']).next().unwrap_or_default().to_owned();

    let hatch = texts(tool(&["hatch", "build", "targets", "wheel", "packages"]));
    let mut names: Vec<String> = hatch.into_iter().map(last_component).collect();
    let poetry = tool(&["poetry", "packages"]).and_then(Value::as_array).into_iter().flatten();
    let poetry = poetry.filter_map(|package| package.as_table()?.get("include")?.as_str());
    let dotted = [
        texts(tool(&["flit", "module", "name"])),
        texts(tool(&["maturin", "module-name"])),
        texts(tool(&["maturin", "python-packages"])),
        texts(tool(&["uv", "build-backend", "module-name"])),
    ];
    names.extend(poetry.map(|include| first_component(include.trim_end_matches(".py").to_owned())));
    names.extend(dotted.into_iter().flatten().map(first_component));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names_by_configuration_and_layout() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        for file in [
            "my_app/__init__.py",
            "ns/deep/mod.py",
            "tests/test_a.py",
            "docs/index.md",
            "setup.py",
            "single.py",
            "data/x.csv",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(path, "").expect("writes");
        }
        let poetry = "[tool.poetry]\npackages = [{include = \"ns\"}, {include = \"single.py\"}, {include = \"gone\"}]";
        let hatch = "[tool.hatch.build.targets.wheel]\npackages = [\"src/my_app\", \"ns/\"]";
        let maturin = "[tool.maturin]\nmodule-name = \"my_app._native\"";
        for (flat, name, top_level, configuration, expected) in [
            (true, "my-app", None, "", &["my_app"][..]),
            (true, "other", None, "", &["my_app", "ns", "single"]),
            (false, "my-app", None, "", &["my_app", "ns", "setup", "single", "tests"]),
            (true, "my-app", Some("single\nns\n\n"), hatch, &["ns", "single"]),
            (true, "my-app", Some("gone\n"), hatch, &["my_app", "ns"]),
            (true, "my-app", None, poetry, &["ns", "single"]),
            (true, "x", None, maturin, &["my_app"]),
            (true, "x", None, "[tool.flit.module]\nname = \"ns.deep\"", &["ns"]),
            (true, "x", None, "[tool.uv.build-backend]\nmodule-name = [\"single\", \"ns.a\"]", &["ns", "single"]),
        ] {
            let table: Table = configuration.parse().expect("valid");
            let found = provided_names(root, flat, name, top_level, Some(&table));
            assert_eq!(found, expected, "{flat} {name} {top_level:?} {configuration}");
        }
    }
}
