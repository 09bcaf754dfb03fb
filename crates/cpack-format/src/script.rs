//! Scripts of `bin/` that run by the Python beside them, wherever the environment lies.
//!
//! ```text
//! #!/bin/sh
//! # comments that the script begins with, its coding among them
//! ␌# 2>/dev/null; exec "$(dirname -- "$(realpath -- "$0")")"/'python' -E "$0" "$@"
//! """What the script begins with."""
//! ```
//!
//! `␌` is a form feed. Python skips it at the beginning of a line, so that the line is a comment to Python and the script
//! keeps its docstring and its `from __future__` imports, which may follow nothing but comments. For `sh` it is a letter: the
//! first word of the line is a command that does not exist, whose complaint is thrown away (dash, bash, BusyBox, ksh93,
//! mksh and zsh agree), and the second command is the one that counts. Comments stay in front, because a coding counts in
//! the first two lines only.
//!
//! Scripts that earlier releases, uv and distlib wrote open a string instead, which then is the script's `__doc__`. They are read
//! ([`split`]) and never written:
//!
//! ```text
//! '''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' -E "$0" "$@"
//! ' ''' """What the script begins with."""
//! ```

use memchr::memmem;

/// The first line.
const SHELL: &[u8] = b"#!/bin/sh";

/// A shell word that is the directory of the script, followed by a slash: as written here, and by older releases of uv.
pub const BESIDE: [&[u8]; 2] =
    [br#""$(dirname -- "$(realpath -- "$0")")"/"#, br#""$(CDPATH= cd -- "$(dirname -- "$0")" && echo "$PWD")"/"#];

/// Begins the line that is `exec` for `sh` and a comment for Python.
const EXEC: &[u8] = b"\x0c# 2>/dev/null; exec ";

/// Begins the line that is `exec` for `sh` and opens a string for Python.
const EXEC_IN_STRING: &[u8] = b"'''exec' ";

/// Closes that string.
const CLOSE: &[u8] = b"' '''";

/// Closes it in the same line, as conda's installers do.
const CLOSE_IN_LINE: &[u8] = b" #'''";

/// Ends either line.
const ARGUMENTS: &[u8] = br#" "$0" "$@""#;

/// Says nothing that Python 3 does not assume, and uv adds it to some of its headers: dropped.
const USELESS: &[u8] = b"# coding: utf-8";

/// A script that `sh` starts and hands over to Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellScript<'a> {
    /// What `sh` runs, without `"$0" "$@"`: an interpreter, quoted for the shell, and its options.
    pub command: &'a [u8],
    /// The comments and blank lines that the script begins with.
    pub comments: Vec<&'a [u8]>,
    /// What follows.
    pub body: &'a [u8],
}

/// Splits a script that `sh` starts and hands over to Python, in any of the forms that are known.
pub fn split(script: &[u8]) -> Option<ShellScript<'_>> {
    let (first, rest) = split_line(script);
    if first.strip_prefix(b"#!")?.trim_ascii() != b"/bin/sh" {
        return None;
    }
    let (mut comments, rest) = split_comments(rest);
    let (line, rest) = split_line(rest);
    let line = line.trim_ascii_end();
    let (command, body) = match line.strip_prefix(EXEC) {
        Some(command) => (command, rest),
        None if line.ends_with(CLOSE_IN_LINE) => {
            let line = line.strip_suffix(CLOSE_IN_LINE).unwrap_or(line);
            (line.strip_prefix(EXEC_IN_STRING)?, rest)
        }
        None => {
            let rest = rest.strip_prefix(CLOSE)?;
            let body = rest.strip_prefix(b"\n").or(rest.strip_prefix(b" ")).unwrap_or(rest);
            (line.strip_prefix(EXEC_IN_STRING)?, body)
        }
    };
    let (more, body) = split_comments(body);
    comments.extend(more);
    Some(ShellScript { command: command.strip_suffix(ARGUMENTS)?, comments, body })
}

/// The script that runs `body` by the Python beside it with these options, which must mean nothing to a shell.
pub fn relocatable(options: &[u8], comments: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut out = [SHELL, b"\n"].concat();
    for comment in comments.iter().filter(|comment| **comment != USELESS) {
        out.extend_from_slice(comment);
        out.push(b'\n');
    }
    let [beside, _] = BESIDE;
    out.extend_from_slice(&[EXEC, beside, b"'python'"].concat());
    if !options.is_empty() {
        out.push(b' ');
        out.extend_from_slice(options);
    }
    out.extend_from_slice(&[ARGUMENTS, b"\n", body].concat());
    out
}

/// Whether a script is for Python: by its first line, or by what `sh` hands it to.
pub fn is_for_python(script: &[u8]) -> bool {
    let (first, _) = split_line(script);
    let names_python = first.starts_with(b"#!") && memmem::find(first, b"python").is_some();
    names_python || split(script).is_some_and(|script| memmem::find(script.command, b"python").is_some())
}

/// Takes blank lines and comments, which mean as little to `sh` as to Python, from the beginning.
pub fn split_comments(mut text: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut comments = Vec::new();
    while !text.is_empty() {
        let (line, rest) = split_line(text);
        let line = line.trim_ascii_end();
        let start = line.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        // Python ends a line at a carriage return, too.
        if start.is_some_and(|start| *start != b'#') || line.contains(&b'\r') {
            break;
        }
        comments.push(line);
        text = rest;
    }
    (comments, text)
}

/// The first line without its end, and what follows.
pub fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relocatable_scripts_are_split_again() {
        for (options, comments, body) in [
            (&b""[..], &[][..], &b"import x\n"[..]),
            (
                b"-E -s",
                &[&b"# coding: latin-1"[..], b"", b"  # x"],
                b"'''Doc.'''\nfrom __future__ import annotations\n",
            ),
            (b"", &[], b""),
            (b"", &[], b"\x0c# not a comment of sh\nx\n"),
            (b"", &[], b"# a\rx = 1\n"),
        ] {
            let script = relocatable(options, comments, body);
            let found = split(&script).expect("a script");
            assert_eq!((found.comments.as_slice(), found.body), (comments, body));
            assert!(is_for_python(&script));
            let python = [BESIDE[0], b"'python'", if options.is_empty() { b"" } else { b" " }, options].concat();
            assert_eq!(found.command, python);
        }
    }

    #[test]
    fn scripts_of_earlier_releases_and_of_installers_are_split() {
        for (script, command, comments, body) in [
            ("#!/bin/sh\n'''exec' '/a b/bin/python' \"$0\" \"$@\"\n' '''\nx\n", "'/a b/bin/python'", 0, "x\n"),
            (
                "#!/bin/sh\n# c\n'''exec' p -E \"$0\" \"$@\"\n' ''' \"\"\"Doc.\"\"\"\nx\n",
                "p -E",
                1,
                "\"\"\"Doc.\"\"\"\nx\n",
            ),
            ("#!/bin/sh\n'''exec' p \"$0\" \"$@\"\n' '''\n# c\n\nx\n", "p", 2, "x\n"),
        ] {
            let found = split(script.as_bytes()).expect(script);
            assert_eq!(found.command, command.as_bytes(), "{script}");
            assert_eq!((found.comments.len(), found.body), (comments, body.as_bytes()), "{script}");
        }
        for other in [
            "",
            "#!/bin/bash\n'''exec' p \"$0\" \"$@\"\n' '''\n",
            "#!/bin/sh\necho\n",
            "#!/bin/sh\n'''exec' p\n' '''\n",
        ] {
            assert_eq!(split(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn scripts_for_python_are_known() {
        for (script, is) in [
            (&b"#!python\nx"[..], true),
            (b"#!/usr/bin/env python3\nx", true),
            (b"#!/bin/sh\n'''exec' /v/bin/python3 \"$0\" \"$@\"\n' '''\nx", true),
            (b"#!/bin/sh\n# coding: latin-1\n'''exec' /v/bin/python3 \"$0\" \"$@\"\n' '''\nx", true),
            (b"#!/bin/sh\necho python", false),
            (b"\x7fELF", false),
        ] {
            assert_eq!(is_for_python(script), is, "{script:?}");
        }
    }
}
