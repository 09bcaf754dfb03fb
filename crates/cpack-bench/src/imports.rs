//! The modules that a run imported, as Python reports them, and the distributions that they belong to.
//!
//! `PYTHONPROFILEIMPORTTIME` (`-X importtime`) makes the interpreter write a line for each module when its import ends, so
//! modules come before what imported them:
//!
//! ```text
//! import time: self [us] | cumulative | imported package
//! import time:       123 |        456 |   requests.adapters
//! ```
//!
//! This adds nothing to the environment. It slows imports down, so the profiled run is not one of the timed ones.

use std::collections::HashMap;

use cpack_discover::{Environment, FileStat, module_name};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    /// The full name.
    pub(crate) module: String,
    /// Microseconds without the modules that it imported.
    pub(crate) own_us: u64,
    /// Microseconds with the modules that it imported.
    pub(crate) total_us: u64,
    /// 0 for a module that no other module imported.
    pub(crate) depth: usize,
}

/// Parses the lines of standard error that the interpreter wrote.
pub(crate) fn parse(stderr: &str) -> Vec<Imported> {
    let line = |line: &str| {
        let mut parts = line.strip_prefix("import time:")?.splitn(3, '|');
        let (own, total, name) = (parts.next()?, parts.next()?, parts.next()?);
        // The heading has no numbers.
        let (own_us, total_us) = (own.trim().parse().ok()?, total.trim().parse().ok()?);
        let module = name.trim_start();
        let depth = (name.len() - module.len()).saturating_sub(1) / 2;
        Some(Imported { module: module.trim_end().to_owned(), own_us, total_us, depth })
    };
    stderr.lines().filter_map(line).collect()
}

/// The imported part of a distribution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) modules: u64,
    /// Size of the modules' files.
    pub(crate) bytes: u64,
    /// Microseconds without the modules of other distributions.
    pub(crate) own_us: u64,
}

/// The imported part of each distribution and editable project, by name.
pub(crate) fn by_distribution(environment: &Environment, imported: &[Imported]) -> HashMap<String, Used> {
    let site_packages = format!("{}/", environment.site_packages);
    let distributions = environment.distributions.iter().map(|d| (d.name.as_str(), &d.files[..]));
    let editables = environment.editables.iter().map(|e| (e.name.as_str(), &e.files[..]));
    let mut owners: HashMap<String, (&str, u64)> = HashMap::new();
    for (name, files) in distributions.chain(editables) {
        for file in files {
            let path = file.path.to_string();
            if let Some(module) = module_of(path.strip_prefix(&site_packages).unwrap_or(&path)) {
                add(&mut owners, module, name, file);
            }
        }
    }
    let mut used: HashMap<String, Used> = HashMap::new();
    for each in imported {
        if let Some((name, size)) = owners.get(&each.module) {
            let sum = used.entry((*name).to_owned()).or_default();
            *sum = Used { modules: sum.modules + 1, bytes: sum.bytes + size, own_us: sum.own_us + each.own_us };
        }
    }
    used
}

/// Adds a file's module. An extension module wins over a source of the same name, as in the import system.
fn add<'a>(owners: &mut HashMap<String, (&'a str, u64)>, module: String, name: &'a str, file: &FileStat) {
    let is_extension = file.path.as_bytes().ends_with(b".so");
    if is_extension || !owners.contains_key(&module) {
        owners.insert(module, (name, file.size));
    }
}

/// The module of a file below `site-packages`: `a/b/__init__.py` is `a.b`, `a/c.cpython-311-x86_64-linux-gnu.so` is `a.c`.
fn module_of(path: &str) -> Option<String> {
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    let name = module_name(file.as_bytes()).filter(|_| !file.ends_with(".pyc"))?;
    let parts = directory.split('/').filter(|part| !part.is_empty()).chain((name != "__init__").then_some(name));
    Some(parts.collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_ignores_lines_that_the_interpreter_did_not_write() {
        let said = "warning: x\nimport time: self [us] | cumulative | imported package\n\
            import time:       191 |        191 |     _io\nimport time:        40 |       1231 | site\n";
        let found = parse(said);
        let told: Vec<_> = found.iter().map(|i| (i.module.as_str(), i.own_us, i.total_us, i.depth)).collect();
        assert_eq!(told, [("_io", 191, 191, 2), ("site", 40, 1231, 0)]);
    }

    #[test]
    fn module_of_names_the_module_of_a_file() {
        for (path, module) in [
            ("six.py", Some("six")),
            ("a/__init__.py", Some("a")),
            ("a/b/c.py", Some("a.b.c")),
            ("a/_x.cpython-311-x86_64-linux-gnu.so", Some("a._x")),
            ("_y.abi3.so", Some("_y")),
            ("a/data.json", None),
            ("a/lib/libz.so.1", None),
        ] {
            assert_eq!(module_of(path).as_deref(), module, "{path}");
        }
    }
}
