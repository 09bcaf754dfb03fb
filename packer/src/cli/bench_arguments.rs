//! The flags of `cluster-pack bench`, which `cpack-bench` takes. Documentation comments of flags are the texts of `--help`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `cluster-pack bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// What to do instead of measuring
    #[command(subcommand)]
    pub instead: Option<Instead>,
    /// How to measure
    #[command(flatten)]
    pub measure: Measure,
}

/// What to do instead of measuring.
#[derive(Debug, Subcommand)]
pub enum Instead {
    /// What a cluster would take, from reports of `bench --json`
    Simulate(Box<Simulate>),
    /// Two reports of `bench --json`, number by number
    Compare(Compare),
}

/// How to measure.
#[derive(Debug, Args)]
pub struct Measure {
    /// Runs of each: medians are given with the smallest and the largest
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub runs: u16,
    /// Containers that start at once on one node
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub containers: u16,
    /// Measure these forms too
    #[arg(long, value_enum, value_name = "FORM", value_delimiter = ',')]
    pub mode: Vec<Form>,
    /// Write a page with the waterfall of the boot and the map of the environment to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Where nodes and containers are made: its file system is what is measured [default: the client's cache]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Leave nodes and containers there: some file systems are slow for minutes where much was removed
    #[arg(long)]
    pub keep: bool,
    /// Arguments of python, e.g. `-- -c 'import numpy'` [default: import the largest distribution that nothing else needs]
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<OsString>,
}

/// Forms of an environment beside layers, as `pack --format` calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A PEX: one file.
    Pex,
    /// A PEX as a directory of zip files.
    PexPacked,
    /// A PEX as a directory of plain files.
    PexLoose,
}

/// `cluster-pack bench simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Reports that the costs are taken from
    #[arg(required = true, value_name = "REPORT")]
    pub reports: Vec<PathBuf>,
    /// The environment to simulate, of which sizes and the warm start are taken [default: each of the reports]
    #[arg(long, value_name = "REPORT")]
    pub of: Vec<PathBuf>,
    /// Compare with what was measured for the environments, on their own machine, instead of simulating a cluster
    #[arg(long)]
    pub check: bool,
    /// Nodes
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub nodes: u32,
    /// Containers of each node
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub containers: u32,
    /// Cores of a node that containers may use
    #[arg(long, value_name = "N", default_value_t = 16.0)]
    pub cores: f64,
    /// Network of a node, in Gbit/s
    #[arg(long, value_name = "GBIT", default_value_t = 10.0)]
    pub network: f64,
    /// Seconds between the starts of a node's containers
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub stagger: f64,
    /// Gbit/s that a shared directory (NFS) delivers to all nodes together
    #[arg(long, value_name = "GBIT", default_value_t = 10.0)]
    pub shared: f64,
    /// Nodes that hold HDFS's blocks [default: the nodes]
    #[arg(long, value_name = "N")]
    pub data_nodes: Option<u32>,
}

/// `cluster-pack bench compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// The report that the other is divided by
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The report to compare with it
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Write a page with the comparison to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Cli, Command};
    use clap::Parser as _;

    fn bench(line: &[&str]) -> Bench {
        let cli = Cli::try_parse_from(line).expect("parses");
        let Command::Bench(bench) = cli.command else { panic!("{line:?} is another command") };
        bench
    }

    #[test]
    fn bench_arguments_after_the_dashes_are_pythons() {
        let line =
            ["cluster-pack", "bench", "--runs", "2", "--mode", "pex,pex-loose", "--", "-c", "import x", "--json"];
        let measure = bench(&line).measure;
        assert_eq!((measure.runs, measure.mode), (2, vec![Form::Pex, Form::PexLoose]));
        assert_eq!(measure.arguments, ["-c", "import x", "--json"]);
    }

    #[test]
    fn bench_simulate_takes_reports() {
        let Some(Instead::Simulate(simulate)) =
            bench(&["cluster-pack", "bench", "simulate", "a.json", "--nodes", "7"]).instead
        else {
            panic!("measures")
        };
        assert_eq!((simulate.nodes, simulate.reports), (7, vec![PathBuf::from("a.json")]));
    }
}
