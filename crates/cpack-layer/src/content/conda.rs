//! Files of conda environments that hold the environment's path: they get the placeholder back that they were built with.
//!
//! What conda's record says decides: the digest of the file as it was built. A file that comes to another digest is tried with
//! the installer's cache, which has the file as it was built, and else is packed as well as can be and reported as changed. A
//! text that no record describes and that names the path, such as what a `post-link` script wrote, gets [`PLACEHOLDER`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cpack_discover::{Placeholder, record};
use cpack_format::prefix::{Mode, replace, restore, substituted};

use super::prefix_text::is_alone;
use crate::archive::Make;

/// What takes the place of the environment's path in text that no record describes.
pub(super) const PLACEHOLDER: &str = "/cluster-pack-placeholder";

/// A file with its placeholder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Restored {
    pub(super) bytes: Vec<u8>,
    /// Whether it is as it was built.
    pub(super) is_original: bool,
}

/// The file as it was built, from what an installer wrote for one of `prefixes`. `cached` reads it from the installer's cache.
pub(super) fn restored(
    installed: &[u8],
    was: &Placeholder,
    prefixes: &[Vec<u8>],
    cached: impl FnOnce() -> Option<Vec<u8>>,
) -> Restored {
    let placeholder = was.placeholder.as_bytes();
    let is_original = |bytes: &[u8]| was.hash.as_deref().is_some_and(|hash| record::matches(hash, bytes) == Some(true));
    if let Some(bytes) =
        prefixes.iter().map(|prefix| restore(was.mode, installed, prefix, placeholder)).find(|bytes| is_original(bytes))
    {
        return Restored { bytes, is_original: true };
    }
    // An installer may have written the first line in another way. It is only taken if this file was made from it.
    let gives_this = |bytes: &Vec<u8>| {
        let given = |prefix: &Vec<u8>| replace(was.mode, bytes, placeholder, prefix).is_ok_and(|new| new == installed);
        is_original(bytes) && prefixes.iter().any(given)
    };
    if let Some(bytes) = was.hash.as_ref().and_then(|_| cached()).filter(gives_this) {
        return Restored { bytes, is_original: true };
    }
    let bytes =
        prefixes.iter().fold(installed.to_vec(), |bytes, prefix| restore(was.mode, &bytes, prefix, placeholder));
    Restored { bytes, is_original: was.hash.is_none() }
}

/// A script with the first line that its installer wrote, had the path been short: conda writes `#!/usr/bin/env python` where it
/// is too long.
pub(super) fn with_short_path(script: &[u8], prefix: &[u8]) -> Option<Vec<u8>> {
    let rest = script.strip_prefix(b"#!/usr/bin/env python")?;
    Some([b"#!", prefix, b"/bin/python", rest].concat())
}

/// The text with [`PLACEHOLDER`] in the place of the environment's path, wherever that stands alone.
pub(super) fn with_own_placeholder(text: &[u8], prefixes: &[Vec<u8>]) -> Vec<u8> {
    let mut text = text.to_vec();
    for prefix in prefixes.iter().filter(|prefix| prefix.len() > 1) {
        let mut out = Vec::with_capacity(text.len());
        let mut from = 0;
        for at in memchr::memmem::find_iter(&text, prefix) {
            if is_alone(&text, at, prefix.len()) {
                out.extend_from_slice(text.get(from..at).unwrap_or_default());
                out.extend_from_slice(PLACEHOLDER.as_bytes());
                from = at + prefix.len();
            }
        }
        out.extend_from_slice(text.get(from..).unwrap_or_default());
        text = out;
    }
    text
}

/// Restores a large file again when it is written, so that not all of them are in memory at once.
pub(super) fn restore_later(path: &Path, was: &Placeholder, prefixes: &[Vec<u8>], cached: Option<PathBuf>) -> Make {
    let (path, was, prefixes) = (path.to_owned(), was.clone(), prefixes.to_vec());
    Arc::new(move || {
        let installed = fs::read(&path).map_err(|error| error.to_string())?;
        let read_cached = || fs::read(cached.as_ref()?).ok();
        Ok(Some(restored(&installed, &was, &prefixes, read_cached).bytes))
    })
}

/// Whether bytes hold a placeholder.
pub(super) fn holds(bytes: &[u8], placeholder: &str) -> bool {
    memchr::memmem::find(bytes, placeholder.as_bytes()).is_some()
}

/// The placeholder of text that no record describes.
pub(super) fn own() -> Placeholder {
    Placeholder { placeholder: PLACEHOLDER.into(), mode: Mode::Text, hash: None }
}

/// What of a script is not in its first lines, with the placeholder.
pub(super) fn restored_script(script: &[u8], placeholder: &str, prefixes: &[Vec<u8>]) -> Vec<u8> {
    prefixes.iter().fold(script.to_vec(), |text, prefix| substituted(&text, prefix, placeholder.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn was(original: &[u8], mode: Mode) -> Placeholder {
        Placeholder { placeholder: "/placehold_placehold".into(), mode, hash: Some(record::hash(original)) }
    }

    #[test]
    fn restored_file_is_the_one_that_was_built() {
        let prefixes = [b"/opt/env".to_vec(), b"/real/env".to_vec()];
        let original = b"x=/placehold_placehold/lib\0\0y";
        for prefix in &prefixes {
            let installed = replace(Mode::Binary, original, b"/placehold_placehold", prefix).expect("fits");
            let found = restored(&installed, &was(original, Mode::Binary), &prefixes, || None);
            assert_eq!(found, Restored { bytes: original.to_vec(), is_original: true });
        }
        let changed = restored(b"a /opt/env b", &was(b"else", Mode::Text), &prefixes, || Some(b"else".to_vec()));
        assert_eq!(changed, Restored { bytes: b"a /placehold_placehold b".to_vec(), is_original: false });
    }

    #[test]
    fn restored_file_with_another_first_line_comes_from_the_cache() {
        let prefixes = [format!("/{}", "n".repeat(130)).into_bytes()];
        let original = b"#!/placehold_placehold/bin/perl\nx\n";
        let installed = replace(Mode::Text, original, b"/placehold_placehold", &prefixes[0]).expect("text");
        assert_eq!(installed, b"#!/usr/bin/env perl\nx\n");
        let found = restored(&installed, &was(original, Mode::Text), &prefixes, || Some(original.to_vec()));
        assert_eq!(found, Restored { bytes: original.to_vec(), is_original: true });
        assert!(!restored(&installed, &was(original, Mode::Text), &prefixes, || None).is_original);
    }

    #[test]
    fn own_placeholder_stands_for_the_whole_path_alone() {
        let text = with_own_placeholder(b"/opt/env/lib:/opt/env2:/opt/env", &[b"/opt/env".to_vec()]);
        let expected = format!("{PLACEHOLDER}/lib:/opt/env2:{PLACEHOLDER}");
        assert_eq!(text, expected.as_bytes());
        assert_eq!(
            with_short_path(b"#!/usr/bin/env python3 -E\n", b"/e").as_deref(),
            Some(&b"#!/e/bin/python3 -E\n"[..])
        );
    }
}
