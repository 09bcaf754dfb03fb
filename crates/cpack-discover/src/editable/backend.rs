//! What build backends are told about a project's packages, in `pyproject.toml` and `setup.cfg`.
//!
//! An editable installation puts folders on the path, and all that is in them can be imported. The settings are read for the
//! names that would be taken for something else than code of the project, such as a package `tools` in the project's own
//! folder: what a backend is told to pack belongs to the overlay under any name.
//!
//! | backend | settings |
//! | --- | --- |
//! | hatchling | `packages`, `only-include`, `include`, `force-include` of `build` and of its target `wheel` |
//! | pdm-backend | `includes`, `source-includes`, `package-dir` |
//! | flit | `module.name` |
//! | poetry | `packages` (`from`, `include`), `include` |
//! | uv | `module-name`, `module-root` |
//! | setuptools | `packages`, `packages.find.include`, `py-modules`, in `setup.cfg` too; `top_level.txt` has the rest |
//! | maturin | `module-name`, `python-packages` |
//! | scikit-build-core | `wheel.packages` |
//!
//! meson-python and the exact forms of the others name each module or file in what they install.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

/// What the settings of a project name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    /// Paths relative to the project's folder, up to the first pattern in them.
    pub(super) paths: Vec<PathBuf>,
    /// Dotted names of packages and modules; one that ends in `*` stands for all that begin so.
    pub(super) names: Vec<String>,
}

impl Declared {
    /// What `configuration` and the text of `setup.cfg` say.
    pub(super) fn read(configuration: Option<&Table>, setup_cfg: Option<&str>) -> Self {
        let mut declared = Self::default();
        if let Some(tool) = configuration.and_then(|c| c.get("tool")?.as_table()) {
            declared.read_paths(tool);
            declared.read_names(tool);
            declared.read_poetry(tool);
        }
        declared.names.extend(setup_cfg.map(setup_cfg_names).into_iter().flatten());
        declared.names.retain(|name| name != "*");
        declared
    }

    /// Whether `name`, at the top of the folder `root` of the project in `dir`, is one of them.
    pub(super) fn has(&self, name: &str, root: &Path, dir: &Path) -> bool {
        let is_first = |path: &PathBuf| {
            let below = dir.join(path);
            let first = below.strip_prefix(root).ok().and_then(|rest| rest.components().next());
            let Some(Component::Normal(first)) = first else { return false };
            first.to_str().is_some_and(|first| first.split('.').next() == Some(name))
        };
        let is_named = |declared: &String| match declared.strip_suffix('*') {
            Some(start) => name.starts_with(start.split('.').next().unwrap_or_default()),
            None => declared.split(['.', '/']).next() == Some(name),
        };
        self.names.iter().any(is_named) || self.paths.iter().any(is_first)
    }

    fn read_paths(&mut self, tool: &Table) {
        for base in [&["hatch", "build"][..], &["hatch", "build", "targets", "wheel"]] {
            for key in ["packages", "only-include", "include"] {
                self.paths.extend(texts(at(tool, base, key)).iter().map(|text| plain(text)));
            }
            let forced = at(tool, base, "force-include").and_then(Value::as_table).into_iter().flatten();
            self.paths.extend(forced.filter_map(|(_, to)| to.as_str()).map(plain));
        }
        for key in ["includes", "source-includes"] {
            self.paths.extend(texts(at(tool, &["pdm", "build"], key)).iter().map(|text| plain(text)));
        }
        let scikit = at(tool, &["scikit-build", "wheel"], "packages");
        self.paths.extend(texts(scikit).iter().map(|text| plain(text)));
        let mapped = scikit.and_then(Value::as_table).into_iter().flatten();
        self.paths.extend(mapped.filter_map(|(_, from)| from.as_str()).map(plain));
    }

    fn read_names(&mut self, tool: &Table) {
        for (base, key) in [
            (&["flit", "module"][..], "name"),
            (&["maturin"], "module-name"),
            (&["maturin"], "python-packages"),
            (&["uv", "build-backend"], "module-name"),
            (&["setuptools"], "packages"),
            (&["setuptools"], "py-modules"),
            (&["setuptools", "packages", "find"], "include"),
        ] {
            self.names.extend(texts(at(tool, base, key)));
        }
    }

    fn read_poetry(&mut self, tool: &Table) {
        let list = |key| at(tool, &["poetry"], key).and_then(Value::as_array).into_iter().flatten();
        for package in list("packages").filter_map(Value::as_table) {
            let text = |key| package.get(key).and_then(Value::as_str);
            if let Some(include) = text("include") {
                self.paths.push(Path::new(text("from").unwrap_or_default()).join(plain(include)));
            }
        }
        for include in list("include") {
            let path = include.as_str().or_else(|| include.as_table()?.get("path")?.as_str());
            self.paths.extend(path.map(plain));
        }
    }
}

fn at<'a>(tool: &'a Table, tables: &[&str], key: &str) -> Option<&'a Value> {
    tables.iter().try_fold(tool, |table, key| table.get(*key)?.as_table())?.get(key)
}

/// A string, or the strings of a list.
fn texts(value: Option<&Value>) -> Vec<String> {
    let one = |value: &Value| value.as_str().map(str::to_owned);
    match value {
        Some(Value::Array(values)) => values.iter().filter_map(one).collect(),
        value => value.and_then(one).into_iter().collect(),
    }
}

/// The components of a path before the first pattern. What begins with `/` is relative to the project's folder, too.
fn plain(text: &str) -> PathBuf {
    let parts = text.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.take_while(|part| !part.contains(['*', '?', '[', '!'])).collect()
}

/// `packages` and `py_modules` of the section `options`, and `include` of `options.packages.find`.
fn setup_cfg_names(text: &str) -> Vec<String> {
    let (mut names, mut section, mut key) = (Vec::new(), "", "");
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let mut value = trimmed;
        if !line.starts_with([' ', '\t']) {
            if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                (section, key) = (name, "");
                continue;
            }
            let Some((name, rest)) = trimmed.split_once(['=', ':']) else { continue };
            (key, value) = (name.trim(), rest.trim());
        }
        let wanted =
            matches!((section, key), ("options", "packages" | "py_modules") | ("options.packages.find", "include"));
        if wanted && !value.starts_with("find") {
            names.extend(value.split([',', ' ', '\t']).filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of these names, at the top of `root` in the project `/p`, the settings name.
    fn named(configuration: &str, setup_cfg: &str, root: &str) -> Vec<&'static str> {
        let table: Table = configuration.parse().expect("valid");
        let declared = Declared::read(Some(&table), Some(setup_cfg));
        let names = ["alpha", "docs", "tools", "utils", "tests"];
        names.into_iter().filter(|name| declared.has(name, Path::new(root), Path::new("/p"))).collect()
    }

    #[test]
    fn every_backend_s_settings_are_read() {
        for (configuration, root, expected) in [
            ("[tool.hatch.build.targets.wheel]\nonly-include = [\"alpha\", \"tools\"]", "/p", &["alpha", "tools"][..]),
            (
                "[tool.hatch.build.targets.wheel]\npackages = [\"src/alpha\", \"src/tools/\"]",
                "/p/src",
                &["alpha", "tools"],
            ),
            ("[tool.hatch.build.targets.wheel]\npackages = [\"src/alpha\"]", "/p", &[]),
            ("[tool.hatch.build]\ninclude = [\"/alpha/**\", \"utils/*.py\", \"*.md\"]", "/p", &["alpha", "utils"]),
            ("[tool.hatch.build.targets.wheel.force-include]\n\"../x\" = \"docs/x\"", "/p", &["docs"]),
            ("[tool.pdm.build]\nincludes = [\"alpha\", \"tests/*.py\"]", "/p", &["alpha", "tests"]),
            ("[tool.flit.module]\nname = \"tools.deep\"", "/p", &["tools"]),
            ("[tool.poetry]\npackages = [{include = \"tools\"}, {include = \"utils.py\"}]", "/p", &["tools", "utils"]),
            ("[tool.poetry]\npackages = [{include = \"tools\", from = \"lib\"}]", "/p/lib", &["tools"]),
            (
                "[tool.poetry]\ninclude = [\"docs/**/*.py\", {path = \"tests\", format = \"sdist\"}]",
                "/p",
                &["docs", "tests"],
            ),
            ("[tool.uv.build-backend]\nmodule-name = [\"alpha\", \"tools.a\"]", "/p", &["alpha", "tools"]),
            ("[tool.setuptools]\npackages = [\"tools.x\"]\npy-modules = [\"utils\"]", "/p", &["tools", "utils"]),
            ("[tool.setuptools.packages.find]\ninclude = [\"al*\", \"too*\"]", "/p", &["alpha", "tools"]),
            ("[tool.setuptools.packages.find]\ninclude = [\"*\"]", "/p", &[]),
            (
                "[tool.maturin]\nmodule-name = \"alpha._native\"\npython-packages = [\"tools\"]",
                "/p",
                &["alpha", "tools"],
            ),
            ("[tool.scikit-build]\nwheel.packages = [\"python/tools\"]", "/p/python", &["tools"]),
            ("[tool.scikit-build.wheel.packages]\ntools = \"python/tools\"", "/p/python", &["tools"]),
        ] {
            assert_eq!(named(configuration, "", root), expected, "{configuration}");
        }
    }

    #[test]
    fn setup_cfg_is_read() {
        let text =
            "[metadata]\nname = docs\n[options]\npackages =\n    tools\n    alpha.b\n# docs\npy_modules = utils, x\n";
        assert_eq!(named("", text, "/p"), ["alpha", "tools", "utils"]);
        let find = "[options]\npackages = find:\n[options.packages.find]\ninclude = tests*\n";
        assert_eq!(named("", find, "/p"), ["tests"]);
    }
}
