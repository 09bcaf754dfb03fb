//! Runs uv and pip, listens to what they say, and keeps credentials out of it.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::panic::resume_unwind;
use std::process::{Command, Stdio};

use cpack_discover::without_credentials;

use super::error::RequirementsError;

/// Variables of the caller's environment that would lead uv or pip elsewhere.
const MISLEADING: [&str; 14] = [
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "UV_PYTHON",
    "UV_PROJECT_ENVIRONMENT",
    "UV_SYSTEM_PYTHON",
    "UV_CONSTRAINT",
    "UV_OVERRIDE",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_PYTHON",
];

/// Lines that are shown of the output of a tool that failed.
const SHOWN_LINES: usize = 12;

/// A command of uv or pip, without standard input and without [`MISLEADING`] variables.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in MISLEADING {
        command.env_remove(name);
    }
    command.env("UV_NO_PROGRESS", "1").env("NO_COLOR", "1").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    command.env("PIP_NO_INPUT", "1").env("PYTHONUNBUFFERED", "1");
    command.stdin(Stdio::null());
    command
}

#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command to its end. Calls `heard` with each line of standard error as it comes.
pub(super) fn run(mut command: Command, what: &'static str, heard: &dyn Fn(&str)) -> Result<Said, RequirementsError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| RequirementsError::Start { program: program.clone(), source };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut said = std::thread::scope(|scope| {
        // Both pipes are read at the same time: a full one would stop the tool.
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.map(|mut pipe| pipe.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let mut said = Said::default();
        let mut line = Vec::new();
        let mut pipe = stderr.map(BufReader::new);
        while pipe.as_mut().is_some_and(|pipe| pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0)) {
            let text = redacted(String::from_utf8_lossy(&line).trim_end());
            heard(&text);
            said.stderr.push_str(&text);
            said.stderr.push('\n');
            line.clear();
        }
        said.stdout = reader.join().unwrap_or_else(|panic| resume_unwind(panic));
        said
    });
    let status = child.wait().map_err(failed)?;
    if status.success() {
        return Ok(said);
    }
    if said.stderr.trim().is_empty() {
        said.stderr = redacted(&said.stdout);
    }
    Err(RequirementsError::Failed { what, status: status.to_string(), output: useful_lines(&said.stderr) })
}

/// The last lines that tell what went wrong.
fn useful_lines(text: &str) -> String {
    let is_useful = |line: &&str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with("[notice]") && !line.starts_with("WARNING: Running pip as")
    };
    let lines: Vec<&str> = text.lines().filter(is_useful).collect();
    lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n")
}

/// Text in which no URL has credentials.
pub(super) fn redacted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '.' | '-');
        let start = rest
            .get(..at)
            .and_then(|before| before.rfind(|c| !is_scheme(c)))
            .map_or(0, |i| i + rest.get(i..).and_then(|r| r.chars().next()).map_or(1, char::len_utf8));
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>' | ')' | ',' | ';');
        let end = rest.get(at..).and_then(|after| after.find(is_end)).map_or(rest.len(), |i| at + i);
        out.push_str(rest.get(..start).unwrap_or_default());
        out.push_str(&without_credentials(rest.get(start..end).unwrap_or_default()));
        rest = rest.get(end..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;

    #[test]
    fn credentials_are_not_shown() {
        for (text, shown) in [
            ("at https://me:se%40cret@host/simple/ (404)", "at https://host/simple/ (404)"),
            ("`https://tok@h/x`, https://u:p@h", "`https://h/x`, https://h"),
            ("git+https://u:p@h/r.git@v1 é", "git+https://h/r.git@v1 é"),
            ("no url, me@home", "no url, me@home"),
            ("é://a:b@c", "é://c"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    proptest! {
        #[test]
        fn password_never_survives(before in ".{0,10}", after in ".{0,10}") {
            let shown = redacted(&format!("{before} https://user:hunter2@host/x {after}"));
            prop_assert!(!shown.contains("hunter2"));
        }
    }

    #[test]
    fn failure_shows_the_last_lines() {
        let mut command = command("sh");
        command.args([
            "-c",
            "for i in $(seq 20); do echo line $i >&2; done; echo 'no https://u:p@h' >&2; echo >&2; exit 3",
        ]);
        let heard = RefCell::new(0);
        let error = run(command, "resolve", &|_| *heard.borrow_mut() += 1).expect_err("fails").to_string();
        assert_eq!(*heard.borrow(), 22);
        assert!(error.contains("line 20\nno https://h") && !error.contains("line 9\n"), "{error}");
    }

    #[test]
    fn much_output_on_both_sides_does_not_block() {
        let mut command = command("sh");
        command.args(["-c", "head -c 300000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero | tr '\\0' y >&2"]);
        let said = run(command, "resolve", &|_| {}).expect("runs");
        assert_eq!((said.stdout.len(), said.stderr.trim().len()), (300_000, 300_000));
    }

    #[test]
    fn tool_that_is_not_there_is_named() {
        let error = run(command("/nowhere/uv"), "resolve", &|_| {}).expect_err("fails").to_string();
        assert!(error.contains("/nowhere/uv"), "{error}");
    }
}
