//! What `cpack-boot --cpack` does besides starting Python.

use std::ffi::OsString;

use crate::error::BootError;

/// Runs a command; the exit code.
pub fn run(arguments: &[OsString]) -> Result<u8, BootError> {
    Err(BootError::Usage(format!("unknown command {arguments:?}")))
}
