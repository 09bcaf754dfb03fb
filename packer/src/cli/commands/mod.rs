//! The commands: each file one, this one what they share.

mod bench;
mod context;
mod error;
mod info;
mod kubernetes;
mod launcher;
mod made;
mod package;
mod pex;
mod prune;
mod publish;
mod run;
mod skein;
mod spark;
mod upload;

use clap::CommandFactory as _;

use super::arguments::{Cli, Command, Kubernetes, Skein, Spark, Upload};
use super::config;
use context::Context;

pub(super) use error::CommandError;

/// Runs a command and returns the process's exit code.
pub(super) fn run(mut cli: Cli) -> Result<u8, CommandError> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "cluster-pack", &mut std::io::stdout().lock());
        return Ok(0);
    }
    config::fill(&mut cli.common, |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(Into::into))?;
    if let Command::Upload(Upload { package: Some(package), .. }) = &cli.command {
        package::fill(&mut cli.common, package)?;
    }
    let context = Context::new(cli.common)?;
    match cli.command {
        Command::Pack(arguments) => upload::pack(&context, &arguments).map(|()| 0),
        Command::Upload(arguments) => upload::upload(&context, &arguments).map(|()| 0),
        Command::Launcher(arguments) => launcher::launcher(&context, &arguments).map(|()| 0),
        Command::Run(arguments) => run::run(&context, &arguments),
        Command::Info(arguments) => info::info(&context, &arguments).map(|()| 0),
        Command::Bench(arguments) => bench::bench(&context, &arguments).map(|()| 0),
        Command::Publish(arguments) => publish::publish(&context, &arguments).map(|()| 0),
        Command::Metadata { uri } => package::metadata(&context, &uri).map(|()| 0),
        Command::Spark(Spark::Conf(arguments)) => spark::conf(&context, &arguments).map(|()| 0),
        Command::SparkSubmit(arguments) => spark::submit(&context, &arguments).map(|never| match never {}),
        Command::Skein(Skein::Spec(arguments)) => skein::spec(&context, &arguments).map(|()| 0),
        Command::Kubernetes(Kubernetes::Job(arguments)) => kubernetes::job(&context, &arguments).map(|()| 0),
        Command::Prune(arguments) => prune::prune(&context, &arguments).map(|()| 0),
        Command::Completions { .. } => Ok(0),
    }
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for word in ["a", "", "a b", "it's", "$HOME", "a;b", "*"] {
            let script = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), word);
        }
    }
}
