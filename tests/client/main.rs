//! The Python client: its wheel, built from this checkout and installed into new environments; its own tests there; and
//! the frameworks that it is for.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

#[path = "../whole/programs.rs"]
#[allow(dead_code, reason = "each test program uses a part of it")]
mod programs;
#[path = "../support/mod.rs"]
mod support;

mod applications;
mod frameworks;
mod library;
mod spark;
mod wheel;
