//! The command line of `cluster-pack`: what is asked for, and what is shown.
//!
//! Standard output carries the answer (a URI, a path, JSON), standard error everything that is said about it, so that
//! `uri=$(cluster-pack upload)` works. Progress bars are drawn on a terminal only.

mod arguments;
mod bench_arguments;
mod commands;
mod config;
mod output;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use cpack_artifact::events;
use cpack_artifact::exit::Exit;

pub use arguments::Cli;

/// Runs `cluster-pack` with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(leave_alone(arguments.into_iter().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS };
        }
    };
    if let Some(path) = std::env::var_os("CPACK_TRACE").filter(|path| !path.is_empty()) {
        events::record("cluster-pack", Some(path.as_ref()));
    }
    use_existing_temporary_directory();
    let result = commands::run(cli);
    // A command does not fail for want of a trace.
    let _ = events::write();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.exit().code())
        }
    }
}

/// Where Python's `tempfile` looks for a temporary directory that no variable names.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// Passes over a `TMPDIR` that does not exist, as Python does: a scheduler's, which is not in the container.
fn use_existing_temporary_directory() {
    if let Some(existing) = instead_of(&std::env::temp_dir(), &TEMPORARY) {
        // It fails only where it was called before.
        let _ = tempfile::env::override_temp_dir(existing);
    }
}

/// The first of `others` that exists, where `named` does not.
fn instead_of<'a>(named: &Path, others: &[&'a str]) -> Option<&'a Path> {
    if named.is_dir() { None } else { others.iter().map(|path| Path::new(*path)).find(|path| path.is_dir()) }
}

/// Puts `--` behind `spark-submit`: its options have names that are flags here, too.
fn leave_alone(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(at) = arguments.iter().position(|argument| argument == "spark-submit") else { return arguments };
    let rest = arguments.get(at + 1..).unwrap_or_default();
    if rest.first().is_some_and(|first| first != "--" && !(rest.len() == 1 && (first == "--help" || first == "-h"))) {
        arguments.insert(at + 1, "--".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use arguments::Command;

    #[test]
    fn a_temporary_directory_that_does_not_exist_is_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        let (real, absent) = (directory.path(), directory.path().join("absent"));
        let others = [absent.to_str().expect("UTF-8"), real.to_str().expect("UTF-8")];
        assert_eq!(instead_of(&absent, &others), Some(real));
        assert_eq!(instead_of(real, &others), None);
        assert_eq!(instead_of(&absent, &others[..1]), None);
    }

    #[test]
    fn what_follows_spark_submit_is_its_own() {
        let line = "cluster-pack --name mine spark-submit --name theirs -v --json job.py --store x";
        let cli = Cli::try_parse_from(leave_alone(line.split(' ').map(Into::into).collect())).expect("parses");
        assert_eq!(cli.common.name.as_deref(), Some("mine"));
        assert!(cli.common.store.is_none() && !cli.common.json);
        let Command::SparkSubmit(submit) = cli.command else { panic!("another command") };
        assert_eq!(submit.arguments, ["--name", "theirs", "-v", "--json", "job.py", "--store", "x"]);
    }
}
