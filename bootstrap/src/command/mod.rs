//! The commands of `cpack-boot --cpack`.
//!
//! Standard output is the command's own here: aligned text for people, or one JSON document with `--json`.

mod doctor;
mod info;
mod maintain;
mod status;
mod unzip;
mod verify;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use cpack_format::exit::Exit;
use cpack_format::manifest::Manifest;
use cpack_format::{check, human};
use cpack_node::timing::Timing;
use serde_json::Value;

use crate::artifact;
use crate::boot::{self, JobStart};
use crate::error::BootError;
use crate::job::{self, FoundJob};
use crate::settings::{Settings, VARIABLES};

/// What a command prints: the text for people, or the document for programs.
#[derive(Debug)]
struct Report {
    text: String,
    json: Value,
}

/// The commands, with what they take and do.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("info", "", "show the job, its environment and what that is made of"),
    ("status", "", "show the node caches and what is in them"),
    ("doctor", "", "check what a start on this node will need; ends with the code of the first thing that is wrong"),
    ("verify", "", "check every file in the node caches, and repair what is damaged"),
    ("prefetch", "", "make the environment ready, and sync it to disk"),
    ("gc", "[--all] [--limit SIZE]", "remove what is not used, above the limit or all of it"),
    (
        "exec",
        "JOB [ARGUMENT]...",
        "start the job of a launcher or job file, a PEX, wheelhouse or archive: paths or URIs",
    ),
    (
        "trace",
        "FILE [ARGUMENT]...",
        "start the job lazily, and add to FILE what it reads first, for cluster-pack upload --trace-file",
    ),
    ("unzip", "ARCHIVE -d DIRECTORY", "extract a zip archive on all cores"),
    ("help", "", "show this"),
];

/// Runs a command and returns its exit code.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8, BootError> {
    let timing = Timing::start();
    let settings = Settings::from_process()?;
    crate::message::record(&settings);
    let Some((name, rest)) = arguments.split_first() else { return Err(usage("--cpack needs a command")) };
    let name = name.to_string_lossy();
    match &*name {
        "exec" => return exec(rest, &settings, timing),
        "trace" => return trace(rest, settings, timing),
        _ => {}
    }
    let (json, rest): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|argument| argument == "--json");
    let mut code = 0;
    let report = match (&*name, &rest[..]) {
        ("help" | "--help" | "-h", _) => Report { text: help(), json: Value::Null },
        ("--version" | "version", _) => {
            let version = env!("CARGO_PKG_VERSION");
            Report { text: format!("cpack-boot {version}\n"), json: version.into() }
        }
        ("info", []) => info::run(&settings)?,
        ("status", []) => status::run(&settings)?,
        ("doctor", []) => {
            let checks = doctor::run(&settings);
            code = check::exit(&checks);
            Report { text: check::text(&checks), json: check::document(&checks) }
        }
        ("verify", []) => verify::run(&settings)?,
        ("prefetch", []) => maintain::prefetch(&settings, timing)?,
        ("gc", rest) => maintain::gc(&settings, rest)?,
        ("unzip", rest) => unzip::run(&settings, rest)?,
        (known, _) if COMMANDS.iter().any(|(name, ..)| *name == known) => {
            return Err(usage(&format!("{known} takes no such arguments")));
        }
        (unknown, _) => return Err(usage(&format!("{unknown:?} is no command"))),
    };
    // A trace that cannot be written is no reason to fail.
    let _ = cpack_events::write();
    let text = if json.is_empty() { report.text } else { format!("{:#}\n", report.json) };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(BootError::Io { path: PathBuf::from("standard output"), source: e })
        }
        _ => Ok(code),
    }
}

fn usage(what: &str) -> BootError {
    BootError::Usage(what.into())
}

fn exec(arguments: &[OsString], settings: &Settings, timing: Timing) -> Result<u8, BootError> {
    let Some((artifact, rest)) = arguments.split_first() else {
        return Err(usage("exec needs a launcher, job file, PEX, wheelhouse or archive"));
    };
    artifact::start(artifact, settings, rest, timing).map(|never| match never {})
}

/// Starts the job lazily, and has what it reads first noted in a file.
fn trace(arguments: &[OsString], settings: Settings, timing: Timing) -> Result<u8, BootError> {
    let Some((file, rest)) = arguments.split_first() else { return Err(usage("trace needs a file to write")) };
    let settings = Settings { record: Some(file.into()), ..settings };
    let found = job::find(&settings)?;
    boot::run(&JobStart::new(&found, &settings, rest), &settings, timing).map(|never| match never {})
}

/// The manifest of a job, from its launcher or its store.
fn manifest_of(found: &FoundJob, settings: &Settings) -> Result<Manifest, BootError> {
    let boot = JobStart::new(found, settings, &[]);
    let materials = boot.materials()?;
    let (bytes, location) = boot.manifest_bytes(materials.means(settings).store)?;
    Manifest::parse(&bytes).map_err(|source| BootError::Manifest { location, source })
}

fn help() -> String {
    let mut text = String::from(
        "cpack-boot stands where Python is expected: all arguments are Python's.\n\
         Only a first argument --cpack makes it do something else:\n\n",
    );
    let rows = COMMANDS.iter().map(|(name, takes, does)| vec![format!("  {name} {takes}"), (*does).to_owned()]);
    text += &table(&rows.collect::<Vec<_>>(), &[]);
    text += "\ninfo, status, doctor, verify, prefetch, gc and unzip take --json.\n\nEnvironment variables:\n\n";
    let rows = VARIABLES.iter().map(|(name, help)| vec![format!("  {name}"), (*help).to_owned()]);
    text += &table(&rows.collect::<Vec<_>>(), &[]);
    text += "\nExit codes, where Python does not run:\n\n";
    let rows = Exit::MEANINGS.map(|(exit, meaning)| vec![format!("  {}", exit.code()), meaning.to_owned()]);
    text += &table(&rows, &[]);
    text
}

/// Rows in aligned columns, the last line ended; those with the indexes `right` are aligned to the right.
fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let mut text = human::table(rows, right);
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command_variable_and_exit_code() {
        let text = help();
        assert!(COMMANDS.iter().all(|(name, ..)| text.contains(name)));
        assert!(VARIABLES.iter().all(|(name, _)| text.contains(name)));
        assert!(Exit::MEANINGS.iter().all(|(_, meaning)| text.contains(meaning)));
    }
}
