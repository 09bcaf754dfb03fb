//! What `bin/conda-unpack` of conda-pack would do: its list of files that hold the environment's path.
//!
//! ```text
//! _prefix_records = [
//! ('lib/libx.so', '/opt/anaconda1anaconda2anaconda3', 'binary'),
//! ('etc/x.conf', '/home/user/env', 'text')
//! ]
//! ```
//!
//! conda-pack lists no interpreter, because `conda-unpack` runs by it. `conda-meta` tells what it holds.

use std::fs;
use std::path::Path;

use cpack_format::SafePath;
use cpack_format::prefix::Mode;
use memchr::memmem;
use serde::Deserialize;

use crate::mend::is_python_name;

/// The script and the module that it imports (since conda-pack 0.9).
pub(crate) const SCRIPTS: [&str; 2] = ["conda-unpack", "conda_unpack_progress.py"];

/// Begins the list.
const BEGIN: &str = "_prefix_records = [";

/// What a record of a package says of such a file.
const KEY: &[u8] = b"\"prefix_placeholder\":";

/// A file, what it has in the place of the environment's path, and how.
pub(crate) type Record = (SafePath, String, Mode);

/// Reads the list in the text of the script. Returns the line that is damaged otherwise.
pub(crate) fn records(script: &str) -> Result<Vec<Record>, String> {
    let shown = |line: &str| line.chars().take(100).collect::<String>();
    let (_, list) = script.split_once(BEGIN).ok_or_else(|| shown(script.lines().next().unwrap_or_default()))?;
    let mut records = Vec::new();
    for line in list.lines().map(str::trim) {
        match line {
            "" => {}
            "]" => return Ok(records),
            line => records.push(record(line).ok_or_else(|| shown(line))?),
        }
    }
    Err("its end".into())
}

/// Reads one line. A path that leads out of the environment is none.
fn record(line: &str) -> Option<Record> {
    let rest = line.strip_prefix('(')?;
    let (path, rest) = string(rest)?;
    let (placeholder, rest) = string(rest.strip_prefix(", ")?)?;
    let (mode, rest) = string(rest.strip_prefix(", ")?)?;
    let mode = match mode.as_str() {
        "text" => Mode::Text,
        "binary" => Mode::Binary,
        _ => return None,
    };
    let is_whole = matches!(rest, ")" | "),") && placeholder.starts_with('/') && placeholder.len() > 1;
    is_whole.then_some((SafePath::new(path.as_bytes()).ok()?, placeholder, mode))
}

/// Reads a string as Python's `repr` writes it. Returns it with what follows.
fn string(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.get(1..)?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((out, text.get(at + 2..)?)),
            '\\' => {
                let (_, escape) = chars.next()?;
                let digits = match escape {
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    'n' | 't' | 'r' => {
                        out.push(match escape {
                            'n' => '\n',
                            't' => '\t',
                            _ => '\r',
                        });
                        continue;
                    }
                    plain => {
                        out.push(plain);
                        continue;
                    }
                };
                let code: String = chars.by_ref().take(digits).map(|(_, digit)| digit).collect();
                out.push(char::from_u32(u32::from_str_radix(&code, 16).ok()?)?);
            }
            c => out.push(c),
        }
    }
    None
}

/// The part that is read of a package's record.
#[derive(Deserialize)]
struct Package {
    paths_data: Paths,
}

#[derive(Deserialize)]
struct Paths {
    paths: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "_path")]
    path: String,
    prefix_placeholder: Option<String>,
    file_mode: Option<Mode>,
}

/// The interpreters in `bin` that hold the environment's path, by the record of the package `python`. In a zip the links to
/// one are copies of it.
pub(crate) fn interpreters(conda_meta: &Path) -> Vec<Record> {
    let entries = fs::read_dir(conda_meta).into_iter().flatten().flatten();
    let of_python = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"python-"));
    let packages = of_python.filter_map(|entry| serde_json::from_slice::<Package>(&fs::read(entry.path()).ok()?).ok());
    let mut files: Vec<File> = packages.flat_map(|package| package.paths_data.paths).collect();
    files.retain(|file| file.path.strip_prefix("bin/").is_some_and(|name| is_python_name(name.as_bytes())));
    let held = files.iter().find_map(|file| {
        let placeholder = file.prefix_placeholder.clone().filter(|placeholder| placeholder.len() > 1)?;
        Some((placeholder, file.file_mode?))
    });
    let Some((placeholder, mode)) = held else { return Vec::new() };
    let paths = files.iter().filter_map(|file| SafePath::new(file.path.as_bytes()).ok());
    paths.map(|path| (path, placeholder.clone(), mode)).collect()
}

/// Whether packages of the environment have files that hold its path.
pub(crate) fn has_placeholders(conda_meta: &Path) -> bool {
    let entries = fs::read_dir(conda_meta).into_iter().flatten().flatten();
    let mut texts = entries.filter_map(|entry| fs::read(entry.path()).ok());
    texts.any(|text| {
        let values = memmem::find_iter(&text, KEY).filter_map(|at| text.get(at + KEY.len()..));
        values.into_iter().any(|value| value.trim_ascii_start().starts_with(b"\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_python_writes_them() {
        let script = "x = 1\n_prefix_records = [\n('lib/a.so', '/opt/place', 'binary'),\n\
                      (\"etc/it's\", '/home/\\xe9\\'\\\\x', 'text')\n]\n\nif True: []\n";
        let expected = [("lib/a.so", "/opt/place", Mode::Binary), ("etc/it's", "/home/\u{e9}'\\x", Mode::Text)];
        let expected = expected.map(|(path, placeholder, mode)| {
            (SafePath::new(path.as_bytes()).expect("safe"), placeholder.to_owned(), mode)
        });
        assert_eq!(records(script).expect("reads"), expected);
        assert_eq!(records("_prefix_records = [\n\n]\n").expect("reads"), []);
    }

    #[test]
    fn records_refuse_what_is_damaged_and_name_it() {
        for line in
            ["('a', '/b', 'other')", "('../a', '/b', 'text')", "('a', '/b', 'text'", "('a', '', 'text')", "('a'"]
        {
            let script = format!("_prefix_records = [\n{line}\n]\n");
            assert_eq!(records(&script).expect_err("refuses"), line);
        }
        assert_eq!(records("_prefix_records = [\n").expect_err("refuses"), "its end");
        assert_eq!(records("print()\n").expect_err("refuses"), "print()");
    }
}
