//! The `cpack-bench` executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    cpack_bench::main(std::env::args_os())
}
