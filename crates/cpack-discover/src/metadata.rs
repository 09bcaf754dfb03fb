//! Parsers of the small files of a `.dist-info` or `.egg-info`: METADATA, WHEEL, `entry_points.txt`, `direct_url.json`.
//! They skip damaged parts.

use serde::Deserialize;

use super::model::{DirectUrl, EntryPoint};

/// Normalises a name as PEP 503 does: lower case, each run of `-`, `_` and `.` becomes one `-`.
pub fn normalise(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.trim().chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

/// The headers of METADATA or PKG-INFO that discovery needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Headers {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) requires: Vec<String>,
}

impl Headers {
    /// Parses the headers up to the first empty line. `None` without a name.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut headers = Self::default();
        for (key, value) in fields(bytes) {
            match key.to_ascii_lowercase().as_str() {
                "name" if headers.name.is_empty() => headers.name = value,
                "version" if headers.version.is_empty() => headers.version = value,
                "requires-dist" => headers.requires.push(value),
                _ => {}
            }
        }
        (!headers.name.is_empty()).then_some(headers)
    }

    /// Parses the name of a `.dist-info` or `.egg-info`: `name-version[-py3.11]`.
    pub(super) fn from_file_name(stem: &str) -> Self {
        let mut parts = stem.splitn(3, '-');
        let name = parts.next().unwrap_or(stem).to_owned();
        Self { name, version: parts.next().unwrap_or_default().to_owned(), ..Self::default() }
    }
}

/// `Key: value` lines up to the first empty one; lines that start with a blank continue the one before.
fn fields(bytes: &[u8]) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        let text = String::from_utf8_lossy(line);
        match (text.chars().next(), fields.last_mut()) {
            (None, _) => break,
            (Some(' ' | '\t'), Some((_, value))) => {
                value.push(' ');
                value.push_str(text.trim());
            }
            _ => {
                if let Some((key, value)) = text.split_once(':') {
                    fields.push((key.trim().to_owned(), value.trim().to_owned()));
                }
            }
        }
    }
    fields
}

pub(super) fn wheel_tags(bytes: &[u8]) -> Vec<String> {
    fields(bytes).into_iter().filter(|(key, _)| key.eq_ignore_ascii_case("tag")).map(|(_, value)| value).collect()
}

/// `[section]` headers and the lines below them, without comments and empty lines.
fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut section = "";
    text.lines().map(str::trim).filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim();
            return None;
        }
        (!line.is_empty() && !line.starts_with(['#', ';'])).then_some((section, line))
    })
}

/// The scripts of `entry_points.txt`, sorted.
pub(super) fn entry_points(text: &str) -> Vec<EntryPoint> {
    let mut points: Vec<EntryPoint> = sections(text)
        .filter(|(section, _)| matches!(*section, "console_scripts" | "gui_scripts"))
        .filter_map(|(_, line)| {
            let (name, value) = line.split_once('=')?;
            Some(EntryPoint { name: name.trim().to_owned(), value: value.trim().to_owned() })
        })
        .collect();
    points.sort_unstable();
    points.dedup_by(|a, b| a.name == b.name);
    points
}

/// Converts an `.egg-info`'s `requires.txt` into values of `Requires-Dist`.
pub(super) fn egg_requires(text: &str) -> Vec<String> {
    sections(text)
        .map(|(section, requirement)| {
            let (extra, marker) = section.split_once(':').unwrap_or((section, ""));
            let extra = if extra.is_empty() { String::new() } else { format!("extra == '{extra}'") };
            match (extra.as_str(), marker) {
                ("", "") => requirement.to_owned(),
                ("", condition) | (condition, "") => format!("{requirement}; {condition}"),
                (extra, marker) => format!("{requirement}; ({marker}) and {extra}"),
            }
        })
        .collect()
}

pub(super) fn direct_url(bytes: &[u8]) -> Option<DirectUrl> {
    #[derive(Deserialize)]
    struct File {
        url: String,
        #[serde(default)]
        dir_info: Option<Dir>,
    }

    #[derive(Deserialize)]
    struct Dir {
        #[serde(default)]
        editable: bool,
    }
    let file: File = serde_json::from_slice(bytes).ok()?;
    Some(DirectUrl { url: without_credentials(&file.url), editable: file.dir_info.is_some_and(|d| d.editable) })
}

/// Removes user and password from a URL.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        // In `git+ssh://git@host` the user is no secret.
        Some(("git", _)) | None => url.to_owned(),
        Some((_, host)) => format!("{scheme}://{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_pep_503_says() {
        for (name, normal) in
            [("Zope.Interface", "zope-interface"), ("a__b-.c", "a-b-c"), ("PyYAML", "pyyaml"), (" x ", "x")]
        {
            assert_eq!(normalise(name), normal);
        }
    }

    #[test]
    fn headers_end_at_the_first_empty_line() {
        let text = b"Metadata-Version: 2.1\r\nName: Zope.Interface\r\nVersion: 5\r\nRequires-Dist: a>=1 ;\r\n  extra == 'x'\r\nrequires-python: >=3.8\r\n\r\nName: other\r\n";
        let headers = Headers::parse(text).expect("a name");
        assert_eq!((headers.name.as_str(), headers.version.as_str()), ("Zope.Interface", "5"));
        assert_eq!(headers.requires, ["a>=1 ; extra == 'x'"]);
        assert_eq!(Headers::parse(b"Version: 1\n"), None);
        let named = Headers::from_file_name("foo_bar-1.0-py3.11");
        assert_eq!((named.name.as_str(), named.version.as_str()), ("foo_bar", "1.0"));
    }

    #[test]
    fn scripts_of_both_groups_are_found() {
        let text = "[console_scripts]\n# no\nb = m:f [extra]\na=m.n:g\n\n[gui_scripts]\nw = m:w\n[x.plugins]\nz = m\n";
        let found: Vec<_> = entry_points(text).into_iter().map(|e| (e.name, e.value)).collect();
        let expected = [("a", "m.n:g"), ("b", "m:f [extra]"), ("w", "m:w")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn egg_requirements_become_markers() {
        let text = "a>=1\n\n[:python_version < '3']\nb\n\n[x]\nc\n\n[y:sys_platform == 'z']\nd\n";
        let expected =
            ["a>=1", "b; python_version < '3'", "c; extra == 'x'", "d; (sys_platform == 'z') and extra == 'y'"];
        assert_eq!(egg_requires(text), expected);
    }

    #[test]
    fn direct_urls_lose_their_credentials() {
        for (url, expected) in [
            ("https://u:p@h.example/x.git", "https://h.example/x.git"),
            ("ssh://git@h.example/x", "ssh://git@h.example/x"),
            ("https://h.example/a@b", "https://h.example/a@b"),
            ("file:///a/b", "file:///a/b"),
        ] {
            let json = format!(r#"{{"url":"{url}","dir_info":{{"editable":true}}}}"#);
            let found = direct_url(json.as_bytes()).expect("parses");
            assert_eq!((found.url.as_str(), found.editable), (expected, true));
        }
        let git = direct_url(br#"{"url":"u","vcs_info":{"vcs":"git","commit_id":"abc"}}"#).expect("parses");
        assert!(!git.editable);
        assert_eq!(direct_url(b"{"), None);
    }
}
