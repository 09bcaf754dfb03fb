//! Upstream's runtime, taken from the user's installed `pex`.
//!
//! An empty PEX is made with it, once for each installed release, and kept:
//!
//! ```text
//! <cache>/pex-runtime/<digest of the pex program>/   an empty loose PEX
//! <cache>/pex-tool/                                  pex itself, where the user has none
//! ```
//!
//! Both are made under another name and renamed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpack_discover::Environment;
use cpack_format::content::Kind;
use cpack_format::script::is_for_python;
use cpack_format::{Digest, SafePath};
use cpack_layer::PackError;
use cpack_layer::archive::{Body, Entry};
use cpack_pex::info::{BOOTSTRAP, PEX_INFO, PexInfo};

use super::error::PexError;
use crate::cache::{ClientCache, Fingerprint};

#[derive(Debug)]
pub(super) struct Runtime {
    root: PathBuf,
    /// Its `__main__.py`, the `#!` line included.
    pub(super) main: String,
    pub(super) info: PexInfo,
}

#[derive(Debug)]
struct Tool {
    program: PathBuf,
    arguments: Vec<String>,
    /// `PYTHONPATH`, where pex is not installed for its interpreter.
    path: Option<PathBuf>,
    key: Digest,
}

/// Finds the runtime: of the environment's own pex, else of the pex on PATH, else of one that it installs into the cache.
pub(super) fn find(environment: &Environment, cache: &ClientCache) -> Result<Runtime, PexError> {
    let tool = match installed(&environment.prefix.join("bin/pex")).or_else(on_path) {
        Some(tool) => tool,
        None => fetched(environment, cache)?,
    };
    let root = cache.root().join("pex-runtime").join(tool.key.to_hex());
    if !root.join(PEX_INFO).is_file() {
        make(&tool, &root)?;
    }
    let read = |name: &str| {
        let path = root.join(name);
        fs::read(&path).map_err(|source| PexError::Io { action: "read", path, source })
    };
    let unusable = |reason: String| PexError::Runtime { pex: tool.program.display().to_string(), reason };
    let info = PexInfo::parse(&read(PEX_INFO)?).map_err(|e| unusable(e.to_string()))?;
    let main = String::from_utf8(read("__main__.py")?).map_err(|e| unusable(e.to_string()))?;
    Ok(Runtime { root, main, info })
}

impl Runtime {
    /// The files of `.bootstrap`, with paths below it.
    pub(super) fn bootstrap(&self) -> Result<Vec<Entry>, PexError> {
        let mut entries = entries_below(&self.root.join(BOOTSTRAP))?;
        entries.retain(|entry| entry.path.components().all(|name| name != b"__pycache__"));
        entries.iter_mut().for_each(|entry| entry.kind = Kind::File);
        Ok(entries)
    }
}

/// The files of a directory as entries, with paths below it.
pub(super) fn entries_below(root: &Path) -> Result<Vec<Entry>, PexError> {
    let mut entries = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |source| PexError::Io { action: "read", path: directory.clone(), source };
        for item in fs::read_dir(&directory).map_err(failed)? {
            let path = item.map_err(failed)?.path();
            let metadata = path.symlink_metadata().map_err(failed)?;
            if metadata.is_dir() {
                directories.push(path);
            } else if metadata.is_file() {
                let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_encoded_bytes();
                let name = SafePath::new(name).map_err(PackError::Path)?;
                let kind = if metadata.mode() & 0o100 != 0 { Kind::Executable } else { Kind::File };
                entries.push(Entry { path: name, kind, body: Body::File { size: metadata.len(), path } });
            }
        }
    }
    Ok(entries)
}

/// The program at `path`, identified by its own stat and that of the release that it belongs to.
fn installed(path: &Path) -> Option<Tool> {
    let program = path.canonicalize().ok()?;
    let stat = fs::metadata(&program).ok().filter(|stat| stat.is_file() && stat.mode() & 0o111 != 0)?;
    let mut key = Fingerprint::new(0);
    key.text(program.as_os_str().as_encoded_bytes()).numbers(&[stat.size(), stat.mtime().unsigned_abs()]);
    let lib = program.parent()?.parent()?.join("lib");
    let sites = fs::read_dir(lib).into_iter().flatten().flatten().map(|entry| entry.path().join("site-packages"));
    let mut releases: Vec<_> = sites
        .flat_map(|site| fs::read_dir(site).into_iter().flatten().flatten())
        .map(|entry| entry.file_name())
        .filter(|name| name.as_encoded_bytes().starts_with(b"pex-"))
        .collect();
    releases.sort();
    for name in &releases {
        key.text(name.as_encoded_bytes());
    }
    let key = key.finish();
    Some(Tool { program, arguments: Vec::new(), path: None, key })
}

fn on_path() -> Option<Tool> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|directory| installed(&directory.join("pex")).filter(is_no_broken_shim))
}

/// Whether a program is none of a version manager's scripts that are there and fail, because the version of Python that has
/// the program is not the one that is chosen. Those are for a shell.
fn is_no_broken_shim(tool: &Tool) -> bool {
    let is_for_shell = fs::read(&tool.program).is_ok_and(|text| text.starts_with(b"#!") && !is_for_python(&text));
    let works = || Command::new(&tool.program).arg("--version").output().is_ok_and(|output| output.status.success());
    !is_for_shell || works()
}

/// Installs pex into the cache with uv, else with the environment's pip, else with that of its base interpreter.
fn fetched(environment: &Environment, cache: &ClientCache) -> Result<Tool, PexError> {
    let python = &environment.python.executable;
    let root = cache.root().join("pex-tool");
    let target = root.join(&environment.python.tag);
    if !target.join("pex").is_dir() {
        let staging = root.join(format!("{}.{}.tmp", environment.python.tag, std::process::id()));
        let uv = Command::new("uv")
            .args(["-q", "pip", "install", "--python"])
            .arg(python)
            .arg("--target")
            .arg(&staging)
            .arg("pex")
            .output();
        let done = match uv {
            Ok(output) if output.status.success() => Ok(output),
            _ => {
                let by_pip = |python: &Path| {
                    Command::new(python)
                        .args(["-m", "pip", "install", "-q", "--target"])
                        .arg(&staging)
                        .arg("pex")
                        .output()
                };
                // An environment made of requirements has no pip.
                match by_pip(python) {
                    Ok(output) if output.status.success() => Ok(output),
                    _ => by_pip(&environment.python.base_executable),
                }
            }
        };
        let reason = match done {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(last_line(&output.stderr)),
            Err(e) => Some(e.to_string()),
        };
        if let Some(reason) = reason {
            let _ = fs::remove_dir_all(&staging);
            return Err(PexError::Runtime { pex: "a release installed by uv or pip".into(), reason });
        }
        place(&staging, &target)?;
    }
    let arguments = vec!["-m".into(), "pex".into()];
    let key = Fingerprint::new(0).text(target.as_os_str().as_encoded_bytes()).finish();
    Ok(Tool { program: python.clone(), arguments, path: Some(target), key })
}

fn make(tool: &Tool, root: &Path) -> Result<(), PexError> {
    let unusable = |reason: String| PexError::Runtime { pex: tool.program.display().to_string(), reason };
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(|source| PexError::Io { action: "create", path: parent.into(), source })?;
    let staging = root.with_extension(format!("{}.tmp", std::process::id()));
    let mut command = Command::new(&tool.program);
    command.args(&tool.arguments).args(["--include-tools", "--no-compile", "--layout", "loose", "-o"]).arg(&staging);
    // The runtime must not depend on this process's settings of pex.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PEX_")) {
        if name != "PEX_ROOT" {
            command.env_remove(name);
        }
    }
    if let Some(path) = &tool.path {
        command.env("PYTHONPATH", path);
    }
    let output = command.output().map_err(|e| unusable(e.to_string()))?;
    if !output.status.success() {
        let _ = fs::remove_dir_all(&staging);
        return Err(unusable(last_line(&output.stderr)));
    }
    place(&staging, root)
}

/// Renames a directory to its place. If another process was faster, its directory is used and `staging` removed.
fn place(staging: &Path, target: &Path) -> Result<(), PexError> {
    match fs::rename(staging, target) {
        Err(_) if target.is_dir() => {
            let _ = fs::remove_dir_all(staging);
            Ok(())
        }
        result => result.map_err(|source| PexError::Io { action: "write", path: target.into(), source }),
    }
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.trim_end().lines().next_back().unwrap_or("it failed without a word");
    line.chars().take(300).collect()
}
