//! The command line of `cluster-pack`: what is asked for, and what is shown.
//!
//! Standard output carries the answer (a URI, a path, JSON), standard error everything that is said about it, so that
//! `uri=$(cluster-pack upload)` works. Progress bars are drawn on a terminal only.

mod arguments;
mod commands;
mod config;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use cpack_artifact::exit::Exit;

pub use arguments::Cli;

/// Runs `cluster-pack` with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage.code()) } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::error(&error);
            ExitCode::from(error.exit().code())
        }
    }
}
