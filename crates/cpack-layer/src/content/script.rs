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
//! The second is a shell script for `sh` and a string without effect for Python. It is also what scripts get here, in the
//! form that `uv venv --relocatable` gave them first:
//!
//! ```text
//! #!/bin/sh
//! # comments that the script begins with, its coding among them
//! '''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' -E "$0" "$@"
//! ' ''' """What the script begins with."""
//! ```
//!
//! A docstring is continued in the same literal, not put after it: a `from __future__ import` may follow one string, and
//! not two. Comments stay in front, because a coding counts in the first two lines only. What one installer writes for
//! a path with spaces and without becomes the same.

/// A shell word that is the directory of the script, followed by a slash: as written here, and by older releases of uv.
const BESIDE: [&[u8]; 2] =
    [br#""$(dirname -- "$(realpath -- "$0")")"/"#, br#""$(CDPATH= cd -- "$(dirname -- "$0")" && echo "$PWD")"/"#];

/// Begins the line that is `exec` for `sh` and opens a string for Python.
const EXEC: &[u8] = b"'''exec' ";

/// Ends that line.
const ARGUMENTS: &[u8] = br#" "$0" "$@""#;

/// Closes the string.
const CLOSE: &[u8] = b"' '''";

/// Says nothing that Python 3 does not assume, and uv adds it to some of its headers: dropped.
const USELESS: &[u8] = b"# coding: utf-8";

/// The relocatable form of a script that runs the Python in `bin/` of one of `prefixes` (the ways in which the path of
/// the environment may be spelt). `None` for everything else, which is left alone: scripts for other interpreters, binaries.
pub fn relocate(script: &[u8], prefixes: &[Vec<u8>]) -> Option<Vec<u8>> {
    let (first, rest) = split_line(script.strip_prefix(b"#!")?);
    let mut comments = Vec::new();
    let (flags, body) = if first.trim_ascii() == b"/bin/sh" {
        let rest = take_comments(rest, &mut comments);
        let (line, rest) = split_line(rest);
        let flags = parse_exec(line, prefixes)?;
        let rest = rest.strip_prefix(CLOSE)?;
        (flags, rest.strip_prefix(b"\n").or(rest.strip_prefix(b" ")).unwrap_or(rest))
    } else {
        (parse_shebang(first, prefixes)?, rest)
    };
    // Anything else would need quoting for the shell.
    if !flags.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-=_.,:/ ".contains(byte)) {
        return None;
    }
    let body = take_comments(body, &mut comments);
    let mut out = b"#!/bin/sh\n".to_vec();
    for comment in comments.into_iter().filter(|comment| *comment != USELESS) {
        out.extend_from_slice(comment);
        out.push(b'\n');
    }
    let [beside, _] = BESIDE;
    out.extend_from_slice(&[EXEC, beside, b"'python'"].concat());
    if !flags.is_empty() {
        out.push(b' ');
        out.extend_from_slice(flags);
    }
    out.extend_from_slice(&[ARGUMENTS, b"\n", CLOSE].concat());
    out.push(if begins_with_docstring(body) { b' ' } else { b'\n' });
    out.extend_from_slice(body);
    Some(out)
}

/// What follows the interpreter in a `#!` line, if that is one of ours.
fn parse_shebang<'a>(line: &'a [u8], prefixes: &[Vec<u8>]) -> Option<&'a [u8]> {
    let line = line.trim_ascii();
    let rest = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix.as_slice())?.strip_prefix(b"/bin/"))?;
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let (name, flags) = rest.split_at_checked(end)?;
    is_python(name).then(|| flags.trim_ascii())
}

/// What follows the interpreter in an `exec` line, if that is one of ours.
fn parse_exec<'a>(line: &'a [u8], prefixes: &[Vec<u8>]) -> Option<&'a [u8]> {
    let command = line.trim_ascii_end().strip_prefix(EXEC)?.strip_suffix(ARGUMENTS)?;
    if let Some(word) = BESIDE.iter().find_map(|beside| command.strip_prefix(*beside)) {
        let (name, flags) = unquote(word)?;
        return is_python(&name).then_some(flags);
    }
    let (program, flags) = unquote(command)?;
    let of = |prefix: &Vec<u8>| program.strip_prefix(prefix.as_slice())?.strip_prefix(b"/bin/").map(is_python);
    prefixes.iter().any(|prefix| of(prefix) == Some(true)).then_some(flags)
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

/// The first line without its end, and what follows.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|byte| *byte == b'\n') {
        Some(end) => (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

/// Takes blank lines and comments, which mean as little to `sh` as to Python, from the beginning.
fn take_comments<'a>(mut text: &'a [u8], comments: &mut Vec<&'a [u8]>) -> &'a [u8] {
    while !text.is_empty() {
        let (line, rest) = split_line(text);
        let line = line.trim_ascii_end();
        if !line.is_empty() && line.trim_ascii_start().first() != Some(&b'#') {
            break;
        }
        comments.push(line);
        text = rest;
    }
    text
}

/// Whether the first statement is a string and nothing else.
fn begins_with_docstring(body: &[u8]) -> bool {
    let raw = matches!(body.first(), Some(b'r' | b'R'));
    let text = if raw || matches!(body.first(), Some(b'u' | b'U')) { body.get(1..).unwrap_or_default() } else { body };
    let Some(quote @ (b'"' | b'\'')) = text.first() else { return false };
    let triple = text.starts_with(&[*quote; 3]);
    let close: &[u8] = if triple { &[*quote; 3] } else { &[*quote] };
    let mut rest = text.get(close.len()..).unwrap_or_default();
    while !rest.starts_with(close) {
        match rest {
            [b'\\', _, after @ ..] => rest = after,
            [b'\n', ..] if !triple => return false,
            [_, after @ ..] => rest = after,
            [] => return false,
        }
    }
    let (after, _) = split_line(rest.get(close.len()..).unwrap_or_default());
    matches!(after.trim_ascii().first(), None | Some(b'#' | b';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        concat!("#!/bin/sh\n", r#"'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@""#, "\n' '''\n");

    fn relocated(script: &str) -> Option<String> {
        let prefixes = [b"/home/a/venv".to_vec(), b"/mnt/s p/venv".to_vec()];
        relocate(script.as_bytes(), &prefixes).map(|bytes| String::from_utf8(bytes).expect("utf-8"))
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
            "#!/mnt/s p/venv/bin/python3\n".into(),
            exec("/home/a/venv/bin/python"),
            exec(r#""/mnt/s p/venv/bin/python""#),
            exec("'/mnt/s p/venv/bin/python'"),
            exec(r#""$(CDPATH= cd -- "$(dirname -- "$0")" && echo "$PWD")"/'python3'"#),
            octal,
            HEADER.into(),
        ] {
            assert_eq!(relocated(&format!("{header}import x\n")), Some(format!("{HEADER}import x\n")), "{header}");
        }
        let quoted = exec(r#"'/it'"'"'s/bin/python'"#);
        assert_eq!(relocate(quoted.as_bytes(), &[b"/it's".to_vec()]), Some(HEADER.into()));
    }

    #[test]
    fn flags_comments_and_docstrings_are_kept() {
        let with = |comments: &str, flags: &str, body: &str| {
            let exec = HEADER.lines().nth(1).expect("a line").replace("'python'", &format!("'python'{flags}"));
            format!("#!/bin/sh\n{comments}{exec}\n' '''{body}")
        };
        for (script, expected) in [
            ("-E -s\nx\n", with("", " -E -s", "\nx\n")),
            ("\n# coding: latin-1\n\nx\n", with("# coding: latin-1\n\n", "", "\nx\n")),
            ("\n# coding: utf-8\n  # a\n'''d\n'''\nx\n", with("  # a\n", "", " '''d\n'''\nx\n")),
            ("\nr\"d\\\"\" ; x\n", with("", "", " r\"d\\\"\" ; x\n")),
            ("\n'd'.x()\n", with("", "", "\n'd'.x()\n")),
            ("\n'd\n", with("", "", "\n'd\n")),
            ("\nb'd'\n", with("", "", "\nb'd'\n")),
            ("\n\"\"", with("", "", " \"\"")),
            ("", with("", "", "\n")),
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
}
