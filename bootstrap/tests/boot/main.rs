//! Real processes: launchers that are started, raced, stopped, killed and lied to, as an unprivileged user.
#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

mod doctor;
mod faults;
mod lazy;
mod overlays;
mod sharing;
mod starts;

/// What the tests start.
fn boot() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_cpack-boot"))
}
