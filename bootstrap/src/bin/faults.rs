//! `cpack-boot` with fail points, for the fault suite.

use std::process::ExitCode;

fn main() -> ExitCode {
    cpack_boot::main()
}
