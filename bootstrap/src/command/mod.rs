//! What `cpack-boot --cpack` does besides starting Python.
//!
//! Here standard output is the command's own: aligned text for people, or one JSON document with `--json`.

mod info;
mod maintain;
mod status;
mod unzip;
mod verify;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use cpack_format::exit::Exit;
use cpack_format::manifest::Manifest;
use cpack_node::timing::{Phase, Timing};
use serde_json::Value;

use crate::boot::Boot;
use crate::error::BootError;
use crate::job::{self, FoundJob};
use crate::pex;
use crate::settings::{Settings, VARIABLES};

/// What a command has to say.
#[derive(Debug)]
struct Report {
    /// For people.
    text: String,
    /// For programs.
    json: Value,
}

/// The commands, with what they take and do.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("info", "", "show the job, its environment and what that is made of"),
    ("status", "", "show the node caches and what is in them"),
    ("verify", "", "check every file in the node caches, and repair what is damaged"),
    ("prefetch", "", "make the environment ready, and sync it to disk"),
    ("gc", "[--all] [--limit SIZE]", "remove what is not used, above the limit or all of it"),
    ("exec", "JOB [ARGUMENT]...", "start the job of a launcher or job file, or a PEX: paths or URIs"),
    ("unzip", "ARCHIVE -d DIRECTORY", "extract a zip archive on all cores"),
    ("help", "", "show this"),
];

/// Runs a command; the exit code.
pub(crate) fn run(arguments: &[OsString]) -> Result<u8, BootError> {
    let timing = Timing::start();
    let settings = Settings::from_process()?;
    crate::message::record(&settings);
    let Some((name, rest)) = arguments.split_first() else { return Err(usage("--cpack needs a command")) };
    let name = name.to_string_lossy();
    if name == "exec" {
        return exec(rest, &settings, timing);
    }
    let (json, rest): (Vec<_>, Vec<_>) = rest.iter().cloned().partition(|argument| argument == "--json");
    let report = match (&*name, &rest[..]) {
        ("help" | "--help" | "-h", _) => Report { text: help(), json: Value::Null },
        ("--version" | "version", _) => {
            let version = env!("CARGO_PKG_VERSION");
            Report { text: format!("cpack-boot {version}\n"), json: version.into() }
        }
        ("info", []) => info::run(&settings)?,
        ("status", []) => status::run(&settings)?,
        ("verify", []) => verify::run(&settings)?,
        ("prefetch", []) => maintain::prefetch(&settings, timing)?,
        ("gc", rest) => maintain::gc(&settings, rest)?,
        ("unzip", rest) => unzip::run(&settings, rest)?,
        (known, _) if COMMANDS.iter().any(|(name, ..)| *name == known) => {
            return Err(usage(&format!("{known} takes no such arguments")));
        }
        (unknown, _) => return Err(usage(&format!("{unknown:?} is no command"))),
    };
    // A command does not fail for want of a trace.
    let _ = cpack_events::write();
    let text = if json.is_empty() { report.text } else { format!("{:#}\n", report.json) };
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(BootError::Io { path: PathBuf::from("standard output"), source: e })
        }
        _ => Ok(0),
    }
}

fn usage(what: &str) -> BootError {
    BootError::Usage(what.into())
}

/// Starts a job that is named on the command line.
fn exec(arguments: &[OsString], settings: &Settings, mut timing: Timing) -> Result<u8, BootError> {
    let Some((artifact, rest)) = arguments.split_first() else {
        return Err(usage("exec needs a launcher, job file or PEX"));
    };
    let path = pex::local(artifact.as_ref(), settings)?;
    if pex::is_pex(&path) {
        return pex::start(&path, settings, rest, timing).map(|never| match never {});
    }
    let found = job::from_path(&path)?;
    timing.mark(Phase::Find);
    crate::boot::run(&Boot::new(&found, settings, rest), settings, timing).map(|never| match never {})
}

/// The manifest of a job, from its launcher or its store.
fn manifest_of(found: &FoundJob, settings: &Settings) -> Result<Manifest, BootError> {
    let boot = Boot::new(found, settings, &[]);
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
    text += &table(&rows.collect::<Vec<_>>(), 0);
    text += "\ninfo, status, verify, prefetch, gc and unzip take --json.\n\nEnvironment variables:\n\n";
    let rows = VARIABLES.iter().map(|v| vec![format!("  {}", v.name), v.help.to_owned()]);
    text += &table(&rows.collect::<Vec<_>>(), 0);
    text += "\nExit codes, where Python does not run:\n\n";
    let rows = Exit::ALL.iter().map(|exit| vec![format!("  {}", exit.code()), exit.meaning().to_owned()]);
    text += &table(&rows.collect::<Vec<_>>(), 0);
    text
}

/// Rows with aligned columns; the first `right` columns from the right are numbers, aligned at their ends.
fn table(rows: &[Vec<String>], right: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths.get(column).copied().unwrap_or(0);
            let gap = if column == 0 { "" } else { "  " };
            // Writing to a string does not fail.
            let _ = if columns - column <= right {
                write!(line, "{gap}{cell:>width$}")
            } else {
                write!(line, "{gap}{cell:<width$}")
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A size in bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".into()], vec!["long".into(), "7".into()]];
        assert_eq!(table(&rows, 1), "a     10\nlong   7\n");
        assert_eq!(table(&rows, 0), "a     10\nlong  7\n");
    }

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (6 << 30, "6.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn help_names_every_command_variable_and_exit_code() {
        let text = help();
        assert!(COMMANDS.iter().all(|(name, ..)| text.contains(name)));
        assert!(VARIABLES.iter().all(|variable| text.contains(variable.name)));
        assert!(Exit::ALL.iter().all(|exit| text.contains(exit.meaning())));
    }
}
