//! Real processes: launchers that are started, raced, stopped, killed and lied to, as an unprivileged user.
#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../../src/extract/tests/make.rs"]
#[expect(dead_code, reason = "shared with the tests of extraction, which use more of it")]
mod make;

mod faults;
mod overlays;
mod sharing;
mod starts;
mod world;

/// What the tests start.
fn boot() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_cpack-boot"))
}
