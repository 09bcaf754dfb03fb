//! `PYTHONPATH`: overlays, then what the framework set, then the environment, which needs no entry.
//!
//! Spark puts its own `pyspark.zip` there, which must stay ahead of the environment's pyspark to match the JVM. What a
//! launcher adds it writes down ([`crate::settings::exported::ADDED_PATH`]), so that a launcher which is started inside its
//! process can take the outer one's overlays away again.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

/// The new values of two variables; None: not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merged {
    /// `PYTHONPATH`.
    pub(crate) path: Option<OsString>,
    /// What was added to it.
    pub(crate) added: Option<OsString>,
}

/// Puts `overlays` before what is on the `current` path, without what an outer launcher `added` to it.
pub(crate) fn merge(overlays: &[PathBuf], current: Option<&OsStr>, added: Option<&OsStr>) -> Merged {
    let split = |value: Option<&OsStr>| -> Vec<Vec<u8>> {
        let bytes = value.map(OsStr::as_bytes).unwrap_or_default();
        if bytes.is_empty() { Vec::new() } else { bytes.split(|b| *b == b':').map(<[u8]>::to_vec).collect() }
    };
    let outer = split(added);
    let own: Vec<Vec<u8>> = overlays.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
    // Empty entries stand for the working directory: they were somebody's wish and stay.
    let kept = split(current).into_iter().filter(|entry| !outer.contains(entry) && !own.contains(entry));
    let all: Vec<_> = own.iter().cloned().chain(kept).collect();
    Merged { path: join(&all), added: join(&own) }
}

fn join(entries: &[Vec<u8>]) -> Option<OsString> {
    (!entries.is_empty()).then(|| OsString::from_vec(entries.join(&b':'))).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlays_come_first_and_the_outer_launcher_s_go() {
        for (overlays, current, added, path, now_added) in [
            (&[][..], None, None, None, None),
            (&[], Some("/spark.zip:/py4j.zip"), None, Some("/spark.zip:/py4j.zip"), None),
            (&["/o1", "/o2"], Some("/spark.zip"), None, Some("/o1:/o2:/spark.zip"), Some("/o1:/o2")),
            (&["/o2"], Some("/o1:/spark.zip"), Some("/o1"), Some("/o2:/spark.zip"), Some("/o2")),
            (&[], Some("/o1"), Some("/o1"), None, None),
            (&["/o1"], Some("/o1:/x"), Some("/o1"), Some("/o1:/x"), Some("/o1")),
            (&["/o1"], Some("/x::/y"), None, Some("/o1:/x::/y"), Some("/o1")),
            (&[], Some(""), None, None, None),
        ] {
            let overlays: Vec<PathBuf> = overlays.iter().map(PathBuf::from).collect();
            let merged = merge(&overlays, current.map(OsStr::new), added.map(OsStr::new));
            let expected = Merged { path: path.map(Into::into), added: now_added.map(Into::into) };
            assert_eq!(merged, expected, "{overlays:?} {current:?} {added:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_survive() {
        let odd = OsStr::from_bytes(b"/a\xff");
        assert_eq!(merge(&[], Some(odd), None).path.as_deref(), Some(odd));
    }
}
