//! The path of an environment that is written in files of conda packages.
//!
//! A conda package is built for a long path that does not exist, its *placeholder*, and lists the files that hold it. An
//! installer writes the environment's prefix in its place. A layer holds the placeholder, so that it is the same wherever an
//! environment stood; the manifest lists its files ([`Prefixes`]), and each node writes them with its own prefix ([`replace`]).
//!
//! | mode | what a node writes |
//! | --- | --- |
//! | text | the prefix in the place of each placeholder; a `#!` line that the kernel would cut is written in another way |
//! | binary | the same in each string that ends with a NUL; NULs behind the string keep the file's length |
//!
//! Both are what conda, mamba and rattler write, byte for byte.

use std::borrow::Cow;

use memchr::memmem::{self, Finder};
use serde::{Deserialize, Serialize};

/// The longest `#!` line that every kernel takes, without its end of line.
const LONGEST_SHEBANG: usize = 127;

/// How a file holds the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As part of a text.
    Text,
    /// In strings that end with a NUL.
    Binary,
}

/// The files of a layer that hold one placeholder. Paths are relative to the environment, and sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefixes {
    /// What the node's prefix takes the place of.
    pub placeholder: String,
    /// Files that hold it as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
    /// Files that hold it in strings that end with a NUL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binary: Vec<String>,
}

impl Prefixes {
    /// Adds a file to those with the same placeholder in `all`.
    pub fn add(all: &mut Vec<Self>, placeholder: &str, mode: Mode, path: String) {
        let at = all.binary_search_by(|known| known.placeholder.as_str().cmp(placeholder)).unwrap_or_else(|at| {
            let placeholder = placeholder.to_owned();
            all.insert(at, Self { placeholder, text: Vec::new(), binary: Vec::new() });
            at
        });
        let Some(known) = all.get_mut(at) else { return };
        let paths = match mode {
            Mode::Text => &mut known.text,
            Mode::Binary => &mut known.binary,
        };
        if let Err(at) = paths.binary_search(&path) {
            paths.insert(at, path);
        }
    }

    /// Each file with its mode.
    pub fn files(&self) -> impl Iterator<Item = (&str, Mode)> {
        let text = self.text.iter().map(|path| (path.as_str(), Mode::Text));
        text.chain(self.binary.iter().map(|path| (path.as_str(), Mode::Binary)))
    }
}

/// A binary has no room for a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has room for a path of {room} bytes, and the environment's has {length}")]
pub struct TooLong {
    /// The length of the placeholder.
    pub room: usize,
    /// The length of the prefix.
    pub length: usize,
}

/// The content of a file with `prefix` in the place of `placeholder`.
pub fn replace(mode: Mode, bytes: &[u8], placeholder: &[u8], prefix: &[u8]) -> Result<Vec<u8>, TooLong> {
    match mode {
        _ if placeholder.is_empty() => Ok(bytes.to_vec()),
        Mode::Text => Ok(replace_text(bytes, placeholder, prefix)),
        Mode::Binary if prefix.len() > placeholder.len() => {
            Err(TooLong { room: placeholder.len(), length: prefix.len() })
        }
        Mode::Binary => Ok(replace_binary(bytes, placeholder, prefix)),
    }
}

/// The content of a file with `placeholder` in the place of `prefix`: what [`replace`] made it from.
///
/// A prefix that was in the file already, before an installer wrote any, becomes a placeholder too: conda records the digest of
/// the original, which tells.
pub fn restore(mode: Mode, bytes: &[u8], prefix: &[u8], placeholder: &[u8]) -> Vec<u8> {
    match mode {
        _ if prefix.is_empty() => bytes.to_vec(),
        Mode::Text => substituted(bytes, prefix, placeholder),
        Mode::Binary => restore_binary(bytes, prefix, placeholder),
    }
}

/// `bytes` with `new` in the place of each `old`.
pub fn substituted(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let finder = Finder::new(old);
    while let Some((before, after)) = finder.find(rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(before);
        out.extend_from_slice(new);
        rest = after.get(old.len().max(1)..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn replace_text(bytes: &[u8], placeholder: &[u8], prefix: &[u8]) -> Vec<u8> {
    let end = memchr::memchr(b'\n', bytes).filter(|_| bytes.starts_with(b"#!")).unwrap_or(0);
    let (first, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    let mut out = first_line(first, placeholder, prefix).into_owned();
    out.extend_from_slice(&substituted(rest, placeholder, prefix));
    out
}

/// The first line of a script. A kernel cuts a `#!` line at its length, and ends the program's path at the first space.
fn first_line<'a>(line: &'a [u8], placeholder: &[u8], prefix: &[u8]) -> Cow<'a, [u8]> {
    if memmem::find(line, placeholder).is_none() {
        return Cow::Borrowed(line);
    }
    let replaced = substituted(line, placeholder, prefix);
    if !prefix.contains(&b' ') && replaced.len() <= LONGEST_SHEBANG {
        return Cow::Owned(replaced);
    }
    let program = line.strip_prefix(b"#!").unwrap_or(line).trim_ascii_start();
    let end = program.iter().position(u8::is_ascii_whitespace).unwrap_or(program.len());
    let (path, options) = program.split_at_checked(end).unwrap_or((program, &[]));
    if !path.starts_with(b"/") {
        return Cow::Owned(replaced);
    }
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let shown = if is_python(name) {
        [b"#!/bin/sh\n'''exec' \"", path, b"\"", options, b" \"$0\" \"$@\" #'''"].concat()
    } else {
        [b"#!/usr/bin/env ", name, options].concat()
    };
    Cow::Owned(substituted(&shown, placeholder, prefix))
}

/// `python`, `python3`, `python3.11`.
fn is_python(name: &[u8]) -> bool {
    let Some(version) = name.strip_prefix(b"python") else { return false };
    let mut parts = version.split(|byte| *byte == b'.');
    let is_number = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    version.is_empty() || (parts.clone().count() <= 2 && parts.all(is_number))
}

fn replace_binary(bytes: &[u8], placeholder: &[u8], prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let finder = Finder::new(placeholder);
    while let Some((before, string, after)) = next_string(&finder, rest) {
        out.extend_from_slice(before);
        let new = substituted(string, placeholder, prefix);
        let padding = string.len().saturating_sub(new.len());
        out.extend_from_slice(&new);
        out.resize(out.len() + padding, 0);
        rest = after;
    }
    out.extend_from_slice(rest);
    out
}

/// Each string takes back the NULs behind it by which it was shortened. One that lacks them was not shortened: it stays.
fn restore_binary(bytes: &[u8], prefix: &[u8], placeholder: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let finder = Finder::new(prefix);
    while let Some((before, string, after)) = next_string(&finder, rest) {
        out.extend_from_slice(before);
        let new = substituted(string, prefix, placeholder);
        let padding = new.len().saturating_sub(string.len());
        let taken = after.get(..padding).filter(|nuls| nuls.iter().all(|byte| *byte == 0));
        let ends = after.get(padding).is_none_or(|byte| *byte == 0);
        match taken.filter(|_| ends && new.len() >= string.len()) {
            Some(_) => {
                out.extend_from_slice(&new);
                rest = after.get(padding..).unwrap_or_default();
            }
            None => {
                out.extend_from_slice(string);
                rest = after;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The next string that holds what `finder` looks for, from there to its NUL: what comes before, the string, and what follows.
fn next_string<'a>(finder: &Finder<'_>, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8], &'a [u8])> {
    let (before, found) = bytes.split_at_checked(finder.find(bytes)?)?;
    let (string, after) = found.split_at_checked(memchr::memchr(0, found).unwrap_or(found.len()))?;
    Some((before, string, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: &str = "/build/placehold_placehold_placehold_placehold";

    fn text(bytes: &str, prefix: &str) -> String {
        let bytes = bytes.replace("PH", LONG);
        String::from_utf8(replace(Mode::Text, bytes.as_bytes(), LONG.as_bytes(), prefix.as_bytes()).expect("fits"))
            .expect("utf-8")
    }

    #[test]
    fn prefix_in_text_is_replaced_wherever_it_is() {
        for (before, after) in [
            ("prefix=PH\nlib=PH/lib:PH\n", "prefix=/n\nlib=/n/lib:/n\n"),
            ("#!PH/bin/perl -w\nPH", "#!/n/bin/perl -w\n/n"),
            ("#!/bin/sh\nexec PH/bin/x\n", "#!/bin/sh\nexec /n/bin/x\n"),
            ("#!PH/bin/x", "#!/n/bin/x"),
            ("", ""),
            ("nothing", "nothing"),
        ] {
            assert_eq!(text(before, "/n"), after, "{before}");
        }
    }

    #[test]
    fn prefix_that_a_kernel_would_cut_gets_another_first_line() {
        let long = format!("/{}", "n".repeat(120));
        for (before, prefix, after) in [
            (
                "#!PH/bin/python3.11 -E\nPH",
                &*long,
                "#!/bin/sh\n'''exec' \"NEW/bin/python3.11\" -E \"$0\" \"$@\" #'''\nNEW",
            ),
            ("#!PH/bin/python\n", "/s p", "#!/bin/sh\n'''exec' \"NEW/bin/python\" \"$0\" \"$@\" #'''\n"),
            ("#!PH/bin/perl -w\n", &long, "#!/usr/bin/env perl -w\n"),
            ("#!/usr/bin/env python\nPH", "/s p", "#!/usr/bin/env python\nNEW"),
        ] {
            assert_eq!(text(before, prefix), after.replace("NEW", prefix), "{before}");
        }
        for (name, expected) in [("python", true), ("python3.11", true), ("python3.", false), ("python-config", false)]
        {
            assert_eq!(is_python(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn prefix_in_a_binary_keeps_its_length() {
        let replaced = |bytes: &[u8]| replace(Mode::Binary, bytes, b"/placehold", b"/new").expect("fits");
        assert_eq!(replaced(b"\x7f/placehold/lib\0x\0"), b"\x7f/new/lib\0\0\0\0\0\0\0x\0");
        let twice = replaced(b"a=/placehold:/placehold/b\0rest");
        assert_eq!(twice, [&b"a=/new:/new/b\0"[..], &[0; 12], b"rest"].concat());
        assert_eq!(replaced(b"/placehold"), b"/new\0\0\0\0\0\0");
        let refused = replace(Mode::Binary, b"/placehold", b"/placehold", b"/longer than that").expect_err("too long");
        assert_eq!(refused, TooLong { room: 10, length: 17 });
    }

    #[test]
    fn prefixes_are_sorted_and_know_each_file_once() {
        let mut all = Vec::new();
        for (placeholder, mode, path) in
            [("/b", Mode::Text, "y"), ("/a", Mode::Binary, "z"), ("/b", Mode::Text, "x"), ("/b", Mode::Text, "y")]
        {
            Prefixes::add(&mut all, placeholder, mode, path.into());
        }
        let expected = r#"[{"placeholder":"/a","binary":["z"]},{"placeholder":"/b","text":["x","y"]}]"#;
        assert_eq!(serde_json::to_string(&all).expect("JSON"), expected);
        assert_eq!(all[1].files().collect::<Vec<_>>(), [("x", Mode::Text), ("y", Mode::Text)]);
    }

    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(LONG.as_bytes().to_vec()),
            Just(b"\0".to_vec()),
            Just(b"\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..6),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn restore_gives_back_what_replace_changed(bytes in pieces(), prefix in "/[a-z]{3,40}", is_text: bool) {
            let mode = if is_text { Mode::Text } else { Mode::Binary };
            // A prefix that is there by itself cannot be told from one that was written.
            prop_assume!(memmem::find(&bytes, prefix.as_bytes()).is_none() && !bytes.starts_with(b"#!"));
            let replaced = replace(mode, &bytes, LONG.as_bytes(), prefix.as_bytes()).expect("fits");
            prop_assert!(memmem::find(&replaced, LONG.as_bytes()).is_none() || prefix.contains("placehold"));
            prop_assert!(is_text || replaced.len() == bytes.len());
            prop_assert_eq!(restore(mode, &replaced, prefix.as_bytes(), LONG.as_bytes()), bytes);
        }

        #[test]
        fn replace_takes_any_bytes(bytes in pieces(), old in "[/a]{0,3}", new in "[/b]{0,3}", is_text: bool) {
            let mode = if is_text { Mode::Text } else { Mode::Binary };
            if let Ok(replaced) = replace(mode, &bytes, old.as_bytes(), new.as_bytes()) {
                prop_assert!(is_text || replaced.len() == bytes.len());
            }
            restore(mode, &bytes, new.as_bytes(), old.as_bytes());
        }
    }
}
