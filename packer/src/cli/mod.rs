//! The command line of `cluster-pack`: flags, commands, messages.
//!
//! Standard output carries the answer (a URI, a path, JSON), standard error everything else, so that
//! `uri=$(cluster-pack upload)` works. Progress bars are drawn on a terminal only. What is exported here is what
//! `cpack-bench` shares with `cluster-pack`.

mod arguments;
mod bench_arguments;
mod commands;
mod config;
mod context;
mod error;
mod output;
mod report;
mod run;
mod shell;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use cpack_format::exit::Exit;

use arguments::{Cli, Command};
pub use bench_arguments::{Bench, Form, Instead, Measure, Simulate};
pub use commands::run::PHASES;
pub use context::{Context, absolute};
pub use error::CommandError;
pub use output::{bytes, count, error as show_error, seconds, table};

/// Runs `cluster-pack` with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match parse(leave_alone(arguments.into_iter().collect())) {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some(path) = context::variable("CPACK_TRACE") {
        cpack_events::record("cluster-pack", Some(path.as_ref()));
    }
    use_existing_temporary_directory();
    let result = run::run(cli);
    // A command does not fail because its trace cannot be written.
    let _ = cpack_events::write();
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => refused(&error),
    }
}

/// Reads the arguments of `cpack-bench`, which are those of `cluster-pack bench`. `Err` carries the exit code after the
/// message, or the help, was printed.
pub fn bench(arguments: impl IntoIterator<Item = OsString>) -> Result<(Context, Bench), ExitCode> {
    let Cli { mut common, command } = parse(arguments.into_iter().collect())?;
    let Command::Bench(bench) = command else {
        return Err(refused(&CommandError::Usage("cpack-bench only does what `cluster-pack bench` does".into())));
    };
    config::fill_from_process(&mut common).map_err(|error| refused(&error.into()))?;
    Ok((Context::new(common).map_err(|error| refused(&error))?, bench))
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS }
    })
}

fn refused(error: &CommandError) -> ExitCode {
    output::error(error);
    ExitCode::from(error.exit().code())
}

/// Where Python's `tempfile` looks for a temporary directory that no variable names.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// Ignores a `TMPDIR` that does not exist, as Python does: a scheduler may name a directory that is not in the container.
fn use_existing_temporary_directory() {
    if let Some(existing) = instead_of(&std::env::temp_dir(), &TEMPORARY) {
        // Fails only if it was called before.
        let _ = tempfile::env::override_temp_dir(existing);
    }
}

/// The first of `others` that exists; `None` if `named` does.
fn instead_of<'a>(named: &Path, others: &[&'a str]) -> Option<&'a Path> {
    if named.is_dir() { None } else { others.iter().map(|path| Path::new(*path)).find(|path| path.is_dir()) }
}

/// Puts `--` behind `spark-submit`, whose options may have the same names as flags of `cluster-pack`.
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
    fn arguments_after_spark_submit_belong_to_it() {
        let line = "cluster-pack --name mine spark-submit --name theirs -v --json job.py --store x";
        let cli = Cli::try_parse_from(leave_alone(line.split(' ').map(Into::into).collect())).expect("parses");
        assert_eq!(cli.common.name.as_deref(), Some("mine"));
        assert!(cli.common.store.is_none() && !cli.common.json);
        let Command::SparkSubmit(submit) = cli.command else { panic!("another command") };
        assert_eq!(submit.arguments, ["--name", "theirs", "-v", "--json", "job.py", "--store", "x"]);
    }
}
