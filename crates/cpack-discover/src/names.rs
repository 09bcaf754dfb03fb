//! Names that can be imported.

use std::collections::BTreeSet;

use super::model::FileStat;
use super::prefix_files::below;

/// The sorted top-level names that can be imported from `files`: modules, compiled modules, packages and namespace packages
/// in the folder `at`. A folder without a module is data.
pub(super) fn import_names<'a>(files: impl IntoIterator<Item = &'a FileStat>, at: &[u8]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for file in files {
        if let Some(name) = below(file.path.as_bytes(), at).and_then(import_name)
            && !names.contains(name)
        {
            names.insert(name.to_owned());
        }
    }
    names.into_iter().collect()
}

/// The top-level name of the module at `path`, which is relative to a folder on `sys.path`.
pub(super) fn import_name(path: &[u8]) -> Option<&str> {
    let file = path.rsplit(|b| *b == b'/').next()?;
    if !is_module(file) {
        return None;
    }
    let top = path.split(|b| *b == b'/').next()?;
    let name = if top.len() == path.len() { module_name(top)? } else { std::str::from_utf8(top).ok()? };
    (name != "__pycache__" && is_identifier(name)).then_some(name)
}

/// Whether the file is a source, a compiled extension, or byte-code without source.
pub(super) fn is_module(name: &[u8]) -> bool {
    [&b".py"[..], b".so", b".pyc"].iter().any(|extension| name.ends_with(extension))
}

/// The name of a module without its extension, which may have dots: `x.cpython-311-x86_64-linux-gnu.so`.
pub fn module_name(file: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(file).ok()?;
    if name.ends_with(".so") {
        return name.split('.').next();
    }
    name.strip_suffix(".py").or_else(|| name.strip_suffix(".pyc"))
}

/// Whether `name` is an identifier of Python, approximately.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c == '_' || c.is_alphabetic())
        && characters.all(|c| c == '_' || c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_name_of_paths() {
        for (path, expected) in [
            ("six.py", Some("six")),
            ("_cffi_backend.cpython-311-x86_64-linux-gnu.so", Some("_cffi_backend")),
            ("x.abi3.so", Some("x")),
            ("numpy/core/a.py", Some("numpy")),
            ("nvidia/cublas/lib/libcublas.so.12", None),
            ("google/cloud/storage/__init__.py", Some("google")),
            ("numpy.libs/libgfortran.so", None),
            ("a-1.0.dist-info/METADATA", None),
            ("a.egg-info/x.py", None),
            ("__pycache__/six.cpython-311.pyc", None),
            ("data/table.csv", None),
            ("1x.py", None),
            ("old.pyc", Some("old")),
            ("my.mod.py", None),
        ] {
            assert_eq!(import_name(path.as_bytes()), expected, "{path}");
        }
    }
}
