//! Which modules sources mention in their `import` statements. Text is read, nothing is run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Sources above this size are generated, and import little.
const MAX_SOURCE: u64 = 1 << 20;

/// The top-level names that the module or the sources in the folder at `path` import.
pub(super) fn imported(path: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(path, &mut names);
    names
}

fn collect(path: &Path, names: &mut BTreeSet<String>) {
    if !path.is_dir() {
        let is_source = path.extension().is_some_and(|extension| extension == "py");
        if is_source && fs::metadata(path).is_ok_and(|m| m.len() <= MAX_SOURCE) {
            let text = fs::read(path).unwrap_or_default();
            names.extend(of_text(&String::from_utf8_lossy(&text)));
        }
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        // Links may lead in circles.
        if entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            collect(&entry.path(), names);
        }
    }
}

/// What the lines of a source import. A line of a docstring may look like a statement: one name too many does no harm.
fn of_text(text: &str) -> Vec<String> {
    let top = |name: &str| name.trim().split(['.', ' ', '\t', '#', ';']).next().unwrap_or_default().to_owned();
    let mut names = Vec::new();
    for line in text.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("import ") {
            names.extend(rest.split(',').map(top));
        } else if let Some(rest) = line.strip_prefix("from ") {
            names.push(top(rest.trim_start()));
        }
    }
    // What is relative begins with a dot and leaves nothing.
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_read_wherever_they_are() {
        let text = "import a, b.c as d\nfrom e.f import g\nfrom . import h\nfrom .i import j\nif x:\n    import k  # l\n\
                    def f():\n    from m import (\n        n)\nimportant = 1\n";
        assert_eq!(of_text(text), ["a", "b", "e", "k", "m"]);
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("p")).expect("makes");
        fs::write(directory.path().join("p/a.py"), "import x").expect("writes");
        fs::write(directory.path().join("p/a.txt"), "import y").expect("writes");
        assert_eq!(imported(directory.path()), BTreeSet::from(["x".to_owned()]));
    }
}
