//! Traced starts: what each process did when, as lanes of a waterfall.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use cluster_pack::cli::CommandError;

use crate::error::BenchError;
use crate::imports::Imported;
use crate::report::Waterfall;
use crate::starts::WORK;
use crate::trace::{self, Bar, Event, Lane, Scale};

/// A waterfall divides the time of the traced start into so many parts.
const SLOTS: usize = 480;

/// What the server of a lazy start does: pieces that a program waits for, pieces ahead of it, decoding.
const SERVING: &[&str] = &["demand", "ahead", "decode"];

/// Microseconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e6
}

/// A start that wrote a trace in its container.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) node: PathBuf,
    pub(crate) container: PathBuf,
    /// When it began, in microseconds since 1970.
    pub(crate) origin: f64,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// What is known of Python's part of a start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Python<'a> {
    /// What the command imports; nothing where it cannot be told.
    pub(crate) imported: &'a [Imported],
    /// Seconds that Python takes to start and end.
    pub(crate) interpreter: f64,
}

impl Traced {
    /// The trace.
    pub(crate) fn text(&self) -> Result<String, BenchError> {
        let file = self.container.join("trace");
        Ok(fs::read_to_string(&file).map_err(CommandError::io("read", &file))?)
    }

    /// Lanes of the boot, of its threads, and of Python, whose part took so many seconds.
    pub(crate) fn cold(&self, events: &[Event], python: &Python<'_>, took: f64) -> Waterfall {
        self.drawn(events, trace::lanes(events, WORK, self.scale(), "thread"), python, took)
    }

    /// Lanes of the process that becomes Python, of the threads that serve, and of those that fill.
    pub(crate) fn lazy(&self, events: &BTreeMap<String, Vec<Event>>, python: &Python<'_>, took: f64) -> Waterfall {
        let of = |process: &str| events.get(process).map_or(&[][..], Vec::as_slice);
        let mut behind = trace::lanes(of("cpack-server"), SERVING, self.scale(), "server");
        behind.extend(trace::lanes(of("cpack-filler"), WORK, self.scale(), "filler"));
        self.drawn(of("cpack-boot"), behind, python, took)
    }

    fn drawn(&self, boot: &[Event], threads: Vec<Lane>, python: &Python<'_>, took: f64) -> Waterfall {
        let boot = trace::sequence(boot, "boot", self.origin);
        let ready = boot.last().map_or(0.0, |bar| bar.to);
        let mut lanes = vec![Lane { name: "boot".into(), bars: boot }];
        lanes.extend(threads);
        lanes.extend(python_lanes(python, ready, self.seconds, took));
        Waterfall { seconds: self.seconds, lanes }
    }

    fn scale(&self) -> Scale {
        Scale { origin: self.origin, seconds: self.seconds, slots: SLOTS }
    }
}

/// The lanes of Python: its own start and the command, and the command's outermost imports.
///
/// Python does not report when an import began, so the imports are drawn one after the other, each as long as it took.
fn python_lanes(python: &Python<'_>, ready: f64, end: f64, took: f64) -> Vec<Lane> {
    let Python { imported, interpreter } = *python;
    let bar = |kind: &str, name: &str, from: f64, to: f64| Bar { kind: kind.into(), from, to, name: name.into() };
    // `cpack-boot` writes the file of the trace between its last phase and `exec`.
    let exec = (end - took).max(ready);
    let mut bars = Vec::new();
    if exec > ready {
        bars.push(bar("trace", "", ready, exec));
    }
    let begin = (exec + interpreter).min(end);
    bars.push(bar("interpreter", "", exec, begin));
    bars.push(bar("command", "", begin, end));
    let after_site = imported.iter().position(|i| i.module == "site").map_or(0, |at| at + 1);
    let outermost: Vec<&Imported> = imported.iter().skip(after_site).filter(|i| i.depth == 0).collect();
    let total: f64 = outermost.iter().map(|i| i.total_us as f64).sum();
    // Profiling slows imports down: they are scaled to be at most as long as the command.
    let scale = ((end - begin) * 1e6 / total.max(1.0)).min(1.0) / 1e6;
    let mut at = begin;
    let mut imports = Vec::new();
    for import in outermost {
        let to = at + import.total_us as f64 * scale;
        if to - at > end / SLOTS as f64 {
            imports.push(bar("import", &import.module, at, to));
        }
        at = to;
    }
    let mut lanes = vec![Lane { name: "python".into(), bars }];
    if !imports.is_empty() {
        lanes.push(Lane { name: "imports".into(), bars: imports });
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_lanes_put_imports_into_the_command() {
        let import = |module: &str, total_us, depth| Imported { module: module.into(), own_us: 1, total_us, depth };
        let imported = [import("_io", 9, 1), import("site", 10, 0), import("a.b", 5, 1), import("a", 2_000_000, 0)];
        let lanes = python_lanes(&Python { imported: &imported, interpreter: 0.5 }, 1.0, 3.0, 1.5);
        let told: Vec<_> = lanes[0].bars.iter().map(|b| (b.kind.as_str(), b.from, b.to)).collect();
        assert_eq!(told, [("trace", 1.0, 1.5), ("interpreter", 1.5, 2.0), ("command", 2.0, 3.0)]);
        let told: Vec<_> = lanes[1].bars.iter().map(|b| (b.name.as_str(), b.from, b.to)).collect();
        assert_eq!(told, [("a", 2.0, 3.0)]);
    }
}
