//! Parses `CPACK_METRICS`, in which `cpack-boot` writes a line for each start.

use std::collections::BTreeMap;

use cpack_format::metrics::is_start;
use serde::Deserialize;

use crate::error::BenchError;

/// The metrics of one start.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Metrics {
    /// `warm`, `cold` or `lazy`; `server` and `filler` for what works behind a lazy start.
    pub(crate) start: String,
    /// Milliseconds until `exec`.
    pub(crate) total_ms: f64,
    /// Milliseconds of each phase. Phases follow each other.
    pub(crate) phases_ms: BTreeMap<String, f64>,
    /// Milliseconds of all threads together, by kind of work.
    #[serde(default)]
    pub(crate) work_ms: BTreeMap<String, f64>,
    pub(crate) bytes: Bytes,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Bytes {
    /// Of archives.
    pub(crate) fetched: u64,
    /// Of files.
    pub(crate) written: u64,
}

impl Metrics {
    /// Whether a process wrote them that became Python.
    pub(crate) fn is_start(&self) -> bool {
        is_start(&self.start)
    }
}

/// Parses a file of `CPACK_METRICS`.
pub(crate) fn read(text: &str) -> Result<Vec<Metrics>, BenchError> {
    let parsed = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
    parsed
        .collect::<Result<_, _>>()
        .map_err(|e| BenchError::Unexpected { what: "a line of CPACK_METRICS", reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_a_line_for_each_start() {
        let line = r#"{"format":1,"start":"cold","total_ms":12.5,"phases_ms":{"find":1},"work_ms":{"decode":3.5},
            "layers":{"built":2,"waited":0,"reused":1,"checked":0},"bytes":{"fetched":7,"written":9},"files":3}"#;
        let found = read(&format!("{}\n\n", line.replace('\n', ""))).expect("reads");
        assert_eq!((found[0].total_ms, found[0].work_ms["decode"], found[0].bytes.written), (12.5, 3.5, 9));
        assert!(read("{").is_err());
    }
}
