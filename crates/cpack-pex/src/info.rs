//! `PEX-INFO`: the JSON in a PEX file that says what it holds and how it starts.
//!
//! The format is upstream's (`pex/pex_info.py`, pex 2.1.50 to 2.105). Reading ignores unknown keys, and writing leaves them
//! out; an absent key has the value that upstream's runtime takes for it. [`PexInfo::to_bytes`] writes upstream's own form
//! (keys in alphabetical order, no spaces, ASCII only), since `pex_hash` is a hash of it.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

/// Name of the entry.
pub const PEX_INFO: &str = "PEX-INFO";

/// Directory of the runtime in a PEX.
pub const BOOTSTRAP: &str = ".bootstrap";

/// Directory of the distributions in a PEX.
pub const DEPS: &str = ".deps";

/// The largest `PEX-INFO` that is read, in bytes: one of 1,000 distributions has 150 KB.
pub(crate) const MAX_PEX_INFO: u64 = 16 << 20;

/// The modules outside the PEX that its code sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InheritPath {
    /// Only the standard library.
    #[default]
    False,
    /// The interpreter's own site-packages and `PYTHONPATH`, before the PEX.
    Prefer,
    /// The same, after the PEX.
    Fallback,
}

/// Where a PEX that runs as a venv puts the venv's scripts on `PATH`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BinPath {
    /// Nowhere.
    #[default]
    False,
    /// At its start.
    Prepend,
    /// At its end.
    Append,
}

/// Which of the interpreters that meet the constraints upstream's runtime takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SelectionStrategy {
    /// The least version.
    #[default]
    Oldest,
    /// The greatest version.
    Newest,
}

/// What a PEX holds and how it starts. The fields are in the alphabetical order in which they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PexInfo {
    /// Environment variables for the paths of resources.
    pub bind_resource_paths: BTreeMap<String, String>,
    /// SHA-1 of the runtime's own files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_hash: Option<String>,
    /// About the tool that wrote it: `pex_version`.
    pub build_properties: BTreeMap<String, serde_json::Value>,
    /// SHA-1 of the user's code (the files that are neither runtime nor distribution).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code_hash: Option<String>,
    /// Whether distributions are wheels as they were published, else installed-wheel chroots.
    pub deps_are_wheel_files: bool,
    /// SHA-256 of each distribution by its name below [`DEPS`]: the file name of its wheel.
    pub distributions: BTreeMap<String, String>,
    /// Whether the runtime warns of what looks wrong.
    #[serde(default = "yes")]
    pub emit_warnings: bool,
    /// `module` or `module:function`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
    /// Requirements that nothing needs to meet.
    pub excluded: Vec<String>,
    /// Whether the runtime ignores requirements that nothing meets.
    pub ignore_errors: bool,
    /// Whether upstream's tools (`PEX_TOOLS=1`) are in the runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub includes_tools: Option<bool>,
    /// The modules outside the PEX that its code sees.
    pub inherit_path: InheritPath,
    /// Arguments before those of the command line.
    pub inject_args: Vec<String>,
    /// Environment variables for a process that lacks them.
    pub inject_env: BTreeMap<String, String>,
    /// Arguments of the interpreter.
    pub inject_python_args: Vec<String>,
    /// `CPython>=3.9,<3.14`; one of them must be met.
    pub interpreter_constraints: Vec<String>,
    /// Which of the interpreters that meet them the runtime takes.
    pub interpreter_selection_strategy: SelectionStrategy,
    /// How many distributions upstream's runtime installs at once. -1 means as many as pays.
    #[serde(default = "one")]
    pub max_install_jobs: i64,
    /// Requirements that replace those of distributions.
    pub overridden: Vec<String>,
    /// SHA-1 of the document as it is without this field: the PEX's identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pex_hash: Option<String>,
    /// [`PexInfo::pex_paths`] as older releases of pex wrote it: joined by colons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pex_path: Option<String>,
    /// Other PEX files that are merged in.
    pub pex_paths: Vec<String>,
    /// The directory into which upstream's runtime extracts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pex_root: Option<String>,
    /// The requirements of the user. The active distributions follow from them.
    pub requirements: Vec<String>,
    /// A script of a distribution, instead of an entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Whether the runtime removes `PEX_*` variables before user code starts.
    #[serde(default = "yes")]
    pub strip_pex_env: bool,
    /// Whether it runs as a venv.
    pub venv: bool,
    /// Whether that puts scripts on `PATH`.
    pub venv_bin_path: BinPath,
    /// Whether its interpreter is a copy.
    pub venv_copies: bool,
    /// Whether its scripts ignore the user's environment.
    #[serde(default = "yes")]
    pub venv_hermetic_scripts: bool,
    /// Whether its modules are copies.
    pub venv_site_packages_copies: bool,
    /// Whether it sees the base interpreter's modules.
    pub venv_system_site_packages: bool,
}

const fn yes() -> bool {
    true
}

const fn one() -> i64 {
    1
}

/// A `PEX-INFO` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("PEX-INFO is not as pex 2.1.50 and later write it")]
pub struct PexInfoError(#[from] serde_json::Error);

impl PexInfo {
    /// An empty PEX, with the settings that upstream's `pex` has by default ([`Default`] has all of them off).
    pub fn new() -> Self {
        Self {
            emit_warnings: true,
            max_install_jobs: 1,
            strip_pex_env: true,
            venv_hermetic_scripts: true,
            ..Self::default()
        }
    }

    /// Reads the document.
    pub fn parse(bytes: &[u8]) -> Result<Self, PexInfoError> {
        // Through a map: an array is no PEX-INFO, and Python takes the last of a key that occurs twice.
        let document: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(bytes)?;
        Ok(Self::deserialize(serde_json::Value::Object(document))?)
    }

    /// The document as upstream's `PexInfo.dump` writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        for list in [
            &mut sorted.requirements,
            &mut sorted.excluded,
            &mut sorted.overridden,
            &mut sorted.interpreter_constraints,
        ] {
            list.sort();
            list.dedup();
        }
        let mut out = Vec::new();
        // Writing to memory does not fail, and every key is a string.
        let _ = sorted.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Ascii));
        out
    }

    /// Other PEX files that are merged in, whichever release of pex wrote it.
    pub fn merged_paths(&self) -> Vec<&str> {
        if self.pex_paths.is_empty() {
            self.pex_path.iter().flat_map(|paths| paths.split(':')).filter(|path| !path.is_empty()).collect()
        } else {
            self.pex_paths.iter().map(String::as_str).collect()
        }
    }
}

/// JSON as Python's `json.dumps` writes it with `separators=(",", ":")`: everything beyond ASCII is escaped.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for c in fragment.chars() {
            if matches!(c, ' '..='~') {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `pex cowsay==6.1 -c cowsay` (pex 2.105.2) writes it.
    const UPSTREAM: &str = r#"{"bind_resource_paths":{},"bootstrap_hash":"a88f6cd9c4de6209a3c542b22909786089eb207b","build_properties":{"pex_version":"2.105.2"},"code_hash":"da39a3ee5e6b4b0d3255bfef95601890afd80709","deps_are_wheel_files":false,"distributions":{"cowsay-6.1-py3-none-any.whl":"8e5c95eb3394ede6f0fe1849e103a21a930bcab4dde14fb38e4c0b55dcc720c8"},"emit_warnings":true,"entry_point":"cowsay.__main__:cli","excluded":[],"ignore_errors":false,"includes_tools":false,"inherit_path":"false","inject_args":[],"inject_env":{},"inject_python_args":[],"interpreter_constraints":[],"interpreter_selection_strategy":"oldest","max_install_jobs":1,"overridden":[],"pex_hash":"1417f214ba54e2efe4e65291e18c143131fc5d71","pex_path":"","pex_paths":[],"requirements":["cowsay==6.1"],"strip_pex_env":true,"venv":false,"venv_bin_path":"false","venv_copies":false,"venv_hermetic_scripts":true,"venv_site_packages_copies":false,"venv_system_site_packages":false}"#;

    #[test]
    fn upstreams_own_document_is_written_as_it_was() {
        let info = PexInfo::parse(UPSTREAM.as_bytes()).expect("parses");
        assert_eq!(info.entry_point.as_deref(), Some("cowsay.__main__:cli"));
        assert_eq!(String::from_utf8(info.to_bytes()).expect("ascii"), UPSTREAM);
    }

    #[test]
    fn absent_keys_have_upstreams_defaults() {
        let info = PexInfo::parse(br#"{"pex_path":"a.pex:b.pex","from_the_future":[1]}"#).expect("parses");
        assert!(info.strip_pex_env && info.emit_warnings && info.venv_hermetic_scripts && !info.venv);
        assert_eq!(info.max_install_jobs, 1);
        assert_eq!(PexInfo { pex_path: None, ..info.clone() }, PexInfo::new());
        assert_eq!(info.merged_paths(), ["a.pex", "b.pex"]);
    }

    #[test]
    fn pex_info_escapes_text_beyond_ascii_as_python_does() {
        let info = PexInfo { inject_args: vec!["é\u{1f600}\"\n\u{7f}".into()], ..PexInfo::default() };
        let text = String::from_utf8(info.to_bytes()).expect("ascii");
        assert!(text.contains(r#""inject_args":["\u00e9\ud83d\ude00\"\n\u007f"#), "{text}");
        assert!(text.is_ascii());
        assert_eq!(PexInfo::parse(text.as_bytes()).expect("parses").inject_args, info.inject_args);
    }

    #[test]
    fn other_documents_are_refused() {
        for bad in ["", "[]", "{\"distributions\":[]}", "{\"inherit_path\":\"maybe\"}", "{\"requirements\":[[1,2,3]]}"]
        {
            assert!(PexInfo::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
