//! `METADATA` that upstream's runtime can read.
//!
//! Since packaging 22 a requirement or a range of Python versions that PEP 440 does not allow (`pytz (>dev)` of celery 4.4.7,
//! `>=3.6.*` of many) is an error, and a PEX with one does not start. Python itself does not read them in an environment.

use std::borrow::Cow;
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

/// Leaves out the requirements that newer releases of packaging refuse. Those on several lines become one: packaging refuses the
/// line breaks, which `email` keeps.
pub(super) fn readable(metadata: &[u8]) -> Readable {
    let end = body(metadata);
    let (headers, body) = metadata.split_at(end);
    let mut text = Vec::with_capacity(metadata.len());
    let mut left_out = Vec::new();
    let mut lines = headers.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let mut header = Cow::Borrowed(line);
        let mut folded = line.to_vec();
        while let Some(more) = lines.next_if(|line| is_continued(line)) {
            folded.extend_from_slice(more);
            header = Cow::Owned([header.trim_ascii_end(), b" ", more.trim_ascii_start()].concat());
        }
        if !is_requirement(&header) {
            text.extend_from_slice(&folded);
        } else if is_readable(&header) {
            text.extend_from_slice(&header);
        } else {
            left_out.push(String::from_utf8_lossy(&header).trim().to_owned());
        }
    }
    text.extend_from_slice(body);
    Readable { text: (text != metadata).then_some(text), left_out }
}

/// Where the headers end: at the first empty line.
fn body(metadata: &[u8]) -> usize {
    let mut end = 0;
    for line in metadata.split_inclusive(|byte| *byte == b'\n') {
        if line.trim_ascii().is_empty() {
            break;
        }
        end += line.len();
    }
    end
}

fn is_continued(line: &[u8]) -> bool {
    line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'))
}

/// Whether the runtime parses the value of a header.
fn is_requirement(header: &[u8]) -> bool {
    let name = header.split(|byte| *byte == b':').next().unwrap_or_default();
    [&b"requires-dist"[..], b"requires-python"].iter().any(|known| name.eq_ignore_ascii_case(known))
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
                        Summary: s\n\
                        Requires-Dist: kombu >=4 ; extra == 'k'\n\nRequires-Dist: pytz (>dev)\n";
        assert_eq!(String::from_utf8(found.text.expect("changed")).expect("utf-8"), expected);
        let left_out = ["Requires-Python: >=3.6.*", "Requires-Dist: pytz (>dev)", "Requires-Dist: x y (>dev"];
        assert_eq!(found.left_out, left_out);
        let again = readable(expected.as_bytes());
        assert_eq!(again, Readable { text: None, left_out: Vec::new() });
        let folded = readable(b"Requires-Dist: a (>dev)\n ; extra == 'x'\nName: b\n");
        assert_eq!(folded.text.as_deref(), Some(&b"Name: b\n"[..]));
        let unfolded = readable(b"Requires-Dist: a\n (>1)\nDescription: x\n  y\n\n z\n");
        let text = Some(b"Requires-Dist: a (>1)\nDescription: x\n  y\n\n z\n".to_vec());
        assert_eq!(unfolded, Readable { text, left_out: Vec::new() });
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
