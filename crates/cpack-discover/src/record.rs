//! `RECORD`: the list of a distribution's files, with hash and size, which its installer writes into `*.dist-info`.
//!
//! A CSV file of `path,hash,size`, specified by PyPA ("Recording installed projects"). Paths are relative to the
//! directory that holds the `dist-info`, with `/` as separator, or absolute. A hash is `algorithm=` and the digest in
//! base64url without padding. `RECORD` itself and byte-code have neither hash nor size.
//!
//! Packed files differ from the installed ones (scripts, byte-code, `direct_url.json`), so [`rewrite`] makes a new list: one
//! row for each shipped file, sorted, with `\n` as line end.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cpack_format::SafePath;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::prefix_files::join_normalised;

/// One line of a `RECORD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The path as written: relative to the directory that holds the `dist-info`, or absolute.
    pub path: Vec<u8>,
    /// `algorithm=digest`.
    pub hash: Option<String>,
    /// Length in bytes.
    pub size: Option<u64>,
}

/// A `RECORD` that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("malformed RECORD near line {line}: expected rows of path,hash,size")]
pub struct RecordError {
    /// The line, counted from one.
    pub line: u64,
    source: csv::Error,
}

/// Whether a shipped file differs from the installed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shipped {
    /// The installed bytes. The row keeps hash and size.
    Kept,
    /// Other bytes.
    Changed {
        /// The result of [`hash()`].
        hash: String,
        /// Length in bytes.
        size: u64,
    },
    /// Without hash and size in RECORD, as installers list byte-code.
    Unhashed,
}

impl Shipped {
    /// A file shipped with `bytes` instead of the installed ones.
    pub fn changed(bytes: &[u8]) -> Self {
        Self::Changed { hash: hash(bytes), size: bytes.len() as u64 }
    }
}

/// Parses a `RECORD`. Rows without a path are skipped. A missing or malformed hash or size is `None`.
pub fn parse(bytes: &[u8]) -> Result<Vec<Row>, RecordError> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut rows = Vec::new();
    let mut fields = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        if !reader.read_byte_record(&mut fields).map_err(|source| RecordError { line, source })? {
            return Ok(rows);
        }
        let text = |index: usize| {
            let field = fields.get(index).and_then(|field| std::str::from_utf8(field).ok());
            field.map(str::trim).filter(|field| !field.is_empty())
        };
        let Some(path) = fields.get(0).filter(|path| !path.is_empty()) else { continue };
        rows.push(Row {
            path: path.to_vec(),
            hash: text(1).filter(|hash| hash.contains('=')).map(str::to_owned),
            size: text(2).and_then(|size| size.parse().ok()),
        });
    }
}

/// The path of a row relative to the environment. `None` if it is outside.
///
/// `base` is the directory that holds the `dist-info`, relative to the environment; `None` if that is the root itself, as in an
/// overlay. `prefixes` are the spellings of the environment's own path in absolute rows.
pub fn locate(path: &[u8], base: Option<&SafePath>, prefixes: &[Vec<u8>]) -> Option<SafePath> {
    let (base, rest) = if path.starts_with(b"/") {
        let inside = |prefix: &Vec<u8>| path.strip_prefix(prefix.as_slice())?.strip_prefix(b"/");
        (&b""[..], prefixes.iter().find_map(inside)?)
    } else {
        (base.map_or(&b""[..], SafePath::as_bytes), path)
    };
    SafePath::new(&join_normalised(base, rest)?).ok()
}

/// The path of a row for the file at `path`: the inverse of [`locate`].
pub fn relative(path: &SafePath, base: Option<&SafePath>) -> Vec<u8> {
    let common = path.components().zip(components(base)).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(&b".."[..], components(base).count() - common);
    up.chain(path.components().skip(common)).collect::<Vec<_>>().join(&b'/')
}

fn components(base: Option<&SafePath>) -> impl Iterator<Item = &[u8]> {
    base.into_iter().flat_map(SafePath::components)
}

/// `sha256=` and the digest of `bytes`, for a new row.
pub fn hash(bytes: &[u8]) -> String {
    format!("sha256={}", BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes)))
}

/// Whether `bytes` have the hash of a row. `None` if its algorithm is not SHA-256, SHA-384 or SHA-512.
pub fn matches(hash: &str, bytes: &[u8]) -> Option<bool> {
    let (algorithm, stated) = hash.split_once('=')?;
    let found = match algorithm {
        "sha256" => BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(bytes)),
        "sha384" => BASE64_URL_SAFE_NO_PAD.encode(Sha384::digest(bytes)),
        "sha512" => BASE64_URL_SAFE_NO_PAD.encode(Sha512::digest(bytes)),
        _ => return None,
    };
    Some(found == stated.trim_end_matches('='))
}

/// Writes the `RECORD` of the shipped files.
///
/// `rows` are the installed ones, `base` and `prefixes` those of [`locate`]. `shipped` has the distribution's files by their
/// path relative to the environment, `RECORD` itself included as [`Shipped::Unhashed`].
pub fn rewrite(
    rows: &[Row],
    base: Option<&SafePath>,
    prefixes: &[Vec<u8>],
    shipped: &BTreeMap<SafePath, Shipped>,
) -> Vec<u8> {
    let mut installed: HashMap<SafePath, &Row> = HashMap::with_capacity(rows.len());
    for row in rows {
        let Some(path) = locate(&row.path, base, prefixes) else { continue };
        let known = installed.entry(path).or_insert(row);
        if known.hash.is_none() {
            *known = row;
        }
    }
    let mut lines: Vec<(Vec<u8>, String, String)> = shipped
        .iter()
        .map(|(path, what)| {
            let (hash, size) = match what {
                Shipped::Kept => installed.get(path).map_or((None, None), |row| (row.hash.clone(), row.size)),
                Shipped::Changed { hash, size } => (Some(hash.clone()), Some(*size)),
                Shipped::Unhashed => (None, None),
            };
            (relative(path, base), hash.unwrap_or_default(), size.map(|size| size.to_string()).unwrap_or_default())
        })
        .collect();
    lines.sort_unstable();
    let mut out = Vec::new();
    for (path, hash, size) in lines {
        write_field(&mut out, &path);
        out.push(b',');
        write_field(&mut out, hash.as_bytes());
        out.push(b',');
        out.extend_from_slice(size.as_bytes());
        out.push(b'\n');
    }
    out
}

/// Writes a field as Python's `csv` does by default, quoted only if needed.
fn write_field(out: &mut Vec<u8>, field: &[u8]) {
    if !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for byte in field {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn safe(path: &str) -> SafePath {
        SafePath::new(path.as_bytes()).expect("safe")
    }

    fn row(path: &str, hash: Option<&str>, size: Option<u64>) -> Row {
        Row { path: path.into(), hash: hash.map(Into::into), size }
    }

    const BASE: &str = "lib/python3.11/site-packages";

    #[test]
    fn record_parse_reads_rows_of_every_installer() {
        let text = b"a.py,sha256=abc,12\r\n\"we,ird \"\"x\"\".py\",sha256=d-_,3\n../../../bin/f,,\n\na,b,c,d\nshort\n,sha256=x,1\n";
        assert_eq!(
            parse(text).expect("parses"),
            [
                row("a.py", Some("sha256=abc"), Some(12)),
                row("we,ird \"x\".py", Some("sha256=d-_"), Some(3)),
                row("../../../bin/f", None, None),
                row("a", None, None),
                row("short", None, None),
            ]
        );
        assert_eq!(parse(b"\xff\xfe.py,,5\n").expect("bytes")[0].path, b"\xff\xfe.py");
        assert!(parse(b"").expect("empty").is_empty());
    }

    #[test]
    fn record_locate_and_relative() {
        let prefixes = [b"/home/a/venv".to_vec(), b"/mnt/venv".to_vec()];
        for (written, found) in [
            ("numpy/a.py", Some("lib/python3.11/site-packages/numpy/a.py")),
            ("../../../bin/f2py", Some("bin/f2py")),
            ("./x/../y.py", Some("lib/python3.11/site-packages/y.py")),
            ("/mnt/venv/share/x", Some("share/x")),
            ("/mnt/venv2/share/x", None),
            ("/usr/bin/x", None),
            ("../../../../x", None),
            ("../../..", None),
        ] {
            assert_eq!(locate(written.as_bytes(), Some(&safe(BASE)), &prefixes), found.map(safe), "{written}");
        }
        assert_eq!(relative(&safe("bin/f2py"), Some(&safe(BASE))), b"../../../bin/f2py");
        assert_eq!(relative(&safe("lib/python3.11/x"), Some(&safe(BASE))), b"../x");
    }

    #[test]
    fn record_rewrite_lists_shipped_files() {
        let rows = [
            row("p/b.py", Some("sha256=bb"), Some(2)),
            row("p/a,1.py", Some("sha256=aa"), Some(1)),
            row("../../../bin/tool", Some("sha256=old"), Some(99)),
            row("p/gone.py", Some("sha256=gg"), Some(7)),
            row("p/__pycache__/b.cpython-39.pyc", None, None),
            row("p-1.dist-info/RECORD", None, None),
            row("p/b.py", None, None),
        ];
        let in_site = |name: &str| safe(&format!("{BASE}/{name}"));
        let shipped = BTreeMap::from([
            (in_site("p/b.py"), Shipped::Kept),
            (in_site("p/a,1.py"), Shipped::Kept),
            (in_site("p/__pycache__/b.cpython-311.pyc"), Shipped::Unhashed),
            (in_site("p-1.dist-info/RECORD"), Shipped::Unhashed),
            (safe("bin/tool"), Shipped::changed(b"")),
        ]);
        let text = String::from_utf8(rewrite(&rows, Some(&safe(BASE)), &[], &shipped)).expect("utf-8");
        assert_eq!(
            text,
            "../../../bin/tool,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n\
             p-1.dist-info/RECORD,,\n\
             p/__pycache__/b.cpython-311.pyc,,\n\
             \"p/a,1.py\",sha256=aa,1\n\
             p/b.py,sha256=bb,2\n"
        );
        let again = parse(text.as_bytes()).expect("parses");
        assert_eq!(rewrite(&again, Some(&safe(BASE)), &[], &shipped), text.as_bytes());
    }

    #[test]
    fn record_matches_by_algorithm() {
        assert_eq!(matches(&hash(b"x"), b"x"), Some(true));
        assert_eq!(matches(&hash(b"x"), b"y"), Some(false));
        assert_eq!(matches("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=", b""), Some(true));
        assert_eq!(matches("md5=1B2M2Y8AsgTpgAmY7PhCfg", b""), None);
        assert_eq!(
            matches(
                "sha512=z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg_SpIdNs6c5H0NE8XYXysP-DGNKHfuwvY7kxvUdBeoGlODJ6-SfaPg",
                b""
            ),
            Some(true)
        );
    }

    proptest! {
        #[test]
        fn record_parse_reads_or_refuses_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn relative_and_locate_are_inverse(a in "[a-c]{1,2}(/[a-c]{1,2}){0,4}", b in "[a-c]{1,2}(/[a-c]{1,2}){0,4}") {
            prop_assert_eq!(locate(&relative(&safe(&a), Some(&safe(&b))), Some(&safe(&b)), &[]), Some(safe(&a)));
        }

        #[test]
        fn record_write_field_survives_parsing(path in "[a-z,\"\n\r ]{1,12}") {
            let mut text = Vec::new();
            write_field(&mut text, path.as_bytes());
            text.extend_from_slice(b",,\n");
            prop_assert_eq!(&parse(&text).expect("parses")[0].path, path.as_bytes());
        }
    }
}
