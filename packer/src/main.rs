//! The `cluster-pack` executable.
fn main() {}
