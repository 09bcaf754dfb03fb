//! What makes files right wherever they are: scripts that find the interpreter beside them, and no byte-code that Python
//! would pass over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use cpack_format::job::minor;
use cpack_format::script::{BESIDE, relocatable, split, split_comments, split_line};
use memchr::memmem;

/// Scripts are smaller.
const LARGEST_SCRIPT: u64 = 1 << 20;

/// Directories of interpreters that belong to no environment.
const OF_SYSTEM: [&[u8]; 3] = [b"/usr/bin", b"/bin", b"/usr/local/bin"];

/// How scripts begin that venv-pack2 0.9 wrote, before and after the name of the interpreter.
const OF_VENV_PACK: (&[u8], &[u8]) = (b"#!/bin/sh\n\"exec\" \"`dirname $(realpath -- $0)`/", b"\" \"$0\" \"$@\"\n\n");

/// Whether this names an interpreter: `python`, `python3`, `python3.11`.
pub(crate) fn is_python_name(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"python") else { return false };
    rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

/// Makes the scripts in `bin` start the interpreter beside them, and returns those that did not. `home` is the directory of the
/// interpreter behind that.
pub(crate) fn mend_scripts(bin: &Path, home: Option<&Path>) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(bin).into_iter().flatten() {
        let entry = entry?;
        if !entry.file_type()?.is_file() || entry.metadata()?.len() > LARGEST_SCRIPT {
            continue;
        }
        let path = entry.path();
        let mut file = File::open(&path)?;
        let mut magic = [0; 2];
        if file.read_exact(&mut magic).is_err() || magic != *b"#!" {
            continue;
        }
        let mut script = magic.to_vec();
        file.read_to_end(&mut script)?;
        if let Some(mended) = mended(&script, home) {
            replace_file(&path, &mended, true)?;
            all.insert(entry.file_name().to_string_lossy().into_owned(), mended);
        }
    }
    Ok(all)
}

/// The script with a beginning that finds the interpreter beside it; `None` if it has one, or is for another program.
fn mended(script: &[u8], home: Option<&Path>) -> Option<Vec<u8>> {
    if let Some(shell) = split(script) {
        if BESIDE.iter().any(|beside| shell.command.starts_with(beside)) {
            return None;
        }
        let quote = shell.command.first().filter(|byte| matches!(byte, b'\'' | b'"'));
        let (program, options) = match quote {
            Some(quote) => split_at(shell.command.get(1..)?, |byte| byte == quote),
            None => split_at(shell.command, u8::is_ascii_whitespace),
        };
        return is_of_environment(program, home).then(|| relocatable(plain(options), &shell.comments, shell.body));
    }
    if let Some(rest) = script.strip_prefix(OF_VENV_PACK.0) {
        let end = memmem::find(rest, OF_VENV_PACK.1)?;
        let (comments, body) = split_comments(rest.get(end + OF_VENV_PACK.1.len()..)?);
        return Some(relocatable(b"", &comments, body));
    }
    let (line, body) = split_line(script);
    let (program, options) = split_at(line.strip_prefix(b"#!")?.trim_ascii(), u8::is_ascii_whitespace);
    let (comments, body) = split_comments(body);
    if program == b"/usr/bin/env" {
        // conda-pack and others write this, so that it works where the environment is activated.
        let (name, options) = split_at(options.trim_ascii(), u8::is_ascii_whitespace);
        return is_python_name(name).then(|| relocatable(plain(options), &comments, body));
    }
    is_of_environment(program, home).then(|| relocatable(plain(options), &comments, body))
}

/// Splits before the first byte that `is_end` takes for the end, and drops that byte.
fn split_at(text: &[u8], is_end: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(is_end).unwrap_or(text.len());
    (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default())
}

/// Whether a script names the interpreter of its own environment, wherever that was.
fn is_of_environment(program: &[u8], home: Option<&Path>) -> bool {
    let path = Path::new(OsStr::from_bytes(program));
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
    let is_other = OF_SYSTEM.contains(&directory.as_os_str().as_bytes()) || home == Some(directory);
    path.is_absolute() && is_python_name(name.as_bytes()) && !is_other
}

/// Options of an interpreter; none if a shell would not take them as they are.
fn plain(options: &[u8]) -> &[u8] {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-=_.,:/ ".contains(byte);
    Some(options.trim_ascii()).filter(|options| options.iter().all(is_plain)).unwrap_or_default()
}

/// Writes a file anew, which may be read-only.
pub(crate) fn replace_file(path: &Path, bytes: &[u8], executable: bool) -> io::Result<()> {
    fs::remove_file(path)?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(if executable { 0o555 } else { 0o444 }))
}

/// Removes byte-code that is for another source or another time of it: a zip keeps no exact times. Python can then write its
/// own in its place. Returns the `SOABI` of a native module for this `version`; empty if there is none.
pub(crate) fn mend_byte_code(directory: &Path, version: &str) -> io::Result<String> {
    let tag = format!("cpython-{}", minor(version).replace('.', ""));
    let mut soabi = String::new();
    mend_below(directory, &tag, &mut soabi)?;
    Ok(soabi)
}

fn mend_below(directory: &Path, tag: &str, soabi: &mut String) -> io::Result<()> {
    // It is closed before those below it are opened: a deep tree needs no descriptor for each level.
    let mut below = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let bytes = name.as_bytes();
        if kind.is_dir() {
            below.push(entry.path());
        } else if bytes.ends_with(b".pyc") && directory.file_name() == Some(OsStr::new("__pycache__")) {
            if kind.is_file() && is_stale(directory, &entry.path(), bytes)? {
                fs::remove_file(entry.path())?;
            }
        } else if soabi.is_empty() && bytes.ends_with(b".so") {
            let parts = name.to_str().unwrap_or_default().split('.');
            soabi.extend(parts.filter(|part| part.starts_with(tag)).take(1));
        }
    }
    below.iter().try_for_each(|path| mend_below(path, tag, soabi))
}

/// Whether Python would not use this byte-code (PEP 552): it is checked by time and length, and the source has others.
fn is_stale(directory: &Path, byte_code: &Path, name: &[u8]) -> io::Result<bool> {
    // `module.cpython-311.opt-1.pyc` is of `module.py`.
    let stem = memmem::find(name, b".cpython-").and_then(|end| name.get(..end)).unwrap_or_default();
    let source = directory.with_file_name(OsStr::from_bytes(&[stem, b".py"].concat()));
    let Ok(stat) = fs::metadata(source) else { return Ok(false) };
    let mut header = [0; 16];
    if File::open(byte_code)?.read_exact(&mut header).is_err() {
        return Ok(true);
    }
    let number =
        |at: usize| header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let (flags, time, length) = (number(4), number(8), number(12));
    // Python compares the lowest 32 bits of both.
    Ok(flags == 0 && (time != stat.mtime().cast_unsigned() as u32 || length != stat.size() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_for_the_environments_python_find_it_beside_themselves() {
        let home = Path::new("/opt/python/bin");
        let body = "# -*- coding: utf-8 -*-\nimport sys\n";
        for (head, options) in [
            ("#!/home/u/venv/bin/python\n", ""),
            ("#!/home/u/venv/bin/python3.11 -E\n", " -E"),
            ("#!/usr/bin/env python\n", ""),
            ("#!/usr/bin/env python3 -s\n", " -s"),
            ("#!/bin/sh\n'''exec' \"/x y/bin/python\" \"$0\" \"$@\"\n' '''\n", ""),
            ("#!/bin/sh\n'''exec' /long/bin/python -E \"$0\" \"$@\"\n' '''\n", " -E"),
            ("#!/bin/sh\n\"exec\" \"`dirname $(realpath -- $0)`/python3\" \"$0\" \"$@\"\n\n", ""),
        ] {
            let script = [head, body].concat();
            let found = mended(script.as_bytes(), Some(home)).expect(head);
            let text = String::from_utf8(found.clone()).expect("utf-8");
            assert!(text.contains(&format!("'python'{options} \"$0\"")) && text.ends_with("import sys\n"), "{text}");
            assert_eq!(mended(&found, Some(home)), None, "{head}");
        }
        for other in
            ["#!/bin/sh\n", "#!/usr/bin/python3\n", "#!/opt/python/bin/python3\n", "#!/usr/bin/env perl\n", "#!"]
        {
            assert_eq!(mended(other.as_bytes(), Some(home)), None, "{other}");
        }
    }

    #[test]
    fn byte_code_stays_if_it_fits_its_source() {
        let directory = tempfile::tempdir().expect("a directory");
        let lib = directory.path();
        let cache = lib.join("__pycache__");
        fs::create_dir(&cache).expect("creates");
        for name in ["native.cpython-311-x86_64-linux-gnu.so", "native.cpython-310-x86_64-linux-gnu.so"] {
            fs::write(lib.join(name), "").expect("writes");
        }
        let header = |flags: u32, time: u32, length: u32| {
            [0_u32, flags, time, length].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>()
        };
        for (name, byte_code) in [
            ("fits", header(0, 5, 4)),
            ("older", header(0, 4, 4)),
            ("longer", header(0, 5, 5)),
            ("hashed", header(1, 0, 0)),
            ("short", Vec::new()),
        ] {
            let source = File::create(lib.join(format!("{name}.py"))).expect("creates");
            source.set_len(4).expect("sets");
            source.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(5)).expect("sets");
            fs::write(cache.join(format!("{name}.cpython-311.pyc")), byte_code).expect("writes");
        }
        fs::write(cache.join("no_source.cpython-311.pyc"), header(0, 1, 1)).expect("writes");
        assert_eq!(mend_byte_code(lib, "3.11.7").expect("mends"), "cpython-311-x86_64-linux-gnu");
        let entries = fs::read_dir(&cache).expect("reads");
        let mut left: Vec<_> = entries.map(|entry| entry.expect("reads").file_name()).collect();
        left.sort();
        assert_eq!(left, ["fits.cpython-311.pyc", "hashed.cpython-311.pyc", "no_source.cpython-311.pyc"]);
    }
}
