//! What a conda environment says about its activation: variables, and scripts.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The value by which conda notes that a variable is to be removed.
const UNSET: &str = "***unset***";

/// The variables that `etc/conda/env_vars.d/*.json` and `conda-meta/state` declare, the later ones last; `None` removes one.
pub fn declared_variables(prefix: &Path) -> BTreeMap<String, Option<String>> {
    let declared = files(&prefix.join("etc/conda/env_vars.d"), "json");
    let declared = declared.iter().filter_map(|path| read_json(path));
    let state =
        read_json(&prefix.join("conda-meta/state")).and_then(|mut state| Some(state.get_mut("env_vars")?.take()));
    let mut variables = BTreeMap::new();
    for object in declared.chain(state) {
        let pairs = object.as_object().into_iter().flatten();
        let texts = pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        variables.extend(texts.map(|(name, value)| (name, Some(value).filter(|value| value != UNSET))));
    }
    variables
}

/// The scripts in `etc/conda/activate.d`, in the order in which conda sources them.
pub fn activation_scripts(prefix: &Path) -> Vec<PathBuf> {
    files(&prefix.join("etc/conda/activate.d"), "sh")
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The files with this extension, in the order of their names.
fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_declarations_count_and_unset_removes() {
        let prefix = tempfile::tempdir().expect("a directory");
        for (name, text) in [
            ("etc/conda/env_vars.d/a.json", r#"{"A": "1", "B": "1", "N": 3}"#),
            ("etc/conda/env_vars.d/b.json", r#"{"B": "2"}"#),
            ("conda-meta/state", r#"{"version": 1, "env_vars": {"A": "***unset***"}}"#),
            ("etc/conda/activate.d/z.sh", ""),
            ("etc/conda/activate.d/a.sh", ""),
            ("etc/conda/activate.d/a.fish", ""),
        ] {
            let path = prefix.path().join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("creates");
            fs::write(path, text).expect("writes");
        }
        let expected = [("A".to_owned(), None), ("B".to_owned(), Some("2".to_owned()))];
        assert_eq!(declared_variables(prefix.path()), expected.into());
        let scripts = ["a.sh", "z.sh"].map(|name| prefix.path().join("etc/conda/activate.d").join(name));
        assert_eq!(activation_scripts(prefix.path()), scripts);
    }
}
