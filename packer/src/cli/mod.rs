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
mod start_arguments;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use cpack_format::exit::Exit;

use arguments::{Cli, Command};
pub use bench_arguments::{Bench, Compare, Form, Instead, Measure, Simulate};
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

/// Reads the arguments of `cpack-bench`, which are those of `cluster-pack bench`. `Err` carries the exit code of what is done
/// already: a message, the help, or man pages were written.
pub fn bench(arguments: impl IntoIterator<Item = OsString>) -> Result<(Context, Bench), ExitCode> {
    let Cli { mut common, command } = parse(arguments.into_iter().collect())?;
    if let Command::Share { directory } = &command {
        // The wheel is built with what is there before `cluster-pack` itself.
        return Err(commands::share::share(directory).map_or_else(|error| refused(&error), |()| ExitCode::SUCCESS));
    }
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
    fn temporary_directory_that_does_not_exist_is_passed_over() {
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

    /// The commands in a page: what is shown as code, in lines and in sentences, without what a shell does with them.
    fn commands(page: &str) -> Vec<Vec<String>> {
        let lines = page.lines().filter_map(|line| line.strip_prefix("    ").or_else(|| line.strip_prefix("$ ")));
        let sentences =
            page.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').skip(1).step_by(2));
        let of_shell = |word: &str| [">", "|", "&&", ";"].contains(&word);
        let words = |code: &str| -> Option<Vec<String>> {
            let at = code
                .find("cluster-pack ")
                .filter(|at| code.get(..*at).is_some_and(|before| !before.ends_with(['/', '-'])))?;
            let words = shlex::split(code.get(at..)?)?;
            Some(
                words
                    .into_iter()
                    .take_while(|word| !of_shell(word))
                    .filter(|word| !word.contains('…'))
                    .map(|word| word.trim_end_matches(')').to_owned())
                    .collect(),
            )
        };
        lines.chain(sentences).filter_map(words).filter(|words| words.len() > 1).collect()
    }

    #[test]
    fn commands_in_the_docs_are_understood() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let pages = std::fs::read_dir(root.join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
        let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
        let (mut understood, mut refused) = (0, Vec::new());
        for path in pages.chain([root.join("README.md")]) {
            for words in commands(&std::fs::read_to_string(&path).expect("reads")) {
                // A word for any command.
                if words.iter().any(|word| word == "COMMAND") {
                    continue;
                }
                let shown = words.join(" ");
                let parsed = Cli::try_parse_from(leave_alone(words.into_iter().map(Into::into).collect()));
                use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument, MissingSubcommand};
                // A sentence need not name all that a command needs.
                let known = [DisplayHelp, DisplayVersion, MissingRequiredArgument, MissingSubcommand];
                match parsed.map_err(|error| error.kind()) {
                    Err(kind) if !known.contains(&kind) => {
                        refused.push(format!("{}: {shown}: {kind}", path.display()));
                    }
                    _ => understood += 1,
                }
            }
        }
        assert!(refused.is_empty(), "{refused:#?}");
        assert!(understood > 60, "{understood} commands were found");
    }
}
