//! `bin/` scripts that find their interpreter beside themselves, wherever the environment lies.
//!
//! Installers write the absolute path of the environment's `python` into scripts, in one of these forms:
//!
//! ```text
//! #!/x/venv/bin/python -E                         if it is short and has no spaces
//! #!/bin/sh                                       else; the path is quoted in one of several ways
//! '''exec' "/x y/venv/bin/python" "$0" "$@"
//! ' '''
//! ```
//!
//! What they get here is the form of [`cpack_format::script`]; what one installer writes for a path with spaces and
//! without becomes the same.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use cpack_format::script::{BESIDE, relocatable, split, split_comments, split_line};

/// The directories in which an interpreter is the environment's.
///
/// The path of an environment may be spelt in many ways: through links, through `..`, relative to where an installer was
/// started. Paths are compared as files, as far as they are there.
#[derive(Debug, Clone, Default)]
pub struct Interpreters {
    /// `bin` of the environment, in the ways in which it is known to be spelt.
    spelt: Vec<PathBuf>,
    /// `bin` of the environment without links.
    real: Option<PathBuf>,
    /// The interpreter behind the environment's.
    base: Option<PathBuf>,
}

impl Interpreters {
    /// Those of the environment at `prefixes`, the ways in which its path is known to be spelt.
    pub fn of(prefixes: &[Vec<u8>]) -> Self {
        let spelt: Vec<PathBuf> =
            prefixes.iter().map(|prefix| Path::new(OsStr::from_bytes(prefix)).join("bin")).collect();
        let real = spelt.iter().find_map(|bin| fs::canonicalize(bin).ok());
        Self { spelt, real, base: None }
    }

    /// Those for the script at `place`. One that lies outside of the environment and becomes part of it, of a system or of
    /// an environment of additions, may name the interpreter beside itself or the one behind the environment's, too.
    pub fn at(&self, place: &Path, base: &Path) -> Cow<'_, Self> {
        let is_inside = |bin: &PathBuf| bin.parent().is_some_and(|prefix| place.starts_with(prefix));
        match place.parent() {
            Some(beside) if !self.spelt.iter().chain(&self.real).any(is_inside) => {
                let mut more = self.clone();
                more.spelt.push(beside.to_owned());
                more.base = Some(base.to_owned());
                Cow::Owned(more)
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether a program is an interpreter of the environment.
    fn has(&self, program: &[u8]) -> bool {
        let program = Path::new(OsStr::from_bytes(program));
        let (Some(bin), Some(name)) = (program.parent(), program.file_name()) else { return false };
        let is_base = || self.base.is_some() && fs::canonicalize(program).ok() == self.base;
        is_python(name.as_bytes()) && program.is_absolute() && (self.is_bin(bin) || is_base())
    }

    fn is_bin(&self, directory: &Path) -> bool {
        let is_known = |path: &Path| self.spelt.iter().any(|bin| bin == path) || self.real.as_deref() == Some(path);
        // What is between may be gone: `/x/gone/../venv/bin`.
        is_known(directory)
            || fs::canonicalize(directory).is_ok_and(|path| is_known(&path))
            || is_known(&without_dots(directory))
    }
}

/// A path without `.` and `..`, as if it had no links.
fn without_dots(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// What a script is to the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// It runs by the environment's interpreter: in relocatable form.
    Ours(Vec<u8>),
    /// It names another Python by its path, and is left alone.
    Stranger(String),
    /// Anything else, which is left alone: scripts for other programs, or for a Python on `PATH`; binaries.
    Other,
}

/// A script that runs by the environment's interpreter, in parts.
struct Parsed<'a> {
    options: &'a [u8],
    comments: Vec<&'a [u8]>,
    body: &'a [u8],
}

/// The relocatable form of a script that runs by the environment's interpreter.
pub fn relocate(script: &[u8], interpreters: &Interpreters) -> Script {
    match parse(script, interpreters) {
        Ok(parsed) => Script::Ours(relocatable(parsed.options, &parsed.comments, parsed.body)),
        Err(other) => other,
    }
}

/// The script as wheels have it, if it runs by the environment's interpreter: its first line is `#!python`, for installers
/// to replace.
pub fn as_in_wheel(script: &[u8], interpreters: &Interpreters) -> Result<Vec<u8>, Script> {
    let Parsed { options, comments, body } = parse(script, interpreters)?;
    let mut out = b"#!python".to_vec();
    if !options.is_empty() {
        out.push(b' ');
        out.extend_from_slice(options);
    }
    out.push(b'\n');
    for comment in comments {
        out.extend_from_slice(comment);
        out.push(b'\n');
    }
    out.extend_from_slice(body);
    Ok(out)
}

fn parse<'a>(script: &'a [u8], interpreters: &Interpreters) -> Result<Parsed<'a>, Script> {
    let (first, rest) = split_line(script);
    let Some(line) = first.strip_prefix(b"#!") else { return Err(Script::Other) };
    let (program, options, comments, body) = match split(script) {
        Some(shell) => match beside(shell.command).or_else(|| unquote(shell.command)) {
            Some((program, options)) => (program, options, shell.comments, shell.body),
            None => return Err(Script::Other),
        },
        None => {
            let (program, options) = shebang(line, interpreters);
            let (comments, body) = split_comments(rest);
            (program.to_vec(), options, comments, body)
        }
    };
    let is_beside = !program.contains(&b'/') && is_python(&program);
    if !is_beside && !interpreters.has(&program) {
        let shown = String::from_utf8_lossy(&program).into_owned();
        let name = Path::new(&shown).file_name().unwrap_or_default().as_bytes();
        let is_stranger = program.starts_with(b"/") && (is_python(name) || name.starts_with(b"pypy"));
        return Err(if is_stranger { Script::Stranger(shown) } else { Script::Other });
    }
    // Anything else would need quoting for the shell.
    if !options.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-=_.,:/ ".contains(byte)) {
        return Err(Script::Other);
    }
    Ok(Parsed { options, comments, body })
}

/// The name of the program beside the script that a command runs, and its options.
fn beside(command: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let word = BESIDE.iter().find_map(|beside| command.strip_prefix(*beside))?;
    unquote(word)
}

/// The interpreter of a `#!` line and its options. The kernel ends the path at the first space; installers that write
/// paths with spaces all the same mean the environment's.
fn shebang<'a>(line: &'a [u8], interpreters: &Interpreters) -> (&'a [u8], &'a [u8]) {
    let line = line.trim_ascii();
    let spelt = interpreters.spelt.iter().find_map(|bin| {
        let bin = bin.as_os_str().as_bytes();
        line.strip_prefix(bin)?.strip_prefix(b"/").map(|_| bin.len())
    });
    let from = spelt.unwrap_or(0);
    let end = line.iter().skip(from).position(u8::is_ascii_whitespace).map_or(line.len(), |at| from + at);
    let (program, options) = line.split_at_checked(end).unwrap_or((line, &[]));
    (program, options.trim_ascii())
}

/// What the user should know about scripts that name a Python that is not the environment's.
pub fn warning(scripts: &[String]) -> Option<String> {
    let first = scripts.first()?;
    let more = if scripts.len() > 1 { format!(" and {} more", scripts.len() - 1) } else { String::new() };
    Some(format!(
        "{first}{more}: the #! line leads to no Python of this environment; packed as it is, to make it run from there \
         reinstall what it belongs to"
    ))
}

/// The text of the first word of a command, and what follows it. Knows the ways of quoting that installers use.
fn unquote(command: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut text = Vec::new();
    let mut rest = command;
    // uv, where the script's coding may not be UTF-8: each byte as '\'0123, an argument of its own.
    if let Some(octal) = rest.strip_prefix(br#""$(printf %b "#) {
        let end = octal.windows(2).position(|pair| pair == b")\"")?;
        for word in octal.get(..end)?.split(|byte| *byte == b' ') {
            let digits = std::str::from_utf8(word.strip_prefix(br"'\'0")?).ok()?;
            text.push(u8::from_str_radix(digits, 8).ok()?);
        }
        return Some((text, octal.get(end + 2..)?.trim_ascii()));
    }
    while let Some((quote, inside)) = rest.split_first() {
        rest = match quote {
            b' ' => break,
            b'\'' | b'"' => {
                let end = inside.iter().position(|byte| byte == quote)?;
                let (quoted, after) = inside.split_at_checked(end)?;
                text.extend_from_slice(quoted);
                after.get(1..)?
            }
            _ => {
                text.push(*quote);
                inside
            }
        };
    }
    // Between double quotes, or none, these mean something that is not known here.
    let plain = !text.iter().any(|byte| b"$`\\\n".contains(byte));
    plain.then(|| (text, rest.trim_ascii()))
}

/// Whether a program's name is that of a Python: `python`, `python3`, `python3.11`, `python3.13t`, `pythonw`.
fn is_python(name: &[u8]) -> bool {
    let version = name.strip_prefix(b"python").unwrap_or(b"?");
    let version = version.strip_suffix(b"w").or(version.strip_suffix(b"t")).unwrap_or(version);
    version.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = concat!(
        "#!/bin/sh\n\x0c# 2>/dev/null; exec ",
        r#""$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@""#,
        "\n"
    );

    fn interpreters(prefixes: &[&str]) -> Interpreters {
        Interpreters::of(&prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect::<Vec<_>>())
    }

    fn relocated(script: &str) -> Option<String> {
        match relocate(script.as_bytes(), &interpreters(&["/home/a/venv", "/mnt/s p/venv"])) {
            Script::Ours(bytes) => Some(String::from_utf8(bytes).expect("utf-8")),
            _ => None,
        }
    }

    #[test]
    fn every_form_of_a_header_becomes_the_same() {
        let exec = |word: &str| format!("#!/bin/sh\n'''exec' {word} \"$0\" \"$@\"\n' '''\n");
        let octal = "#!/bin/sh\n# coding: utf-8\n".to_owned()
            + r#"'''exec' "$(dirname -- "$(realpath -- "$0")")"/"$(printf %b '\'0160 '\'0171 '\'0164 '\'0150 '\'0157 '\'0156)" "$0" "$@""#
            + "\n' '''\n";
        for header in [
            "#!/home/a/venv/bin/python\n".into(),
            "#!/home/a/venv/bin/python3.11\r\n".into(),
            "#! /home/a/venv/bin/python3.13t\n".into(),
            "#!/home/a/project/../venv/bin/python\n".into(),
            "#!/home/a/venv/bin/./python\n".into(),
            "#!/mnt/s p/venv/bin/python3\n".into(),
            exec("/home/a/venv/bin/python"),
            exec(r#""/mnt/s p/venv/bin/python""#),
            exec("'/mnt/s p/venv/bin/python'"),
            exec(r#""$(CDPATH= cd -- "$(dirname -- "$0")" && echo "$PWD")"/'python3'"#),
            exec(r#""$(dirname -- "$(realpath -- "$0")")"/'python'"#),
            exec("/home/a/x/../venv/bin/python"),
            "#!/bin/sh\n'''exec' \"/home/a/venv/bin/python\" \"$0\" \"$@\" #'''\n".into(),
            octal,
            HEADER.into(),
        ] {
            assert_eq!(relocated(&format!("{header}import x\n")), Some(format!("{HEADER}import x\n")), "{header}");
        }
        let quoted = exec(r#"'/it'"'"'s/bin/python'"#);
        assert_eq!(relocate(quoted.as_bytes(), &interpreters(&["/it's"])), Script::Ours(HEADER.into()));
    }

    #[test]
    fn flags_comments_and_docstrings_are_kept() {
        let with = |comments: &str, flags: &str, body: &str| {
            let exec = HEADER.lines().nth(1).expect("a line").replace("'python'", &format!("'python'{flags}"));
            format!("#!/bin/sh\n{comments}{exec}\n{body}")
        };
        for (script, expected) in [
            ("-E -s\nx\n", with("", " -E -s", "x\n")),
            ("\n# coding: latin-1\n\nx\n", with("# coding: latin-1\n\n", "", "x\n")),
            ("\n# coding: utf-8\n  # a\n'''d\n'''\nx\n", with("  # a\n", "", "'''d\n'''\nx\n")),
            ("\nr\"d\\\"\" ; x\n", with("", "", "r\"d\\\"\" ; x\n")),
            ("\n\x0c# x\n'd'\n", with("", "", "\x0c# x\n'd'\n")),
            ("\n\"\"", with("", "", "\"\"")),
            ("", with("", "", "")),
        ] {
            let found = relocated(&format!("#!/home/a/venv/bin/python {script}"));
            assert_eq!(found.as_ref(), Some(&expected), "{script}");
            assert_eq!(relocated(&expected), found, "{script}");
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for other in [
            "",
            "import x\n",
            "\x7fELF",
            "#!/usr/bin/env python\n",
            "#!/usr/bin/env python3\n",
            "#!/usr/bin/python3\n",
            "#!/home/a/venv2/bin/python\n",
            "#!/home/a/venv/bin/node\n",
            "#!/home/a/venv/bin/pythonista\n",
            "#!/home/a/venv/bin/python -c 'x'\n",
            "#!/bin/sh\necho x\n",
            "#!/bin/sh\n# a\n'''exec' /usr/bin/python \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' \"$HOME/venv/bin/python\" \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' \"/home/a/venv/bin/python \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\n'''exec' /home/a/venv/bin/python \"$0\" \"$@\"\n",
            "#!/bin/bash\n",
        ] {
            assert_eq!(relocated(other), None, "{other}");
        }
    }

    #[test]
    fn script_paths_are_compared_as_files() {
        let root = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(root.path()).expect("exists");
        fs::create_dir_all(root.join("v/bin")).expect("makes");
        fs::create_dir_all(root.join("project")).expect("makes");
        fs::create_dir_all(root.join("other/bin")).expect("makes");
        std::os::unix::fs::symlink(&root, root.join("link")).expect("links");
        let root = root.to_str().expect("text");
        let ours = interpreters(&[&format!("{root}/v")]);
        for (path, expected) in [
            ("v/bin/python", true),
            ("project/../v/bin/python3", true),
            ("gone/../v/bin/python3", true),
            ("link/v/bin/python3", true),
            ("link/project/../v//bin/./python3.11", true),
            ("other/bin/python", false),
            ("v/bin/node", false),
            ("v/python", false),
        ] {
            let found = relocate(format!("#!{root}/{path}\nx\n").as_bytes(), &ours);
            assert_eq!(matches!(found, Script::Ours(_)), expected, "{path}: {found:?}");
            let long = format!("#!/bin/sh\n'''exec' '{root}/{path}' \"$0\" \"$@\"\n' '''\nx\n");
            assert_eq!(matches!(relocate(long.as_bytes(), &ours), Script::Ours(_)), expected, "{path}");
        }
    }

    #[test]
    fn script_from_elsewhere_may_name_the_python_beside_it() {
        let ours = interpreters(&["/v"]);
        let (place, base) = (Path::new("/opt/bin/tool"), fs::canonicalize("/bin/sh").expect("a shell"));
        let relocates = |interpreters: &Interpreters, script: &str| {
            matches!(relocate(script.as_bytes(), interpreters), Script::Ours(_))
        };
        assert!(relocates(&ours.at(place, &base), "#!/opt/bin/python3\n"));
        assert!(!relocates(&ours.at(place, &base), "#!/usr/bin/python3.99\n"));
        assert!(!relocates(&ours.at(Path::new("/v/bin/tool"), &base), "#!/opt/bin/python3\n"));
        let root = tempfile::tempdir().expect("a directory");
        let python = root.path().join("python3.11");
        std::os::unix::fs::symlink(&base, &python).expect("links");
        assert!(relocates(&ours.at(place, &base), &format!("#!{}\n", python.display())));
    }

    #[test]
    fn scripts_of_another_python_are_told_from_those_of_other_programs() {
        let ours = interpreters(&["/home/a/venv"]);
        for (script, stranger) in [
            ("#!/old/venv/bin/python3.9 -E\n", Some("/old/venv/bin/python3.9")),
            ("#!/bin/sh\n'''exec' '/o ld/bin/python' \"$0\" \"$@\"\n' '''\nx\n", Some("/o ld/bin/python")),
            ("#!/opt/pypy3/bin/pypy3\n", Some("/opt/pypy3/bin/pypy3")),
            ("#!/usr/bin/env python3\n", None),
            ("#!/usr/bin/perl\n", None),
            ("#!/bin/sh\n", None),
            ("\x7fELF", None),
        ] {
            let expected = stranger.map_or(Script::Other, |path| Script::Stranger(path.into()));
            assert_eq!(relocate(script.as_bytes(), &ours), expected, "{script}");
        }
    }

    #[test]
    fn scripts_get_the_first_line_of_wheels() {
        for (script, expected) in [
            ("#!/v/bin/python3.11\nimport x\n", "#!python\nimport x\n"),
            ("#!/v/bin/python -E\n# coding: latin-1\nx\n", "#!python -E\n# coding: latin-1\nx\n"),
            ("#!/v/bin/python\n\"\"\"Doc.\"\"\"\nimport x\n", "#!python\n\"\"\"Doc.\"\"\"\nimport x\n"),
            ("#!/bin/sh\n'''exec' /v/bin/python \"$0\" \"$@\"\n' '''\n'd'\n", "#!python\n'd'\n"),
        ] {
            let found = as_in_wheel(script.as_bytes(), &interpreters(&["/v"])).expect("ours");
            assert_eq!(String::from_utf8(found).expect("utf-8"), expected);
        }
    }
}
