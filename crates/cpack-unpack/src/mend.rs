//! What makes files right wherever they are: scripts that find the interpreter beside them, and no byte-code that Python
//! would pass over.

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

/// Whether this names an interpreter: `python`, `python3`, `python3.11`.
pub(crate) fn is_python_name(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"python") else { return false };
    rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

/// Makes the scripts in `bin` start the interpreter beside them. `home` is the directory of the interpreter behind that.
pub(crate) fn mend_scripts(bin: &Path, home: Option<&Path>) -> io::Result<()> {
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
        }
    }
    Ok(())
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
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let bytes = name.as_bytes();
        if kind.is_dir() {
            mend_below(&entry.path(), tag, soabi)?;
        } else if bytes.ends_with(b".pyc") && directory.file_name() == Some(OsStr::new("__pycache__")) {
            if kind.is_file() && is_stale(directory, &entry.path(), bytes)? {
                fs::remove_file(entry.path())?;
            }
        } else if soabi.is_empty() && bytes.ends_with(b".so") {
            let parts = name.to_str().unwrap_or_default().split('.');
            soabi.extend(parts.filter(|part| part.starts_with(tag)).take(1));
        }
    }
    Ok(())
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
