//! What the boot tells: lines on standard error, and the events of a start in a file.

use std::io::Write as _;
use std::sync::Once;

use cpack_format::message::one_line;
use cpack_node::node::Attempts;

use crate::settings::Settings;

/// Writes one line to standard error.
pub(crate) fn say(line: &str) {
    // Whoever closed it does not want to know.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Records the events of this process where their file is asked for, or the figures that come of them.
pub(crate) fn record(settings: &Settings) {
    if settings.trace.is_some() || settings.metrics.is_some() {
        cpack_events::record("cpack-boot", settings.trace.as_deref());
    }
}

/// Tells those who chose a place for the node cache, once, why the environment is somewhere else.
pub(crate) fn tell_if_not_as_chosen(attempts: &Attempts<'_>) {
    static TOLD: Once = Once::new();
    if let Some(why) = attempts.not_as_chosen() {
        TOLD.call_once(|| say(&one_line(&format!("cpack-boot: {why}"))));
    }
}
