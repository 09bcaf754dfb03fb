//! What becomes of each file: a pure function of the list of files.

use std::collections::HashMap;
use std::path::PathBuf;

use cpack_artifact::SafePath;
use cpack_artifact::content::Kind;

/// A file as installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where it is in the environment, and will be in the layer.
    pub path: SafePath,
    /// Where its bytes are.
    pub place: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// When its bytes were changed last, in seconds since 1970.
    pub modified: i64,
    /// Where it leads, if it is a link.
    pub target: Vec<u8>,
    /// Whether it may differ from what `RECORD` says of it, so that it must be read.
    pub suspect: bool,
}

/// What a file of a layer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// The installed file.
    Copy,
    /// The installed file in relocatable form, if it is a script for the environment's interpreter.
    Script,
    /// The byte-code of the installed file, which is a source.
    ByteCode {
        /// What was installed in its place.
        installed: Option<&'a Installed>,
    },
    /// A list of all others.
    Record,
    /// The installed file without local paths and credentials.
    DirectUrl,
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<'a> {
    /// Where it will be.
    pub path: SafePath,
    /// What it is made of.
    pub action: Action<'a>,
    /// The installed file that it is made from.
    pub from: &'a Installed,
}

/// What the plan depends on besides the files.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The `.dist-info` directory, if the files are those of a distribution.
    pub info: Option<&'a SafePath>,
    /// The directory whose sources get byte-code, `None` for all; and the interpreter's cache tag, such as
    /// `cpython-311`. Without it there is no byte-code.
    pub byte_code: Option<(Option<&'a SafePath>, &'a str)>,
}

/// The files of the layer, in the order in which those that they are made from are given.
///
/// Byte-code is planned for each source. What is in `__pycache__` is packed in no other way: it is made again, or belongs
/// to a source that is gone, or to another interpreter, or is a cache of numba's, which the times of extracted files void.
pub fn plan<'a>(files: &'a [Installed], rules: Rules<'_>) -> Vec<Planned<'a>> {
    let cached: HashMap<&SafePath, &Installed> =
        files.iter().filter(|file| is_cached(&file.path)).map(|file| (&file.path, file)).collect();
    let mut planned = Vec::with_capacity(files.len() * 2);
    for from in files {
        let Some(action) = action(from, rules.info) else { continue };
        planned.push(Planned { path: from.path.clone(), action, from });
        if let Some(path) = byte_code_path(from, rules.byte_code) {
            let installed = cached.get(&path).copied();
            planned.push(Planned { path, action: Action::ByteCode { installed }, from });
        }
    }
    planned
}

/// What becomes of an installed file itself.
fn action(file: &Installed, info: Option<&SafePath>) -> Option<Action<'static>> {
    let path = file.path.as_bytes();
    let is_file = matches!(file.kind, Kind::File | Kind::Executable);
    let in_info = info.and_then(|info| path.strip_prefix(info.as_bytes())?.strip_prefix(b"/"));
    match in_info {
        Some(b"RECORD") if is_file => Some(Action::Record),
        Some(b"direct_url.json") if is_file => Some(Action::DirectUrl),
        // uv's own notes: when and with which settings it built the wheel.
        Some(b"uv_cache.json" | b"uv_build.json") => None,
        _ if is_cached(&file.path) => None,
        _ if is_file && (path.starts_with(b"bin/") || is_script_of_overlay(path)) => Some(Action::Script),
        _ => Some(Action::Copy),
    }
}

/// Whether a file of an overlay is a script: `NAME-VERSION.data/scripts/x`.
fn is_script_of_overlay(path: &[u8]) -> bool {
    let mut parts = path.split(|byte| *byte == b'/');
    parts.next().is_some_and(|top| top.ends_with(b".data")) && parts.next() == Some(b"scripts")
}

/// Whether a file is byte-code in a `__pycache__`, or machine code that numba keeps there.
fn is_cached(path: &SafePath) -> bool {
    let mut parts = path.components().rev();
    let (name, directory) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    directory == b"__pycache__" && [&b".pyc"[..], b".nbi", b".nbc"].iter().any(|end| name.ends_with(end))
}

/// Where the byte-code of a file goes, if it is a source that gets some.
fn byte_code_path(file: &Installed, byte_code: Option<(Option<&SafePath>, &str)>) -> Option<SafePath> {
    let (modules, tag) = byte_code?;
    let path = file.path.as_bytes();
    let stem = path.strip_suffix(b".py").filter(|_| matches!(file.kind, Kind::File | Kind::Executable))?;
    if let Some(modules) = modules {
        path.strip_prefix(modules.as_bytes())?.strip_prefix(b"/")?;
    }
    let (directory, name) = stem.split_at(stem.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1));
    // A name that gets too long by this has no byte-code in Python either.
    SafePath::new(&[directory, b"__pycache__/", name, b".", tag.as_bytes(), b".pyc"].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(path: &str, kind: Kind) -> Installed {
        let path = SafePath::new(path.as_bytes()).expect("safe");
        let place = PathBuf::from("/env").join(&path);
        Installed { path, place, kind, size: 0, modified: 0, target: Vec::new(), suspect: false }
    }

    fn summary(files: &[Installed], rules: Rules<'_>) -> Vec<String> {
        let line = |planned: &Planned<'_>| match planned.action {
            Action::ByteCode { installed } => format!("{} {}", planned.path, installed.is_some()),
            action => format!("{} {action:?}", planned.path),
        };
        plan(files, rules).iter().map(line).collect()
    }

    #[test]
    fn every_kind_of_file_is_known() {
        let files = [
            ("bin/tool", Kind::Executable),
            ("bin/link", Kind::Link),
            ("bin/helper.py", Kind::File),
            ("lib/p/site/a.py", Kind::File),
            ("lib/p/site/__pycache__/a.cpython-311.pyc", Kind::File),
            ("lib/p/site/__pycache__/a.cpython-310.pyc", Kind::File),
            ("lib/p/site/__pycache__/gone.cpython-311.pyc", Kind::File),
            ("lib/p/site/__pycache__/a.f-1.py311.nbi", Kind::File),
            ("lib/p/site/__pycache__/notes.txt", Kind::File),
            ("lib/p/site/sub/__init__.py", Kind::File),
            ("lib/p/site/sub/link.py", Kind::Link),
            ("lib/p/site/sub/only.pyc", Kind::File),
            ("lib/p/site/x-1.dist-info/RECORD", Kind::File),
            ("lib/p/site/x-1.dist-info/direct_url.json", Kind::File),
            ("lib/p/site/x-1.dist-info/INSTALLER", Kind::File),
            ("lib/p/site/x-1.dist-info/uv_cache.json", Kind::File),
            ("lib/p/site/x-1.dist-info/licenses/RECORD", Kind::File),
            ("lib/p/site/y-1.dist-info/RECORD", Kind::File),
            ("lib/p2/b.py", Kind::File),
            ("share/empty", Kind::Directory),
        ]
        .map(|(path, kind)| installed(path, kind));
        let (info, modules) = ("lib/p/site/x-1.dist-info", "lib/p");
        let safe = |path: &str| SafePath::new(path.as_bytes()).expect("safe");
        let (info, modules) = (safe(info), safe(modules));
        let rules = Rules { info: Some(&info), byte_code: Some((Some(&modules), "cpython-311")) };
        let expected = [
            "bin/tool Script",
            "bin/link Copy",
            "bin/helper.py Script",
            "lib/p/site/a.py Copy",
            "lib/p/site/__pycache__/a.cpython-311.pyc true",
            "lib/p/site/__pycache__/notes.txt Copy",
            "lib/p/site/sub/__init__.py Copy",
            "lib/p/site/sub/__pycache__/__init__.cpython-311.pyc false",
            "lib/p/site/sub/link.py Copy",
            "lib/p/site/sub/only.pyc Copy",
            "lib/p/site/x-1.dist-info/RECORD Record",
            "lib/p/site/x-1.dist-info/direct_url.json DirectUrl",
            "lib/p/site/x-1.dist-info/INSTALLER Copy",
            "lib/p/site/x-1.dist-info/licenses/RECORD Copy",
            "lib/p/site/y-1.dist-info/RECORD Copy",
            "lib/p2/b.py Copy",
            "share/empty Copy",
        ];
        assert_eq!(summary(&files, rules), expected);
    }

    #[test]
    fn byte_code_is_left_out_or_made_everywhere() {
        let files = ["a.py", "__pycache__/a.cpython-311.pyc", "x/RECORD"].map(|path| installed(path, Kind::File));
        let none = Rules { info: None, byte_code: None };
        assert_eq!(summary(&files, none), ["a.py Copy", "x/RECORD Copy"]);
        let all = Rules { info: None, byte_code: Some((None, "cpython-39")) };
        assert_eq!(summary(&files, all), ["a.py Copy", "__pycache__/a.cpython-39.pyc false", "x/RECORD Copy"]);
    }
}
