//! Lines on standard error, and the switch for the events of a start.

use std::io::Write as _;

use cpack_format::message::one_line;

use crate::settings::Settings;

/// Writes one line: the name of this program and `text`, without line breaks.
pub(crate) fn say(text: &str) {
    // The caller may have closed standard error.
    let _ = std::io::stderr().write_all(format!("{}\n", line(text)).as_bytes());
}

pub(crate) fn line(text: &str) -> String {
    one_line(&format!("cpack-boot: {text}"))
}

/// Records the events of this process if `CPACK_TRACE` or `CPACK_METRICS` is set.
pub(crate) fn record(settings: &Settings) {
    if settings.trace.is_some() || settings.metrics.is_some() {
        cpack_events::record("cpack-boot", settings.trace.as_deref());
    }
}
