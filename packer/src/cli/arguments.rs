//! The commands and their flags. Documentation comments of commands and flags are the texts of `--help`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench_arguments::Bench;
use super::start_arguments::{StartArguments, TraceArguments};

/// Ship a Python environment to a cluster.
#[derive(Debug, Parser)]
#[command(name = "cluster-pack", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 success, 80 usage, 81 environment, 82 interpreter, 83 damaged artifact, \
    84 not found, 85 denied, 86 store unavailable, 87 disk, 88 stopped, 89 internal.\n\
    Settings come from flags, then CPACK_* variables, then the file that CPACK_CONFIG names \
    (default: ~/.config/cluster-pack/config.toml).")]
pub(super) struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// The flags of every command.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// Virtual environment to pack [default: the active one, else the project's .venv]
    #[arg(long, global = true, value_name = "PATH", env = "CPACK_VENV", help_heading = "Environment")]
    pub venv: Option<PathBuf>,
    /// Requirements file to pack instead of a virtual environment, or conda's environment.yml, conda-lock.yml or pixi.lock
    #[arg(short = 'r', long = "requirement", global = true, value_name = "FILE", help_heading = "Environment")]
    pub requirements: Vec<PathBuf>,
    /// Pack only these distributions
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',', help_heading = "Environment")]
    pub only: Vec<String>,
    /// Leave these distributions out
    #[arg(long, global = true, value_name = "NAME", value_delimiter = ',', help_heading = "Environment")]
    pub ignore: Vec<String>,
    /// Keep what the selected distributions require, too: with --only, and where --ignore names it
    #[arg(long, global = true, help_heading = "Environment")]
    pub with_dependencies: bool,
    /// Add or replace a requirement
    #[arg(long, global = true, value_name = "REQUIREMENT", help_heading = "Environment")]
    pub add: Vec<String>,
    /// Ship the interpreter too, so that a node needs no Python (relocatable interpreters only)
    #[arg(long, global = true, env = "CPACK_WITH_PYTHON", help_heading = "Environment")]
    pub with_python: bool,
    /// What becomes of the system packages that a virtual environment with --system-site-packages sees [default: hide]
    #[arg(long, global = true, value_name = "WHAT", env = "CPACK_SYSTEM_SITE_PACKAGES", help_heading = "Environment")]
    pub system_site_packages: Option<SystemSitePackages>,
    /// How requirements are resolved
    #[command(flatten)]
    pub resolution: Resolution,
    /// Store to publish to: file:, hdfs:, viewfs:, s3:, or a directory [default: a directory in the cache]
    #[arg(long, global = true, value_name = "URI", env = "CPACK_STORE", help_heading = "Store")]
    pub store: Option<String>,
    /// Name to publish under [default: the name of the environment's directory]
    #[arg(long, global = true, value_name = "NAME", env = "CPACK_NAME", help_heading = "Store")]
    pub name: Option<String>,
    /// The cpack-boot executable to ship [default: found beside cluster-pack]
    #[arg(long, global = true, value_name = "PATH", env = "CPACK_BOOT", help_heading = "Store")]
    pub boot: Option<PathBuf>,
    /// Copies in HDFS of what every executor reads, 0 for the file system's own number [default: 10]
    #[arg(long, global = true, value_name = "N", env = "CPACK_REPLICATION", value_parser = clap::value_parser!(u32).range(0..=512), help_heading = "Store")]
    pub replication: Option<u32>,
    /// Compression: zstd's level of layers and .tar.zst, 1 to 19 [default: 1]; of .tar.gz and .zip up to 12 [default: 4]
    #[arg(long, global = true, value_name = "N", env = "CPACK_LEVEL", value_parser = clap::value_parser!(i32).range(1..=19), help_heading = "Store")]
    pub level: Option<i32>,
    /// Directory that the client keeps between runs [default: ~/.cache/cluster-pack]
    #[arg(long, global = true, value_name = "PATH", env = "CPACK_CLIENT_CACHE", help_heading = "Store")]
    pub client_cache: Option<PathBuf>,
    /// Print JSON on standard output
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Say less; twice: only errors
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub quiet: u8,
    /// Say more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet", help_heading = "Output")]
    pub verbose: u8,
}

/// What becomes of the packages of the base interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemSitePackages {
    /// They are neither packed nor seen
    Hide,
    /// What each node's own Python has is seen there
    Node,
    /// They are packed with the environment
    Pack,
}

/// How requirements become an environment.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Requirements")]
pub struct Resolution {
    /// Package index
    #[arg(long, global = true, value_name = "URL", env = "CPACK_INDEX_URL", hide_env_values = true)]
    pub index_url: Option<String>,
    /// Further package index
    #[arg(long, global = true, value_name = "URL")]
    pub extra_index_url: Vec<String>,
    /// Directory or page with wheels
    #[arg(long, global = true, value_name = "PATH")]
    pub find_links: Vec<String>,
    /// Python to resolve for, e.g. 3.11
    #[arg(long, global = true, value_name = "X.Y")]
    pub python_version: Option<String>,
    /// Platform to resolve for, as uv names it, e.g. x86_64-manylinux_2_28
    #[arg(long, global = true, value_name = "PLATFORM")]
    pub python_platform: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Pack an environment into a directory, or into one file
    Pack(Pack),
    /// Publish an environment, sending only what the store lacks; prints its URI
    Upload(Upload),
    /// Write one file that acts as the environment's python anywhere
    Launcher(Launcher),
    /// Pack, boot and run here, as an executor would
    Run(Run),
    /// Show what an environment is made of and what changed
    Info(Info),
    /// Check what a submission from here will need; ends with the code of the first thing that is wrong
    Doctor,
    /// Measure what the first run costs here and where it goes
    Bench(Bench),
    /// Copy a file, its metadata and the layers that a launcher needs to a URI, unless the same file is there already
    Publish(Publish),
    /// Print the metadata of a file that was uploaded or published
    Metadata {
        /// Where the file lies
        uri: String,
    },
    /// What Spark needs to run on an environment
    #[command(subcommand)]
    Spark(Spark),
    /// Run spark-submit with what it needs to run on the environment; all that follows is spark-submit's own
    SparkSubmit(SparkSubmit),
    /// What Skein needs to run services in an environment
    #[command(subcommand)]
    Skein(Skein),
    /// What Kubernetes needs to run pods in an environment
    #[command(subcommand)]
    Kubernetes(Kubernetes),
    /// Remove objects of a store that no name needs and that were not used for long; only lists them without --delete
    Prune(Prune),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write man pages and completions for all shells below a directory, as they lie below /usr/share
    #[command(hide = true)]
    Share {
        /// The directory
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct Pack {
    /// A PEX, wheelhouse or archive to pack instead of an environment
    pub artifact: Option<PathBuf>,
    /// Where to write
    #[arg(short, long, value_name = "PATH")]
    pub output: PathBuf,
    /// What to write [default: by the output's name: `.pex`, `.pex.zip`, `.tar.gz`, `.tgz`, `.tar.zst` or `.zip`; else layers]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    #[command(flatten)]
    pub pex: PexArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A directory store with layers and manifest
    Layers,
    /// A PEX, which plain `python my.pex` runs too: one file; of the form that C_PACK_LAYOUT_OPTIMIZATION names if it is set
    Pex,
    /// A PEX as a directory of zip files, itself zipped if the output's name ends in .zip
    PexPacked,
    /// A PEX as a directory of plain files, itself zipped if the output's name ends in .zip
    PexLoose,
    /// A directory of wheels with a requirements.txt, for `pip install --no-index --find-links`; a zip if the output's name ends in
    /// .zip
    Wheelhouse,
    /// The environment as one archive that works wherever it is unpacked: for spark.archives and YARN
    #[value(name = "tar.gz")]
    TarGz,
    /// The same, for `tar --zstd`: smaller and faster; neither Spark nor YARN unpacks it
    #[value(name = "tar.zst")]
    TarZst,
    /// The same without links, which Spark and YARN do not keep in a zip
    Zip,
}

impl Format {
    /// What `output` is to be by its name.
    pub(super) fn of(output: &Path) -> Self {
        let name = output.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
        match () {
            () if is(&[".pex", ".pex.zip"]) => Self::Pex,
            () if is(&[".tar.gz", ".tgz"]) => Self::TarGz,
            () if is(&[".tar.zst"]) => Self::TarZst,
            () if is(&[".zip"]) => Self::Zip,
            () => Self::Layers,
        }
    }
}

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "PEX")]
pub(super) struct PexArguments {
    /// Run `module` or `module:function` instead of the interpreter
    #[arg(short = 'e', long, value_name = "MODULE[:FUNCTION]", group = "pex_entry")]
    pub entry_point: Option<String>,
    /// Run this script of a distribution instead of the interpreter
    #[arg(short = 'c', long, value_name = "SCRIPT", group = "pex_entry")]
    pub script: Option<String>,
    /// See the executor's own modules too: before the PEX, or after it
    #[arg(long, value_name = "WHERE", value_parser = ["false", "prefer", "fallback"])]
    pub inherit_path: Option<String>,
    /// Require an interpreter, e.g. 'CPython>=3.9,<3.12'; of several one must be met
    #[arg(long, value_name = "CONSTRAINT")]
    pub interpreter_constraint: Vec<String>,
    /// Set a variable where it is not set
    #[arg(long, value_name = "NAME=VALUE")]
    pub inject_env: Vec<String>,
    /// Put an argument before those of the command line
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub inject_args: Vec<String>,
    /// Make plain Python run the PEX from a virtual environment
    #[arg(long)]
    pub venv_mode: bool,
    /// Put the modules in this directory into the PEX, too
    #[arg(short = 'D', long, value_name = "PATH")]
    pub sources_directory: Vec<PathBuf>,
    /// Leave byte-code out: smaller, slower at the first start
    #[arg(long)]
    pub no_byte_code: bool,
}

#[derive(Debug, Args)]
pub(super) struct Upload {
    /// A PEX, wheelhouse or archive to publish instead of an environment
    pub artifact: Option<PathBuf>,
    #[command(flatten)]
    pub job: JobArguments,
    #[command(flatten)]
    pub trace: TraceArguments,
    /// Verify what the store has, and replace what is damaged
    #[arg(long)]
    pub repair: bool,
    /// Lay the launcher at this URI, as one file that needs no other; the store is then a directory beside it, if none is named
    #[arg(long, value_name = "URI")]
    pub package: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Publish {
    /// The file
    pub file: PathBuf,
    /// Where it should lie
    pub uri: String,
    /// A JSON object to lay beside it, as the same name with `.json` for its last extension
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub metadata: String,
    /// Send it even if the same file is there
    #[arg(long)]
    pub force: bool,
    /// Leave the layers of a launcher in the store that it names, unless that is a directory of this machine and URI is not
    #[arg(long)]
    pub keep_store: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Spark {
    /// Publish what is missing and print the properties, as spark-defaults.conf has them
    Conf(SparkConf),
}

#[derive(Debug, Args)]
pub(super) struct SparkConf {
    /// Which cluster the properties are for: yarn, spark://…, local-cluster[…], k8s://…
    #[arg(long, value_name = "URL", default_value = "")]
    pub master: String,
    /// Where the driver runs
    #[arg(long, value_enum, default_value_t = DeployMode::Client)]
    pub deploy_mode: DeployMode,
    /// Leave editable projects out
    #[arg(long)]
    pub no_editable: bool,
    #[command(flatten)]
    pub start: StartArguments,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum DeployMode {
    /// Here.
    #[default]
    Client,
    /// On the cluster.
    Cluster,
}

#[derive(Debug, Args)]
pub(super) struct SparkSubmit {
    /// Arguments of spark-submit
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Skein {
    /// Publish what is missing and print an application for `skein application submit`
    Spec(SkeinSpec),
}

#[derive(Debug, Args)]
pub(super) struct SkeinSpec {
    #[command(flatten)]
    pub job: JobArguments,
    /// Containers
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub instances: u32,
    /// Virtual cores of a container
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcores: u32,
    /// Memory of a container
    #[arg(long, value_name = "SIZE", default_value = "1 GiB")]
    pub memory: String,
    /// Queue
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub queue: String,
    /// File systems whose tokens the application needs
    #[arg(long, value_name = "URI")]
    pub file_system: Vec<String>,
    /// Arguments of what runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Kubernetes {
    /// Publish what is missing and print a Job's manifest
    Job(KubernetesJob),
}

#[derive(Debug, Args)]
pub(super) struct KubernetesJob {
    #[command(flatten)]
    pub job: JobArguments,
    /// Image with an interpreter of the environment's version (any, with `--with-python`)
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Persistent volume claim that holds a directory store, mounted at the store's own path
    #[arg(long, value_name = "CLAIM", conflicts_with = "boot_path")]
    pub claim: Option<String>,
    /// Where the image has cpack-boot, for stores on the network
    #[arg(long, value_name = "PATH")]
    pub boot_path: Option<String>,
    /// Pods at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub parallelism: u32,
    /// Directory of the node that keeps environments for the next pod
    #[arg(long, value_name = "PATH")]
    pub node_cache: Option<String>,
    /// Arguments of what runs
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct Launcher {
    /// A PEX, wheelhouse or archive to start instead of an environment
    pub artifact: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub job: JobArguments,
}

#[derive(Debug, Clone, Default, Args)]
pub(super) struct JobArguments {
    /// Run this module instead of the interpreter
    #[arg(short = 'm', long, value_name = "MODULE", group = "entry")]
    pub module: Option<String>,
    /// Run this console script instead of the interpreter
    #[arg(long, value_name = "SCRIPT", group = "entry")]
    pub script: Option<String>,
    /// Run this pickled function: a dictionary with `func` and `args`
    #[arg(long, value_name = "FILE", group = "entry")]
    pub payload: Option<PathBuf>,
    /// Set a variable (NAME=VALUE: in the launcher, in the specification of Skein or Kubernetes, never in a store), or name
    /// one that the executor must have (NAME)
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    pub environ: Vec<String>,
    /// Leave editable projects out
    #[arg(long)]
    pub no_editable: bool,
    #[command(flatten)]
    pub start: StartArguments,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub job: JobArguments,
    /// Do not print where the time went
    #[arg(long)]
    pub no_timings: bool,
    /// Arguments of python, e.g. `-c 'import numpy'`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub arguments: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Remove, instead of only showing what would be removed
    #[arg(long)]
    pub delete: bool,
    /// Keep what was published or used by a publication within this time, e.g. 12h, 30d, 8w
    #[arg(long, value_name = "TIME", env = "CPACK_GRACE", default_value = "30d", value_parser = parse_time)]
    pub grace: Duration,
}

/// Parses a number with a unit: seconds, minutes, hours, days or weeks.
fn parse_time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.get(number.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        Some("w") => 7 * 86_400,
        _ => 0,
    };
    let number: Option<u64> = number.parse().ok().filter(|_| seconds > 0);
    let time = number.and_then(|number| number.checked_mul(seconds)).filter(|time| *time < 1 << 40);
    time.map(Duration::from_secs).ok_or_else(|| "write a number and a unit: 12h, 30d, 8w".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct Info {
    /// What to show: a launcher, a PEX, a wheelhouse, a manifest's URI or path, or a name in the store [default: the environment]
    pub artifact: Option<String>,
    /// Compare with this launcher, manifest or name
    #[arg(long, value_name = "ARTIFACT")]
    pub against: Option<String>,
    /// Show this many of the largest
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_time_wants_a_unit() {
        for (text, seconds) in [("0s", 0), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("1w", 604_800)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "d", "-1d", "1.5h", "3 d", "9999999999999999999d", "99999999999999d", "1y"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
