//! Relative paths that cannot leave their directory.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// The longest path in an archive, in bytes: Linux's `PATH_MAX` (4096) less room for the directory of the node cache.
pub const MAX_PATH: usize = 3072;

/// The longest component, in bytes: Linux's `NAME_MAX`.
const MAX_NAME: usize = 255;

/// A relative path in the form `a/b/c`: no empty, `.` or `..` component, no NUL, no trailing slash.
///
/// Bytes, because file names need not be UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SafePath(Box<[u8]>);

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unsafe path {path:?}: {reason}")]
pub struct PathError {
    /// Lossily decoded and cut at 200 characters.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl SafePath {
    /// Checks `bytes`.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        match fault(bytes) {
            None => Ok(Self(bytes.into())),
            Some(reason) => Err(PathError { path: String::from_utf8_lossy(bytes).chars().take(200).collect(), reason }),
        }
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path relative to its directory.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The components, first to last.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The path without its last component.
    pub fn parent(&self) -> Option<Self> {
        let cut = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0.get(..cut)?.into()))
    }

    /// Whether a symbolic link at this path with this target stays inside the tree, whatever other links the tree has.
    ///
    /// A target may have `..` only at its start, where it leaves the link's own, real directory. In `x/..` the `x` may itself
    /// be a link, and two links that each look harmless lead out together. If each link of a tree passes this check, all of
    /// them stay inside, also in a tree that was merged from several layers. Extraction makes links after all files.
    pub fn link_stays_inside(&self, target: &[u8]) -> bool {
        if target.is_empty() || target.first() == Some(&b'/') || target.contains(&0) || target.len() > MAX_PATH {
            return false;
        }
        let mut depth = self.components().count() - 1;
        let mut named = false;
        for component in target.split(|b| *b == b'/') {
            match component {
                b"" | b"." => {}
                b".." if named || depth == 0 => return false,
                b".." => depth -= 1,
                _ => named = true,
            }
        }
        true
    }
}

fn fault(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [] => return Some("it is empty"),
        [b'/', ..] => return Some("it is absolute"),
        _ if bytes.len() > MAX_PATH => return Some("it is longer than 3072 bytes"),
        _ if bytes.contains(&0) => return Some("it contains a NUL byte"),
        _ => {}
    }
    bytes.split(|b| *b == b'/').find_map(|component| match component {
        b"" => Some("it has an empty component"),
        b"." => Some("it has a '.' component"),
        b".." => Some("it leaves its directory by '..'"),
        _ if component.len() > MAX_NAME => Some("a component is longer than 255 bytes"),
        _ => None,
    })
}

impl fmt::Debug for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl fmt::Display for SafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl AsRef<Path> for SafePath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn hostile_paths_are_refused() {
        let long = vec![b'a'; 256];
        let deep = b"a/".repeat(2000);
        for bad in
            [&b""[..], b"/etc/passwd", b"../x", b"a/../../x", b"a//b", b"./a", b"a/.", b"a/", b"a\0b", &long, &deep]
        {
            assert!(SafePath::new(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
        for good in [&b"a"[..], b"a/b", b"..a/b..", b"\xff\xfe", b"a b/c\\d"] {
            assert!(SafePath::new(good).is_ok(), "{}", String::from_utf8_lossy(good));
        }
    }

    #[test]
    fn links_that_lead_out_are_seen() {
        let path = SafePath::new(b"lib/a/b").expect("safe");
        for (target, inside) in [
            (&b"c"[..], true),
            (b"../../bin/x", true),
            (b"../../../bin/x", false),
            (b"/etc", false),
            (b"", false),
            (b"x/../../../..", false),
            (b"./../a/./b", true),
            // Harmless by itself; with a link c -> ../.. it would lead out.
            (b"c/../../x", false),
            (b"c/..", false),
        ] {
            assert_eq!(path.link_stays_inside(target), inside, "{}", String::from_utf8_lossy(target));
        }
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_inside(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
            if let Ok(path) = SafePath::new(&bytes) {
                prop_assert!(path.as_path().components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
