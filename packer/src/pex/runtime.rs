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

use cpack_artifact::pex_info::{BOOTSTRAP, PEX_INFO, PexInfo};
use cpack_artifact::script::is_for_python;
use cpack_artifact::{Digest, SafePath};

use crate::cache::{ClientCache, Fingerprint};
use crate::discover::Environment;
use crate::layer::{Body, Entry};

use super::PexError;

/// What a PEX has from upstream.
#[derive(Debug)]
pub(super) struct Runtime {
    root: PathBuf,
    /// Its `__main__.py`, the `#!` line included.
    pub(super) main: String,
    /// Its settings.
    pub(super) info: PexInfo,
}

/// A way to run pex.
#[derive(Debug)]
struct Tool {
    program: PathBuf,
    arguments: Vec<String>,
    /// `PYTHONPATH`, where pex is not installed for its interpreter.
    path: Option<PathBuf>,
    key: Digest,
}

/// The runtime: of the environment's own pex, else of that on PATH, else of one that is installed into the cache.
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
        let mut entries = Vec::new();
        let root = self.root.join(BOOTSTRAP);
        collect(&root, &root, &mut entries)?;
        Ok(entries)
    }
}

fn collect(root: &Path, directory: &Path, entries: &mut Vec<Entry>) -> Result<(), PexError> {
    let failed = |source| PexError::Io { action: "read", path: directory.to_owned(), source };
    for item in fs::read_dir(directory).map_err(failed)? {
        let item = item.map_err(failed)?;
        let (path, metadata) = (item.path(), item.metadata().map_err(failed)?);
        if metadata.is_dir() {
            if item.file_name() != "__pycache__" {
                collect(root, &path, entries)?;
            }
            continue;
        }
        let relative = path.strip_prefix(root).ok().and_then(|p| SafePath::new(p.as_os_str().as_encoded_bytes()).ok());
        let Some(relative) = relative else { continue };
        let body = Body::File { size: metadata.len(), path };
        entries.push(Entry { path: relative, kind: cpack_artifact::content::Kind::File, body });
    }
    Ok(())
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

/// Installs pex into the cache with uv, else with the environment's pip.
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
                Command::new(python).args(["-m", "pip", "install", "-q", "--target"]).arg(&staging).arg("pex").output()
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

/// Makes an empty PEX.
fn make(tool: &Tool, root: &Path) -> Result<(), PexError> {
    let unusable = |reason: String| PexError::Runtime { pex: tool.program.display().to_string(), reason };
    let parent = root.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(|source| PexError::Io { action: "create", path: parent.into(), source })?;
    let staging = root.with_extension(format!("{}.tmp", std::process::id()));
    let mut command = Command::new(&tool.program);
    command.args(&tool.arguments).args(["--include-tools", "--no-compile", "--layout", "loose", "-o"]).arg(&staging);
    // A pex of its own settings is wanted, not of this process's.
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

/// Renames a directory to its place. Whoever loses a race takes what is there.
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
