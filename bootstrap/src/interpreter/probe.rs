//! Asks interpreters what they are, before an environment is built for one.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_format::job::minor;

use super::{Identity, Search, identify, is_cached, is_own};

/// Candidates run this. It prints version, SOABI, glibc and base executable, one a line.
///
/// `_imp` tells the SOABI in microseconds, where `sysconfig` takes milliseconds. `-S` leaves a virtual environment's
/// `base_prefix` as the interpreter itself found it, which leads from a copied executable back to the interpreter.
const PROBE: &str = r"
import sys, os, _imp
v = sys.version_info
e = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
p = os.path.join(sys.base_prefix, 'bin', 'python%d.%d' % v[:2])
if os.path.dirname(e) != os.path.realpath(os.path.dirname(p)) and os.path.exists(p):
    e = os.path.realpath(p)
try:
    g = os.confstr('CS_GNU_LIBC_VERSION') or ''
except (ValueError, OSError):
    g = ''
s = _imp.extension_suffixes()[0].split('.')
o = '\n'.join(['%d.%d.%d' % v[:3], s[1] if len(s) > 2 else '', g.replace('glibc ', ''), e])
sys.stdout.buffer.write(os.fsencode(o))
";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    version: String,
    soabi: String,
    glibc: String,
    executable: PathBuf,
}

/// The interpreter that an environment is built for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The interpreter itself, traced through virtual environments and shims.
    pub(crate) identity: Identity,
    pub(crate) version: String,
    /// The version of the node's glibc that it uses; empty for another C library.
    pub(crate) glibc: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InterpreterError {
    #[error(
        "no interpreter for this environment: it needs Python {minor}{abi}; {found}; \
         install one, set CPACK_PYTHON, or pack the environment --with-python",
        abi = if soabi.is_empty() { String::new() } else { format!(" ({soabi})") }
    )]
    None { minor: String, soabi: String, found: String },
    #[error("the environment is for {needed}, this node is {found}: pack it for this platform (--python-platform)")]
    Platform { found: String, needed: String },
    #[error(
        "glibc {found} on this node is older than the {needed} that the environment's libraries need: \
         pack for an older platform (--python-platform) or use a newer node image"
    )]
    Glibc { found: String, needed: String },
}

/// Asks the candidates, best first, and returns the first that fits.
pub(crate) fn choose(search: &Search<'_>) -> Result<Choice, InterpreterError> {
    let mut found = Vec::new();
    for candidate in search.identities() {
        match ask(&candidate.path) {
            Ok(answer) => match (misfit(search, &answer), identify(&answer.executable)) {
                (None, Some(identity)) => {
                    return Ok(Choice { identity, version: answer.version, glibc: answer.glibc });
                }
                (None, None) => found.push(format!("{} is not there", answer.executable.display())),
                (Some(misfit), _) => found.push(format!("{} {misfit}", candidate.path.display())),
            },
            Err(error) => found.push(format!("{} {error}", candidate.path.display())),
        }
    }
    let found = match (found.len(), search.forced) {
        (0, Some(forced)) => format!("CPACK_PYTHON={} is no executable", forced.display()),
        (0, None) => format!("there is no python{} on PATH or in the usual places", search.minor),
        (1..=3, _) => found.join(", "),
        (more, _) => format!("{} and {} others do not fit either", found[..2].join(", "), more - 2),
    };
    Err(InterpreterError::None { minor: search.minor.into(), soabi: search.soabi.into(), found })
}

/// Asks one interpreter what it is. Returns it as a choice, and its `SOABI`.
pub(crate) fn inspect(path: &Path) -> Result<(Choice, String), String> {
    let answer = ask(path)?;
    let identity =
        identify(&answer.executable).ok_or_else(|| format!("{} is not there", answer.executable.display()))?;
    Ok((Choice { identity, version: answer.version, glibc: answer.glibc }, answer.soabi))
}

/// Refuses a node of another platform than `needed`, e.g. `linux-x86_64`.
pub(crate) fn require_platform(needed: &str) -> Result<(), InterpreterError> {
    let machine = nix::sys::utsname::uname().map(|n| n.machine().to_string_lossy().into_owned()).unwrap_or_default();
    let found = format!("linux-{machine}");
    if needed.is_empty() || machine.is_empty() || needed == found {
        return Ok(());
    }
    Err(InterpreterError::Platform { found, needed: needed.into() })
}

/// The version of the node's glibc, as its dynamic loader prints it; empty if there is none.
pub(crate) fn node_glibc() -> String {
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let said = loaders.iter().find_map(|path| {
        let mut loader = Command::new(path);
        loader.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()
    });
    said.map(|output| loader_version(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
}

/// `2.36` of `ld.so (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.`
fn loader_version(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    let last = line.split_whitespace().next_back().unwrap_or_default().trim_end_matches('.');
    if last.starts_with(|c: char| c.is_ascii_digit()) { last.to_owned() } else { String::new() }
}

/// Refuses a node whose glibc is older than the environment's libraries need. Accepts unknown versions.
pub(crate) fn require_glibc(found: &str, needed: Option<&str>) -> Result<(), InterpreterError> {
    let number = |text: &str| text.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    match needed.map(|needed| (number(found), number(needed), needed)) {
        Some((Some(have), Some(need), needed)) if have < need => {
            Err(InterpreterError::Glibc { found: found.into(), needed: needed.into() })
        }
        _ => Ok(()),
    }
}

fn misfit(search: &Search<'_>, answer: &Answer) -> Option<String> {
    if minor(&answer.version) != search.minor {
        return Some(format!("is Python {}", answer.version));
    }
    if !search.soabi.is_empty() && answer.soabi != search.soabi {
        return Some(format!("has the ABI {}", answer.soabi));
    }
    None
}

/// Runs the interpreter, isolated from the user's environment variables and files.
fn ask(path: &Path) -> Result<Answer, String> {
    if is_own(path) {
        return Err("is a launcher, not an interpreter".into());
    }
    if is_cached(path) {
        return Err("belongs to another environment".into());
    }
    let output = Command::new(path)
        .args(["-I", "-S", "-c", PROBE])
        .env_remove("PYTHONHOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e: io::Error| format!("cannot be run ({e})"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: String = said.lines().last().unwrap_or_default().chars().take(120).collect();
        return Err(format!("fails ({}{}{last})", output.status, if last.is_empty() { "" } else { ": " }));
    }
    parse(&output.stdout).ok_or_else(|| "does not answer as Python does".to_owned())
}

fn parse(output: &[u8]) -> Option<Answer> {
    let mut lines = output.splitn(4, |byte| *byte == b'\n');
    let mut text = || lines.next().map(|line| String::from_utf8_lossy(line).into_owned());
    let (version, soabi, glibc) = (text()?, text()?, text()?);
    let executable = PathBuf::from(OsString::from_vec(lines.next()?.to_vec()));
    Some(Answer { version, soabi, glibc, executable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    /// Writes a script. By another process: parallel tests that start something must not inherit its descriptor.
    fn script(path: &Path, text: &str) {
        let source = path.with_extension("source");
        fs::write(&source, text).expect("writes");
        assert!(Command::new("cp").args([&source, path]).status().expect("cp starts").success());
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// A script that answers like an interpreter of this version and ABI.
    fn fake(directory: &Path, name: &str, version: &str, soabi: &str) -> PathBuf {
        let path = directory.join(name);
        let text = format!("#!/bin/sh\nprintf '%s\\n' {version} {soabi} 2.36; printf %s {}", path.display());
        script(&path, &text);
        path
    }

    fn search<'a>(recorded: &'a Path, path: &'a std::ffi::OsStr, minor: &'a str) -> Search<'a> {
        Search { minor, soabi: "abi", recorded, forced: None, path, home: None }
    }

    #[test]
    fn the_first_that_fits_is_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = fs::canonicalize(directory.path()).expect("a path");
        let (a, b, c) = (root.join("a"), root.join("b"), root.join("c"));
        [&a, &b, &c].iter().for_each(|d| fs::create_dir(d).expect("creates"));
        let recorded = fake(&a, "python3.99", "3.98.1", "abi");
        fake(&b, "python3.99", "3.99.1", "other");
        let good = fake(&c, "python3.99", "3.99.2", "abi");
        let path = std::env::join_paths([&b, &c]).expect("a PATH");
        let choice = choose(&search(&recorded, &path, "3.99")).expect("finds it");
        assert_eq!((choice.identity.path, choice.version.as_str()), (good, "3.99.2"));
    }

    #[test]
    fn refusal_says_what_was_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let wrong = fake(directory.path(), "python3.99", "3.98.1", "abi");
        let text = choose(&search(&wrong, "".as_ref(), "3.99")).expect_err("misfit").to_string();
        assert!(text.contains("is Python 3.98.1") && text.contains("CPACK_PYTHON") && !text.contains('\n'), "{text}");
        let text = choose(&search(Path::new("/nowhere"), "".as_ref(), "3.99")).expect_err("none").to_string();
        assert!(text.contains("there is no python3.99"), "{text}");
        let broken = directory.path().join("broken");
        script(&broken, "#!/bin/sh\necho no such thing >&2; exit 3");
        let text = choose(&search(&broken, "".as_ref(), "3.99")).expect_err("broken").to_string();
        assert!(text.contains("no such thing"), "{text}");
    }

    #[test]
    fn the_loader_tells_the_glibc() {
        for (said, version) in [
            ("ld.so (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.\nCopyright", "2.36"),
            ("ld.so (GNU libc) release release version 2.28.", "2.28"),
            ("usage: ld.so", ""),
            ("", ""),
        ] {
            assert_eq!(loader_version(said), version, "{said}");
        }
    }

    #[test]
    fn glibc_is_compared_by_number() {
        for (found, needed, fits) in [
            ("2.36", Some("2.17"), true),
            ("2.9", Some("2.17"), false),
            ("2.17", Some("2.17"), true),
            ("", Some("2.17"), true),
            ("2.9", None, true),
        ] {
            assert_eq!(require_glibc(found, needed).is_ok(), fits, "{found} {needed:?}");
        }
    }
}
