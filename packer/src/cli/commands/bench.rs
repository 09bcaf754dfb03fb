//! `cluster-pack bench` starts `cpack-bench`, a program of its own.

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::cli::error::CommandError;

const PROGRAM: &str = "cpack-bench";

/// Replaces this process with `cpack-bench`, found beside `cluster-pack` or on `PATH`. Returns only if that fails.
pub(in crate::cli) fn bench() -> Result<Infallible, CommandError> {
    let own = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let beside = own.as_ref().map(|path| path.with_file_name(PROGRAM)).filter(|path| path.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(PROGRAM));
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    if let Some(own) = own {
        // The program that cpack-bench measures.
        command.env("CPACK_BENCH_PACKER", own);
    }
    let source = command.exec();
    Err(CommandError::NoBench { source })
}
