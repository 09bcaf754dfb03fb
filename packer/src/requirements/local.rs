//! Lines of a resolution: which are pins, and which are projects and archives on this disk.
//!
//! uv repeats a path as it was written (`./project`, `wheels/a-1-py3-none-any.whl`), pip and uv name what has a URL
//! (`project @ file:///…`). Both take a relative path as relative to the working directory, not to the requirements file.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What begins the line of an editable project.
const EDITABLE: [&str; 3] = ["-e ", "--editable ", "--editable="];

/// Whether a line is `name==version`: only such may be a constraint, of any other uv and pip say that it has no name.
pub(super) fn is_pin(line: &str) -> bool {
    after_name(line).is_some_and(|rest| rest.starts_with("=="))
}

/// Whether a requirement has a name, so that it can replace what others say of the same project.
pub(super) fn is_named(requirement: &str) -> bool {
    after_name(requirement)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['=', '<', '>', '!', '~', '@', ';', '(']))
}

/// What follows the name and the extras of a requirement; none if it begins with no name.
fn after_name(line: &str) -> Option<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (name, rest) = line.split_at(line.find(|c| !is_name(c)).unwrap_or(line.len()));
    let rest = match rest.trim_start().strip_prefix('[') {
        Some(extras) => extras.split_once(']')?.1,
        None => rest,
    };
    name.starts_with(|c: char| c.is_ascii_alphanumeric()).then(|| rest.trim_start())
}

/// The path of a line that names a directory or an archive on this disk, and whether that is editable.
pub(super) fn path(line: &str) -> Option<(PathBuf, bool)> {
    let editable = EDITABLE.iter().find_map(|flag| line.strip_prefix(flag));
    let place = editable.unwrap_or(line).trim();
    let place = if editable.is_none() && is_named(place) { place.split_once('@')?.1.trim() } else { place };
    // A marker follows a space, which a URL has not.
    let place = place.split(" ;").next().unwrap_or(place).trim();
    let place = match place.strip_prefix("file:") {
        Some(rest) => decoded(rest.strip_prefix("//localhost").or(rest.strip_prefix("//")).unwrap_or(rest)),
        None if place.contains("://") => return None,
        None => place.to_owned(),
    };
    let bare = place.split('#').next().unwrap_or(&place);
    // Extras: `./project[x]`, unless a directory is called so.
    let path = match bare.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        Some((path, _)) if !Path::new(bare).exists() => path,
        _ => bare,
    };
    Some((PathBuf::from(path), editable.is_some()))
}

/// A URL's path with its percent signs resolved.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What tells a line's archive from another one at the same path, and a relative path from that of another directory: for
/// the key of an environment. A directory is looked at again each time, so its path is enough.
pub(super) fn identity(line: &str, directory: &Path) -> Option<String> {
    let (path, _) = path(line)?;
    let path = directory.join(path);
    let stat = fs::metadata(&path).ok().filter(fs::Metadata::is_file);
    let stat = stat.map(|m| format!("{} {} {}", m.len(), m.mtime(), m.mtime_nsec())).unwrap_or_default();
    Some(format!("{} {stat}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_lines_are_told_from_pins() {
        for (line, pin, named, path) in [
            ("six==1.17.0", true, true, None),
            ("a.b_c[x, y]==1 ; python_version < '3.12'", true, true, None),
            ("six", false, true, None),
            ("six>=1", false, true, None),
            ("./proj", false, false, Some(("./proj", false))),
            ("../proj/", false, false, Some(("../proj/", false))),
            ("proj/", false, false, Some(("proj/", false))),
            ("./proj[x]", false, false, Some(("./proj", false))),
            ("/a b/proj", false, false, Some(("/a b/proj", false))),
            ("wheels/p-1.0-py3-none-any.whl", false, false, Some(("wheels/p-1.0-py3-none-any.whl", false))),
            ("p @ file:///a%20b/proj", false, true, Some(("/a b/proj", false))),
            ("p[x] @ file:///p#subdirectory=q ; os_name == 'posix'", false, true, Some(("/p", false))),
            ("file:///a/proj", false, false, Some(("/a/proj", false))),
            ("-e ./proj", false, false, Some(("./proj", true))),
            ("-e file:///proj", false, false, Some(("/proj", true))),
            ("p @ https://host/p-1.0.zip", false, true, None),
            ("p @ git+https://host/p@v1", false, true, None),
            ("https://host/p-1.0.zip", false, false, None),
        ] {
            assert_eq!((is_pin(line), is_named(line)), (pin, named), "{line}");
            let expected = path.map(|(path, editable)| (PathBuf::from(path), editable));
            assert_eq!(super::path(line), expected, "{line}");
        }
    }

    #[test]
    fn local_archives_are_identified_by_their_file_and_directories_by_their_path() {
        let root = tempfile::tempdir().expect("a directory");
        let of = |line: &str| identity(line, root.path()).expect("local");
        fs::write(root.path().join("a.whl"), "1").expect("writes");
        let first = of("./a.whl");
        assert_eq!(first, of("./a.whl"));
        fs::write(root.path().join("a.whl"), "22").expect("writes");
        assert_ne!(first, of("./a.whl"));
        assert_ne!(of("./proj"), identity("./proj", Path::new("/elsewhere")).expect("local"));
        assert_eq!(identity("six==1", root.path()), None);
    }
}
