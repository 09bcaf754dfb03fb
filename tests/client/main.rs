//! The Python client: its wheel, built from this checkout and installed into new environments; its own tests there; and
//! the frameworks that it is for.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

mod applications;
mod frameworks;
mod library;
mod spark;
mod ways;
mod wheel;
