//! `PYTHONPATH`: what the framework set, as it is.
//!
//! Spark puts its own `pyspark.zip` there, which must stay ahead of the environment's pyspark to match the JVM. Overlays are
//! not on it: they belong to the prefix (`tree/job.rs` of cpack-node). Launchers of older releases put them there and wrote that
//! down ([`crate::settings::exported::ADDED_PATH`]); one that is started inside such a launcher's process takes them away again.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// The `current` path without what an outer launcher `added` to it. `None`: nothing is left, or it was empty.
pub(crate) fn without(current: Option<&OsStr>, added: Option<&OsStr>) -> Option<OsString> {
    let split = |value: &OsStr| -> Vec<Vec<u8>> {
        let bytes = value.as_bytes();
        if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == b':').map(<[u8]>::to_vec).collect() }
    };
    let (current, outer) = (current?, added.map(split).unwrap_or_default());
    // Empty entries stand for the working directory: the user or the framework wants them, so they stay.
    let kept: Vec<Vec<u8>> = split(current).into_iter().filter(|entry| !outer.contains(entry)).collect();
    (!kept.is_empty()).then(|| OsString::from_vec(kept.join(&b':'))).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_path_loses_entries_of_an_older_launcher_alone() {
        for (current, added, expected) in [
            (None, None, None),
            (None, Some("/o1"), None),
            (Some("/spark.zip:/py4j.zip"), None, Some("/spark.zip:/py4j.zip")),
            (Some("/o1:/o2:/spark.zip"), Some("/o1:/o2"), Some("/spark.zip")),
            (Some("/o1"), Some("/o1"), None),
            (Some("/o1:/x::/y"), Some("/o1"), Some("/x::/y")),
            (Some(""), None, None),
        ] {
            let kept = without(current.map(OsStr::new), added.map(OsStr::new));
            assert_eq!(kept.as_deref(), expected.map(OsStr::new), "{current:?} {added:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let odd = OsStr::from_bytes(b"/a\xff");
        assert_eq!(without(Some(odd), None).as_deref(), Some(odd));
    }
}
