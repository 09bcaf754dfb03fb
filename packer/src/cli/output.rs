//! Messages, answers, tables and progress bars; sizes and durations as people read them.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

pub use cpack_format::human::{bytes, table};
use cpack_format::message::with_causes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Writes messages to standard error, as many as `-q` and `-v` allow, and the answer to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// -2 shows errors only, -1 warnings too, 0 messages, 1 details.
    level: i16,
    /// Whether the answer is JSON.
    pub(super) json: bool,
}

impl Voice {
    pub(super) fn new(quiet: u8, verbose: u8, json: bool) -> Self {
        Self { level: i16::from(verbose) - i16::from(quiet), json }
    }

    /// Shows a message, unless `-q` was given.
    pub fn say(self, text: impl AsRef<str>) {
        if self.level >= 0 {
            to_stderr(text.as_ref());
        }
    }

    /// Shows a message if `-v` was given.
    pub(super) fn detail(self, text: impl AsRef<str>) {
        if self.level > 0 {
            to_stderr(text.as_ref());
        }
    }

    /// Shows a warning, unless `-qq` was given.
    pub fn warn(self, text: impl AsRef<str>) {
        if self.level > -2 {
            to_stderr(&format!("{} {}", paint("warning:", "33;1"), text.as_ref()));
        }
    }

    /// Prints the answer: `value` as JSON with `--json`, otherwise `text`.
    pub fn answer(self, text: impl AsRef<str>, value: &impl Serialize) {
        if self.json {
            to_stdout(&serde_json::to_string_pretty(value).unwrap_or_default());
        } else if !text.as_ref().is_empty() {
            to_stdout(text.as_ref());
        }
    }

    /// A progress bar for `total` bytes, drawn only on a terminal and not with `-q`.
    pub(super) fn bar(self, total: u64, verb: &'static str) -> ProgressBar {
        let target = if self.level < 0 { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style =
            ProgressStyle::with_template("{msg:>10} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style.progress_chars("=> "));
        bar.set_message(verb);
        bar
    }
}

/// Shows an error in one line: its message, the causes that the message lacks, no credentials.
pub fn error(error: &dyn std::error::Error) {
    let line = cpack_store::redact(&with_causes(error)).replace('\n', " ");
    to_stderr(&format!("{} {line}", paint("error:", "31;1")));
}

fn paint(text: &str, code: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || !io::stderr().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{code}m{text}\x1b[0m") }
}

/// Ignores a closed pipe (`| head`).
fn to_stdout(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

fn to_stderr(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A duration: `0.12 s`, `12.3 s`, `3 ms`.
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.0995 => format!("{:.1} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// `1 layer`, `3 layers`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(3)), "3.0 ms");
        assert_eq!(seconds(Duration::from_millis(1234)), "1.23 s");
        assert_eq!(count(1, "layer"), "1 layer");
    }
}
