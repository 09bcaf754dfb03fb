//! How a PEX is started: its own settings, and the variables of upstream's runtime, which override them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_pex::Pex;
use cpack_pex::info::{InheritPath, PexInfo};
use cpack_pex::places::Order;

use super::reason::Reason;
use super::templates::can_fill;
use crate::error::BootError;

/// The variables of upstream's runtime that are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables {
    /// By name. Values that are not UTF-8 are changed as `to_string_lossy` does.
    all: BTreeMap<String, String>,
}

/// Variables that are honoured, or without effect here.
const HONOURED: [&str; 21] = [
    "PEX",
    "PEX_EMIT_WARNINGS",
    "PEX_EXTRA_SYS_PATH",
    "PEX_IGNORE_ERRORS",
    "PEX_IGNORE_RCFILES",
    "PEX_INHERIT_PATH",
    "PEX_INTERPRETER",
    "PEX_INTERPRETER_HISTORY",
    "PEX_INTERPRETER_HISTORY_FILE",
    "PEX_MAX_INSTALL_JOBS",
    "PEX_MODULE",
    "PEX_PATH",
    "PEX_PYTHON",
    "PEX_PYTHON_PATH",
    "PEX_ROOT",
    "PEX_SCRIPT",
    "PEX_TOOLS",
    "PEX_UNZIP",
    "PEX_VENV",
    "PEX_VENV_BIN_PATH",
    "PEX_VERBOSE",
];

impl Variables {
    /// Reads those of this process, and those of upstream's files: `/etc/pexrc`, `~/.pexrc` and `.pexrc` beside the PEX.
    pub(super) fn from_process(pex: &Path) -> Self {
        let ours = std::env::vars_os().filter(|(name, value)| {
            (name == "PEX" || name.as_encoded_bytes().starts_with(b"PEX_")) && !value.is_empty()
        });
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let process: BTreeMap<String, String> = ours.map(|(name, value)| (text(name), text(value))).collect();
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".pexrc"));
        let beside = pex.parent().map(|directory| directory.join(".pexrc"));
        let mut all = BTreeMap::new();
        if !is_true(process.get("PEX_IGNORE_RCFILES").map(String::as_str)) {
            for file in [Some(PathBuf::from("/etc/pexrc")), home, beside].into_iter().flatten() {
                all.extend(fs::read_to_string(file).map(|text| parse_file(&text)).unwrap_or_default());
            }
        }
        all.extend(process);
        Self { all }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all.get(name).map(String::as_str)
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        is_true(self.get(name))
    }

    pub(super) fn paths(&self, name: &str) -> Vec<PathBuf> {
        let all = self.get(name).unwrap_or_default().split(':');
        all.filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn is_true(value: Option<&str>) -> bool {
    value.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true"))
}

/// The `NAME=value` lines of a `.pexrc`.
fn parse_file(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    let named = pairs.filter(|(name, _)| name.starts_with("PEX_"));
    named.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Which modules Python finds beside those of the PEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inherit {
    /// The standard library.
    Nothing,
    /// The interpreter's modules and `PYTHONPATH`, before the PEX.
    Prefer,
    /// The same, after the PEX.
    Fallback,
    /// The interpreter's modules, after the PEX: a virtual environment with system site-packages.
    System,
}

#[derive(Debug)]
pub(super) struct Setup {
    /// The PEX, and those that are merged into it.
    pub(super) pexes: Vec<Pex>,
    pub(super) venv: bool,
    pub(super) inherit: Inherit,
    /// Whether `PEX_EXTRA_SYS_PATH` is set.
    pub(super) extra: bool,
    /// A digest of all of this, and of the files' identities.
    pub(super) identity: Digest,
}

impl Setup {
    /// Reads how `pex` is started, or says why it is handed over.
    pub(super) fn new(pex: Pex, variables: &Variables) -> Result<Result<Self, (Pex, Reason)>, BootError> {
        if let Some(reason) = handed_over(&pex, variables) {
            return Ok(Err((pex, reason)));
        }
        let venv = variables.get("PEX_VENV").map_or(pex.info.venv, |value| is_true(Some(value)));
        let inherit = inherit(&pex.info, venv, variables);
        let extra = variables.get("PEX_EXTRA_SYS_PATH").is_some();
        let own = pex.info.merged_paths().into_iter().map(PathBuf::from);
        let merged: Vec<PathBuf> = own.chain(variables.paths("PEX_PATH")).collect();
        let mut pexes = vec![pex];
        for path in merged {
            pexes.push(cpack_pex::open(&path)?);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("cluster-pack pex setup 2\n{venv} {inherit:?} {extra}\n").as_bytes());
        for pex in &pexes {
            hasher.update(pex.identity.as_bytes());
        }
        let identity = hasher.finalize().into();
        Ok(Ok(Self { pexes, venv, inherit, extra, identity }))
    }

    pub(super) fn pex(&self) -> &Pex {
        // There is always one: merged ones come after it.
        #[expect(clippy::indexing_slicing, reason = "made with one")]
        &self.pexes[0]
    }

    pub(super) fn order(&self) -> Order {
        match self.inherit {
            _ if self.venv => Order::Venv,
            Inherit::Fallback => Order::Reversed,
            _ => Order::Usual,
        }
    }
}

fn inherit(info: &PexInfo, venv: bool, variables: &Variables) -> Inherit {
    if venv {
        return if info.venv_system_site_packages { Inherit::System } else { Inherit::Nothing };
    }
    match (variables.get("PEX_INHERIT_PATH"), info.inherit_path) {
        (Some("prefer" | "1"), _) => Inherit::Prefer,
        (Some("fallback"), _) => Inherit::Fallback,
        (_, InheritPath::Prefer) => Inherit::Prefer,
        (_, InheritPath::Fallback) => Inherit::Fallback,
        (_, InheritPath::False) => Inherit::Nothing,
    }
}

fn handed_over(pex: &Pex, variables: &Variables) -> Option<Reason> {
    let info = &pex.info;
    let runtime_only = |name: &&str| !HONOURED.contains(name) || (*name == "PEX_TOOLS" && variables.is_true(name));
    if let Some((name, _)) = variables.iter().find(|(name, _)| runtime_only(name)) {
        return Some(Reason::Variable(name.to_owned()));
    }
    let unsupported = [
        (info.script.is_some() && info.entry_point.is_some(), "a script and an entry point"),
        (info.distributions.keys().any(|name| !name.ends_with(".whl")), "distributions that are no wheels"),
        (pex.has_preamble, "a preamble (--preamble-file)"),
        (!info.inject_args.iter().all(|text| can_fill(text)), "arguments with unusual fields"),
    ];
    unsupported.into_iter().find(|(has, _)| *has).map(|(_, what)| Reason::Setting(what))
}
