//! What `cpack-boot` tells of one start: a line of `CPACK_METRICS`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BenchError;

/// The phases of a start, in their order.
pub const PHASES: [&str; 9] = ["find", "look", "plan", "extract", "wait", "check", "link", "commit", "clean"];

/// One start.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Metrics {
    /// `warm` or `cold`.
    pub start: String,
    /// Milliseconds until Python was executed.
    pub total_ms: f64,
    /// Milliseconds by phase: they follow each other.
    pub phases_ms: BTreeMap<String, f64>,
    /// Milliseconds of all threads together, by what they did.
    #[serde(default)]
    pub work_ms: BTreeMap<String, f64>,
    /// What was moved.
    pub bytes: Bytes,
    /// What became of the layers.
    pub layers: Layers,
}

/// What a start moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Bytes {
    /// Of archives.
    pub fetched: u64,
    /// Of files.
    pub written: u64,
}

/// What became of the layers of a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Layers {
    /// Built by it.
    pub built: u64,
    /// Built by another meanwhile.
    pub waited: u64,
    /// There already.
    pub reused: u64,
}

/// Every start in a file of `CPACK_METRICS`.
pub fn read(text: &str) -> Result<Vec<Metrics>, BenchError> {
    let parsed = text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str);
    parsed
        .collect::<Result<_, _>>()
        .map_err(|e| BenchError::Unexpected { what: "a line of CPACK_METRICS", reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_start() {
        let line = r#"{"format":1,"start":"cold","total_ms":12.5,"phases_ms":{"find":1},"work_ms":{"decode":3.5},
            "layers":{"built":2,"waited":0,"reused":1,"checked":0},"bytes":{"fetched":7,"written":9},"files":3}"#;
        let found = read(&format!("{}\n\n", line.replace('\n', ""))).expect("reads");
        assert_eq!((found[0].total_ms, found[0].work_ms["decode"], found[0].bytes.written), (12.5, 3.5, 9));
        assert!(read("{").is_err());
    }
}
