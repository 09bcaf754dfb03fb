//! The digests that requirements files name.
//!
//! An environment that was made before is used again where the resolution is the same. The resolution names versions, so
//! that the digests must be part of the key: otherwise files that were never compared with them would pass for files that were.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The options `--hash` and `--require-hashes` of `files`, and of the files that they name.
pub(super) fn hashes<'a>(files: impl Iterator<Item = &'a Path>) -> Vec<String> {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    files.for_each(|file| read(file, &mut found, &mut seen));
    found.sort_unstable();
    found.dedup();
    found
}

/// Adds the options of a file that was not `seen` yet. What cannot be read is the tool's affair, which names it.
fn read(file: &Path, found: &mut Vec<String>, seen: &mut HashSet<PathBuf>) {
    let Ok(real) = file.canonicalize() else { return };
    if !seen.insert(real) {
        return;
    }
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    for line in text.lines().map(str::trim) {
        if let Some(nested) = nested(line) {
            read(&file.parent().unwrap_or(Path::new("")).join(nested), found, seen);
        }
        let mut words = line.split_ascii_whitespace().peekable();
        while let Some(word) = words.next() {
            match word {
                "--hash" => found.extend(words.peek().map(|digest| format!("--hash={digest}"))),
                "--require-hashes" => found.push(word.to_owned()),
                _ if word.starts_with("--hash=") => found.push(word.to_owned()),
                _ => {}
            }
        }
    }
}

/// The file that a line names: `-r FILE`, `-c FILE`, and their long forms.
fn nested(line: &str) -> Option<&str> {
    let rest = ["--requirement", "--constraint", "-r", "-c"].iter().find_map(|flag| line.strip_prefix(flag))?;
    let name = rest.trim_start_matches(['=', ' ', '\t']);
    Some(name.split(" #").next().unwrap_or(name).trim()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_all_files_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("r.txt");
        fs::create_dir(directory.path().join("sub")).expect("makes");
        fs::write(directory.path().join("sub/n.txt"), "-c c.txt # pins\n-r n.txt\nb==1 --hash sha256:bb\n")
            .expect("writes");
        fs::write(directory.path().join("sub/c.txt"), "c==1 --hash=sha256:cc\n").expect("writes");
        let text =
            "--require-hashes\na==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n-rsub/n.txt\n-r missing.txt\n";
        fs::write(&path, text).expect("writes");
        let expected = ["--hash=sha256:aa", "--hash=sha256:bb", "--hash=sha256:cc", "--require-hashes"];
        assert_eq!(hashes([path.as_path()].into_iter()), expected);
        fs::write(&path, "a==1\n").expect("writes");
        assert_eq!(hashes([path.as_path()].into_iter()), [""; 0]);
    }
}
