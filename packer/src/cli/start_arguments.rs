//! The options that say when Python runs on the nodes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cpack_format::job::Start;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct StartArguments {
    /// When Python runs on a node that has not the environment yet [default: eager]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub start: Option<WhenArgument>,
    /// What a run reads first, as `env-python --cpack trace FILE` or CPACK_RECORD wrote it: starts fetch that first
    #[arg(long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
}

/// When Python runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WhenArgument {
    /// After the environment was built
    Eager,
    /// At once, from an environment that is served, where the node allows it
    Lazy,
    /// At once where a trace says that it pays
    Auto,
}

impl From<WhenArgument> for Start {
    fn from(when: WhenArgument) -> Self {
        match when {
            WhenArgument::Eager => Self::Eager,
            WhenArgument::Lazy => Self::Lazy,
            WhenArgument::Auto => Self::Auto,
        }
    }
}

/// The traced run of `upload`.
#[derive(Debug, Args)]
pub(super) struct TraceArguments {
    /// Run Python here with the arguments after `--`, and let starts fetch first what that reads. With --trace-file, it is added
    /// to FILE
    #[arg(long, requires = "traced")]
    pub trace: bool,
    /// Arguments of python for --trace, e.g. `-c 'import torch'`
    #[arg(last = true, value_name = "ARGUMENTS", requires = "trace")]
    pub traced: Vec<OsString>,
}
