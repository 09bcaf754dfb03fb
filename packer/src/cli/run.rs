//! Runs the command that the arguments name.

use clap::CommandFactory as _;

use super::arguments::{Cli, Command, Kubernetes, Skein, Spark, Upload};
use super::commands::{
    bench, doctor, info, kubernetes, launcher, package, prune, publish, run, share, skein, spark, upload,
};
use super::config;
use super::context::Context;
use super::error::CommandError;

/// Returns the exit code of the process.
pub(super) fn run(mut cli: Cli) -> Result<u8, CommandError> {
    if let Command::Completions { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "cluster-pack", &mut std::io::stdout().lock());
        return Ok(0);
    }
    if let Command::Share { directory } = &cli.command {
        return share::share(directory).map(|()| 0);
    }
    if let Command::Bench(_) = cli.command {
        return bench::bench().map(|never| match never {});
    }
    config::fill_from_process(&mut cli.common)?;
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
        Command::Doctor => doctor::doctor(&context),
        Command::Publish(arguments) => publish::publish(&context, &arguments).map(|()| 0),
        Command::Metadata { uri } => package::metadata(&context, &uri).map(|()| 0),
        Command::Spark(Spark::Conf(arguments)) => spark::conf(&context, &arguments).map(|()| 0),
        Command::SparkSubmit(arguments) => spark::submit(&context, &arguments).map(|never| match never {}),
        Command::Skein(Skein::Spec(arguments)) => skein::spec(&context, &arguments).map(|()| 0),
        Command::Kubernetes(Kubernetes::Job(arguments)) => kubernetes::job(&context, &arguments).map(|()| 0),
        Command::Prune(arguments) => prune::prune(&context, &arguments).map(|()| 0),
        Command::Bench(_) | Command::Completions { .. } | Command::Share { .. } => Ok(0),
    }
}
