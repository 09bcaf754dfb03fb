//! The `cpack-boot` executable.
fn main() {}
