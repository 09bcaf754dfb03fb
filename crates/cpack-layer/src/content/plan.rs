//! Decides what each file of a layer is made of: a pure function of the list of installed files.

use std::collections::HashMap;

use cpack_discover::{FileKind, FileStat, Placeholder};
use cpack_format::SafePath;

use super::prefix_text::is_candidate;
use super::pyc;

/// What a file of a layer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action<'a> {
    /// The installed file.
    Copy,
    /// The installed file in relocatable form, if it is a script for the environment's interpreter.
    Script,
    /// The byte-code of the installed file, which is a source; `installed` is the `.pyc` that is there now.
    ByteCode { installed: Option<&'a FileStat> },
    /// The list of all other files.
    Record,
    /// The installed file without local paths and credentials.
    DirectUrl,
    /// The installed file, in which the environment's path is made relative.
    Text,
    /// The installed file of a conda package, with the placeholder that it was built with.
    Restored(&'a Placeholder),
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePlan<'a> {
    pub(super) path: SafePath,
    pub(super) action: Action<'a>,
    /// The installed file that it is made from.
    pub(super) from: &'a FileStat,
}

/// What the plan depends on besides the files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// The `.dist-info` directory, if the files are those of a distribution.
    pub(super) info: Option<&'a SafePath>,
    /// The directory whose sources get byte-code, `None` for all.
    pub(super) modules: Option<&'a SafePath>,
    /// The interpreter's cache tag: `cpython-311`.
    pub(super) cache_tag: &'a str,
    /// Files that hold the environment's path, if they are those of a conda package.
    pub(super) placeholders: Option<&'a HashMap<SafePath, Placeholder>>,
    /// Whether every text may name the environment's path: files of a conda environment that no record describes.
    pub(super) is_unknown: bool,
}

/// Plans the files of a layer, in the order of the installed files that they are made from.
///
/// Each source gets byte-code. What is in `__pycache__` is packed in no other way: it is made again, or belongs to a source
/// that is gone, or to another interpreter, or is a cache of numba's, which the times of extracted files invalidate.
pub(super) fn plan<'a>(files: &'a [FileStat], rules: Rules<'a>) -> Vec<FilePlan<'a>> {
    let cached: HashMap<&SafePath, &FileStat> =
        files.iter().filter(|file| is_cached(&file.path)).map(|file| (&file.path, file)).collect();
    let mut plans = Vec::with_capacity(files.len() * 2);
    for from in files {
        let Some(action) = action(from, rules) else { continue };
        plans.push(FilePlan { path: from.path.clone(), action, from });
        if matches!(action, Action::Restored(_)) {
            // Byte-code would keep what is in the source now.
            continue;
        }
        if let Some(path) = byte_code_path(from, rules) {
            let installed = cached.get(&path).copied();
            plans.push(FilePlan { path, action: Action::ByteCode { installed }, from });
        }
    }
    plans
}

/// The action for the installed file itself. `None` leaves it out.
fn action<'a>(file: &FileStat, rules: Rules<'a>) -> Option<Action<'a>> {
    let Rules { info, placeholders, .. } = rules;
    let placeholder = placeholders.and_then(|placeholders| placeholders.get(&file.path));
    let path = file.path.as_bytes();
    let is_file = !matches!(file.kind, FileKind::Link(_));
    let in_info = info.and_then(|info| path.strip_prefix(info.as_bytes())?.strip_prefix(b"/"));
    match in_info {
        Some(b"RECORD") if is_file => Some(Action::Record),
        Some(b"direct_url.json") if is_file => Some(Action::DirectUrl),
        // uv's own notes: when and with which settings it built the wheel.
        Some(b"uv_cache.json" | b"uv_build.json") => None,
        _ if is_cached(&file.path) => None,
        _ if is_file && placeholder.is_some() => placeholder.map(Action::Restored),
        _ if is_file && (path.starts_with(b"bin/") || is_script_of_overlay(path)) => Some(Action::Script),
        _ if is_file && is_candidate(&file.path) => Some(Action::Text),
        // Byte-code would keep what is in a source now.
        _ if is_file && rules.is_unknown && !path.ends_with(b".py") => Some(Action::Text),
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

/// The path of a file's byte-code, if it is a source that gets some.
fn byte_code_path(file: &FileStat, rules: Rules<'_>) -> Option<SafePath> {
    if let Some(modules) = rules.modules {
        file.path.as_bytes().strip_prefix(modules.as_bytes())?.strip_prefix(b"/")?;
    }
    pyc::cache_path(&file.path, rules.cache_tag).filter(|_| !matches!(file.kind, FileKind::Link(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(path: &str, kind: FileKind) -> FileStat {
        let path = SafePath::new(path.as_bytes()).expect("safe");
        FileStat { path, source: None, size: 0, mtime_ns: 0, ctime_ns: 0, ino: 0, kind }
    }

    fn summary(files: &[FileStat], rules: Rules<'_>) -> Vec<String> {
        let line = |planned: &FilePlan<'_>| match planned.action {
            Action::ByteCode { installed } => format!("{} {}", planned.path, installed.is_some()),
            action => format!("{} {action:?}", planned.path),
        };
        plan(files, rules).iter().map(line).collect()
    }

    #[test]
    fn plan_knows_every_kind_of_file() {
        let files = [
            ("bin/tool", FileKind::Executable),
            ("bin/link", FileKind::Link(b"tool"[..].into())),
            ("bin/helper.py", FileKind::File),
            ("lib/p/site/a.py", FileKind::File),
            ("lib/p/site/__pycache__/a.cpython-311.pyc", FileKind::File),
            ("lib/p/site/__pycache__/a.cpython-310.pyc", FileKind::File),
            ("lib/p/site/__pycache__/gone.cpython-311.pyc", FileKind::File),
            ("lib/p/site/__pycache__/a.f-1.py311.nbi", FileKind::File),
            ("lib/p/site/__pycache__/notes.txt", FileKind::File),
            ("lib/p/site/sub/__init__.py", FileKind::File),
            ("lib/p/site/sub/link.py", FileKind::Link(b"a.py"[..].into())),
            ("lib/p/site/sub/only.pyc", FileKind::File),
            ("lib/p/site/x-1.dist-info/RECORD", FileKind::File),
            ("lib/p/site/x-1.dist-info/direct_url.json", FileKind::File),
            ("lib/p/site/x-1.dist-info/INSTALLER", FileKind::File),
            ("lib/p/site/x-1.dist-info/uv_cache.json", FileKind::File),
            ("lib/p/site/x-1.dist-info/licenses/RECORD", FileKind::File),
            ("lib/p/site/y-1.dist-info/RECORD", FileKind::File),
            ("lib/p2/b.py", FileKind::File),
            ("share/jupyter/kernels/x/kernel.json", FileKind::File),
            ("share/man/x", FileKind::File),
            ("etc/x", FileKind::File),
            ("lib/p/site-packages/x.pth", FileKind::File),
        ]
        .map(|(path, kind)| installed(path, kind));
        let (info, modules) = ("lib/p/site/x-1.dist-info", "lib/p");
        let safe = |path: &str| SafePath::new(path.as_bytes()).expect("safe");
        let (info, modules) = (safe(info), safe(modules));
        let rules = Rules {
            info: Some(&info),
            modules: Some(&modules),
            cache_tag: "cpython-311",
            placeholders: None,
            is_unknown: false,
        };
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
            "share/jupyter/kernels/x/kernel.json Text",
            "share/man/x Copy",
            "etc/x Text",
            "lib/p/site-packages/x.pth Text",
        ];
        assert_eq!(summary(&files, rules), expected);
    }

    #[test]
    fn plan_makes_byte_code_of_all_sources_of_an_overlay() {
        let files = ["a.py", "__pycache__/a.cpython-311.pyc", "x/RECORD"].map(|path| installed(path, FileKind::File));
        let all = Rules { info: None, modules: None, cache_tag: "cpython-39", placeholders: None, is_unknown: false };
        assert_eq!(summary(&files, all), ["a.py Copy", "__pycache__/a.cpython-39.pyc false", "x/RECORD Copy"]);
    }
}
