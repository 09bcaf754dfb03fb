//! The `cpack-boot` executable.

use std::process::ExitCode;

fn main() -> ExitCode {
    cpack_boot::main()
}
