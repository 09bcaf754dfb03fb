//! `METADATA` that upstream's runtime can read.
//!
//! Since packaging 22 a requirement or a range of Python versions that PEP 440 does not allow (`pytz (>dev)` of celery 4.4.7,
//! `>=3.6.*` of many) is an error, and a PEX with one does not start. Python itself does not read them in an environment.

use std::str::FromStr as _;

use pep440_rs::VersionSpecifiers;
use pep508_rs::{Requirement, VerbatimUrl};

/// A `METADATA` in which everything can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Readable {
    /// The text, if it is another than before.
    pub(super) text: Option<Vec<u8>>,
    /// The headers that were left out, as written.
    pub(super) left_out: Vec<String>,
}

/// Leaves out the requirements that newer releases of packaging refuse.
pub(super) fn readable(metadata: &[u8]) -> Readable {
    let mut text = Vec::with_capacity(metadata.len());
    let mut left_out = Vec::new();
    let (mut in_headers, mut is_left_out) = (true, false);
    for line in metadata.split_inclusive(|byte| *byte == b'\n') {
        in_headers &= !line.trim_ascii().is_empty();
        let continues = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        if in_headers && !continues {
            is_left_out = !is_readable(line);
            if is_left_out {
                left_out.push(String::from_utf8_lossy(line).trim().to_owned());
            }
        }
        if !(in_headers && is_left_out) {
            text.extend_from_slice(line);
        }
    }
    Readable { text: (!left_out.is_empty()).then_some(text), left_out }
}

/// Whether a header is none of a requirement, or one that can be read.
fn is_readable(header: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(header) else { return true };
    let Some((name, value)) = text.split_once(':') else { return true };
    let value = value.trim();
    match name.to_ascii_lowercase().as_str() {
        "requires-dist" => Requirement::<VerbatimUrl>::from_str(value).is_ok(),
        "requires-python" => value.is_empty() || VersionSpecifiers::from_str(value).is_ok(),
        _ => true,
    }
}

/// What the user should know about headers that were left out of distributions.
pub(super) fn warning(left_out: &[String]) -> Option<String> {
    let first = left_out.first()?;
    let more = if left_out.len() > 1 { format!(" and {} more", left_out.len() - 1) } else { String::new() };
    Some(format!(
        "{first}{more}: left out of the metadata in the PEX, since packaging 22 and later cannot read it and the PEX would not start"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_loses_what_newer_packaging_refuses() {
        let text = "Metadata-Version: 2.1\nName: celery\nRequires-Python: >=3.6.*\nRequires-Dist: pytz (>dev)\n\
                    Requires-Dist: billiard (<4.0,>=3.6.3.0)\nRequires-Dist: x\n y (>dev\nSummary: s\n\
                    Requires-Dist: kombu >=4 ; extra == 'k'\n\nRequires-Dist: pytz (>dev)\n";
        let found = readable(text.as_bytes());
        let expected = "Metadata-Version: 2.1\nName: celery\nRequires-Dist: billiard (<4.0,>=3.6.3.0)\n\
                        Requires-Dist: x\n y (>dev\nSummary: s\n\
                        Requires-Dist: kombu >=4 ; extra == 'k'\n\nRequires-Dist: pytz (>dev)\n";
        assert_eq!(String::from_utf8(found.text.expect("changed")).expect("utf-8"), expected);
        assert_eq!(found.left_out, ["Requires-Python: >=3.6.*", "Requires-Dist: pytz (>dev)"]);
        let again = readable(expected.as_bytes());
        assert_eq!(again, Readable { text: None, left_out: Vec::new() });
        let folded = readable(b"Requires-Dist: a (>dev)\n ; extra == 'x'\nName: b\n");
        assert_eq!(folded.text.as_deref(), Some(&b"Name: b\n"[..]));
    }

    #[test]
    fn metadata_warning_is_one_line() {
        let left_out = ["celery 4.4.7: Requires-Dist: pytz (>dev)".to_owned(), "b 1: x".to_owned()];
        let text = warning(&left_out).expect("a warning");
        assert!(text.starts_with("celery 4.4.7: Requires-Dist: pytz (>dev) and 1 more: left out"), "{text}");
        assert_eq!(text.lines().count(), 1);
        assert_eq!(warning(&[]), None);
    }
}
