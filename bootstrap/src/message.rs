//! Lines on standard error, and the switch for the events of a start.

use std::io::Write as _;

use crate::settings::Settings;
pub(crate) fn say(line: &str) {
    // The caller may have closed standard error.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Records the events of this process if `CPACK_TRACE` or `CPACK_METRICS` is set.
pub(crate) fn record(settings: &Settings) {
    if settings.trace.is_some() || settings.metrics.is_some() {
        cpack_events::record("cpack-boot", settings.trace.as_deref());
    }
}
