//! Text files that name the environment's own path, which is another where the environment is booted.
//!
//! | file | becomes |
//! | --- | --- |
//! | `share/jupyter/kernels/NAME/kernel.json` | programs and arguments below the path begin with `{resource_dir}/../../../..`: Jupyter puts the directory of the file in its place |
//! | `*.pth` beside installed modules | lines that are paths are relative to the directory of the file, as `site` reads them |
//!
//! What else names the path, in these files and in others ([`is_candidate`]), is reported.

use cpack_discover::record;
use cpack_format::SafePath;

/// What to begin arguments with that are below the environment's path. The file is four directories below.
const FROM_KERNEL: &str = "{resource_dir}/../../../..";

/// A file with its text mended as far as possible.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// The text, if it is another than before.
    pub text: Option<Vec<u8>>,
    /// Whether it still names the environment's path.
    pub names_prefix: bool,
}

/// Whether the file at a path is one whose text is looked at.
pub fn is_candidate(path: &SafePath) -> bool {
    let text = path.as_bytes();
    [&b"bin/"[..], b"etc/", b"share/jupyter/"].iter().any(|folder| text.starts_with(folder)) || is_pth(path)
}

/// Mends the text of the file at `path`. `prefixes` are the ways in which the environment's path may be spelt.
pub fn mend(path: &SafePath, text: &[u8], prefixes: &[Vec<u8>]) -> Mended {
    if !names(text, prefixes) {
        return Mended::default();
    }
    let new = if is_kernel(path) {
        mend_kernel(text, prefixes)
    } else if is_pth(path) {
        path.parent().map(|base| mend_pth(text, &base, prefixes))
    } else {
        None
    };
    let text = new.filter(|new| new != text);
    let names_prefix = text.as_ref().is_none_or(|text| names(text, prefixes));
    Mended { text, names_prefix }
}

/// Whether a text, and not a binary, names one of these paths, or something below it.
pub fn names(text: &[u8], prefixes: &[Vec<u8>]) -> bool {
    let finds = |prefix: &Vec<u8>| {
        let mut places = text.windows(prefix.len().max(1)).enumerate();
        prefix.len() > 1 && places.any(|(at, part)| part == prefix && is_alone(text, at, prefix.len()))
    };
    !text.iter().take(1024).any(|byte| *byte == 0) && prefixes.iter().any(finds)
}

/// Whether the path of this length at this place is no part of another name.
pub(super) fn is_alone(text: &[u8], at: usize, length: usize) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
    !is_part(at.checked_sub(1).and_then(|at| text.get(at))) && !is_part(text.get(at + length))
}

fn is_kernel(path: &SafePath) -> bool {
    let parts: Vec<&[u8]> = path.components().collect();
    matches!(parts[..], [b"share", b"jupyter", b"kernels", _, b"kernel.json"])
}

fn is_pth(path: &SafePath) -> bool {
    path.as_bytes().ends_with(b".pth") && path.components().nth_back(1) == Some(b"site-packages")
}

/// What is left of `path` below one of the prefixes: empty for the prefix itself.
fn below<'a>(path: &'a [u8], prefixes: &[Vec<u8>]) -> Option<&'a [u8]> {
    prefixes.iter().find_map(|prefix| {
        let rest = path.strip_prefix(prefix.as_slice())?;
        if rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    })
}

fn mend_kernel(text: &[u8], prefixes: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut kernel: serde_json::Value = serde_json::from_slice(text).ok()?;
    for argument in kernel.get_mut("argv")?.as_array_mut()? {
        let found = argument.as_str().and_then(|text| below(text.as_bytes(), prefixes));
        if let Some(rest) = found {
            let rest = String::from_utf8_lossy(rest);
            let slash = if rest.is_empty() { "" } else { "/" };
            *argument = format!("{FROM_KERNEL}{slash}{rest}").into();
        }
    }
    serde_json::to_vec_pretty(&kernel).ok()
}

fn mend_pth(text: &[u8], base: &SafePath, prefixes: &[Vec<u8>]) -> Vec<u8> {
    let mend = |line: &[u8]| -> Option<Vec<u8>> {
        let path = line.trim_ascii_end();
        let rest = below(path, prefixes)?.strip_suffix(b"/").unwrap_or(below(path, prefixes)?);
        let relative = match rest {
            b"" => base.components().map(|_| &b".."[..]).collect::<Vec<_>>().join(&b'/'),
            rest => record::relative(&SafePath::new(rest).ok()?, Some(base)),
        };
        let relative = if relative.is_empty() { b".".to_vec() } else { relative };
        Some([&relative, line.get(path.len()..).unwrap_or_default()].concat())
    };
    text.split_inclusive(|byte| *byte == b'\n').flat_map(|line| mend(line).unwrap_or_else(|| line.to_vec())).collect()
}

/// What the user should know about files that name the environment's path.
pub fn warning(files: &[String], prefix: &std::path::Path) -> Option<String> {
    let first = files.first()?;
    let (more, they) = match files.len() {
        1 => (String::new(), "names"),
        n => (format!(" and {} more", n - 1), "name"),
    };
    Some(format!(
        "{first}{more} {they} the environment's own path {}, which is another one where it is booted: packed as it is",
        prefix.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(path: &str, text: &str) -> (Option<String>, bool) {
        let prefixes = [b"/home/a/venv".to_vec(), b"/mnt/a".to_vec()];
        let path = SafePath::new(path.as_bytes()).expect("safe");
        assert!(is_candidate(&path), "{path}");
        let Mended { text, names_prefix } = mend(&path, text.as_bytes(), &prefixes);
        (text.map(|text| String::from_utf8(text).expect("utf-8")), names_prefix)
    }

    #[test]
    fn prefix_in_a_kernel_is_relative_to_the_kernel() {
        let path = "share/jupyter/kernels/work/kernel.json";
        let kernel = r#"{"argv": ["/home/a/venv/bin/python", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f",
            "{connection_file}", "/home/a/venv", "/mnt/a/x"], "display_name": "work"}"#;
        let (text, names_prefix) = mended(path, kernel);
        let found: serde_json::Value = serde_json::from_str(&text.expect("mended")).expect("JSON");
        let up = "{resource_dir}/../../../..";
        let python = format!("{up}/bin/python");
        let expected = [&python, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}", up];
        let arguments: Vec<&str> =
            found["argv"].as_array().expect("a list").iter().filter_map(|v| v.as_str()).collect();
        assert_eq!(arguments, [&expected[..], &[&format!("{up}/x")]].concat());
        assert_eq!((found["display_name"].as_str(), names_prefix), (Some("work"), false));
        // Variables of a kernel are not formatted.
        let (text, names_prefix) =
            mended(path, r#"{"argv": ["/mnt/a/bin/python"], "env": {"PATH": "/home/a/venv/bin:/bin"}}"#);
        assert!(text.expect("mended").contains("{resource_dir}") && names_prefix);
        assert_eq!(mended(path, r#"{"argv": ["python", "-m", "x"]}"#), (None, false));
        assert_eq!(mended(path, "no JSON /mnt/a"), (None, true));
    }

    #[test]
    fn prefix_in_a_pth_is_relative_to_site_packages() {
        let path = "lib/python3.11/site-packages/x.pth";
        let site = "/home/a/venv/lib/python3.11/site-packages";
        let lines = format!("import x\n{site}/a.egg\r\n/mnt/a/src/p/\n{site}\n/elsewhere\n# {site}\n/home/a/venv\n");
        let expected =
            "import x\na.egg\r\n../../../src/p\n.\n/elsewhere\n# /home/a/venv/lib/python3.11/site-packages\n../../..\n";
        assert_eq!(mended(path, &lines), (Some(expected.into()), true));
        assert_eq!(mended(path, &format!("{site}/a")), (Some("a".into()), false));
        assert_eq!(mended(path, "import os; os.path.join('/home/a/venv', 'x')\n"), (None, true));
        assert_eq!(mended(path, "a\n"), (None, false));
    }

    #[test]
    fn prefix_in_other_text_is_told_from_what_only_looks_like_it() {
        for (text, expected) in [
            ("HOME=/home/a/venv\n", true),
            ("url = file:///home/a/venv/x", true),
            ("\"/mnt/a\"", true),
            ("/mnt/a/b:/mnt", true),
            ("/home/a/venv2/bin", false),
            ("/home/a/venv.old", false),
            ("/x/mnt/a", false),
            ("x/mnt/a", false),
            ("\0/mnt/a", false),
            ("", false),
        ] {
            assert_eq!(mended("etc/x.conf", text), (None, expected), "{text}");
        }
        let other = SafePath::new(b"lib/python3.11/site-packages/x/data.pth").expect("safe");
        assert!(!is_candidate(&other));
    }
}
