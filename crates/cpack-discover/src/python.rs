//! Asks an interpreter for its facts, and keeps the answer.
//!
//! `<cache>/interpreters/<digest>.json` holds the answer of one interpreter. The digest is that of the interpreter's resolved
//! path and stat data, the stat data of the dynamic loader (which changes with glibc, and on another machine with the same
//! home directory) and `probe.py`. [`remember`] writes to a temporary name and renames. If a record cannot be read or
//! written, the interpreter is run again.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::error::DiscoverError;
use super::model::{PythonInfo, PythonKind};
use super::prefix::{Layout, last_line};

const PROBE: &str = include_str!("probe.py");

/// Dynamic loaders. Their stat data changes with the C library.
const LOADERS: [&str; 4] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
];

/// The output of `probe.py`. It does not depend on the virtual environment whose interpreter was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    implementation: String,
    version: String,
    tag: String,
    soabi: String,
    platform: String,
    glibc: Option<String>,
    cache_tag: String,
    magic: [u8; 4],
    lib_name: String,
    base_executable: PathBuf,
    base_prefix: PathBuf,
    /// The site-packages directories of the base interpreter, in the order of `sys.path`.
    pub(super) sites: Vec<PathBuf>,
    standalone: bool,
    stdlib: Vec<String>,
}

/// Reads the record of the interpreter of `layout`, or runs the interpreter.
pub(super) fn ask(layout: &Layout, cache_dir: &Path) -> Result<Answer, DiscoverError> {
    let path = &layout.executable;
    let failed = |reason: String| DiscoverError::Interpreter { path: path.clone(), reason };
    let record = record_path(path, cache_dir).map_err(|e| failed(e.to_string()))?;
    let known = fs::read(&record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let answer = match known {
        Some(answer) => answer,
        None => {
            let answer = run(path)?;
            // If this fails, the interpreter is run again next time.
            let _ = remember(&record, &answer);
            answer
        }
    };
    check(layout, &answer)?;
    Ok(answer)
}

fn record_path(executable: &Path, cache_dir: &Path) -> io::Result<PathBuf> {
    let resolved = fs::canonicalize(executable)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(PROBE.as_bytes());
    for path in std::iter::once(resolved.as_path()).chain(LOADERS.map(Path::new)) {
        hasher.update(path.as_os_str().as_bytes());
        if let Ok(m) = fs::metadata(path) {
            hasher.update(format!("\0{} {} {} {}", m.len(), m.mtime(), m.mtime_nsec(), m.ino()).as_bytes());
        }
    }
    Ok(cache_dir.join("interpreters").join(format!("{}.json", hasher.finalize().to_hex())))
}

fn run(executable: &Path) -> Result<Answer, DiscoverError> {
    let failed = |reason: String| DiscoverError::Interpreter { path: executable.to_owned(), reason };
    let output = Command::new(executable)
        .args(["-I", "-S", "-B", "-c", PROBE])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_line(&output.stderr).unwrap_or_else(|| output.status.to_string())));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("it does not answer as Python does ({e})")))
}

fn remember(record: &Path, answer: &Answer) -> io::Result<()> {
    let directory = record.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    serde_json::to_writer(&mut file, answer)?;
    file.flush()?;
    file.persist(record).map(|_| ()).map_err(|e| e.error)
}

fn check(layout: &Layout, answer: &Answer) -> Result<(), DiscoverError> {
    let mut parts = answer.tag.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if answer.implementation != "cpython" || version < (3, 9) || version.0 > 3 {
        let found = format!("{} {}", answer.implementation, answer.version);
        return Err(DiscoverError::Unsupported { path: layout.executable.clone(), found });
    }
    match &layout.config.version {
        Some(made_for) if *made_for != answer.tag => Err(DiscoverError::Interpreter {
            path: layout.executable.clone(),
            reason: format!(
                "it is Python {} now, the environment was made for {made_for}; create the environment again",
                answer.tag
            ),
        }),
        _ => Ok(()),
    }
}

impl Answer {
    pub(super) fn into_info(self, layout: &Layout) -> PythonInfo {
        let standalone = self.standalone || is_managed_by_uv(&self.base_prefix);
        let kind = if standalone && layout.kind == PythonKind::System { PythonKind::Standalone } else { layout.kind };
        PythonInfo {
            base_executable: base_executable(&self, layout),
            version: self.version,
            tag: self.tag,
            soabi: self.soabi,
            platform: self.platform,
            glibc: self.glibc,
            cache_tag: self.cache_tag,
            magic: self.magic,
            lib_name: self.lib_name,
            executable: layout.executable.clone(),
            base_prefix: self.base_prefix,
            kind,
            ships_relocatable_interpreter: standalone,
            stdlib: self.stdlib,
        }
    }
}

/// The base interpreter. In a virtual environment made of copies the interpreter reports itself, and its original is in
/// `home` of `pyvenv.cfg`.
fn base_executable(answer: &Answer, layout: &Layout) -> PathBuf {
    let home = layout.config.home.as_ref().filter(|_| answer.base_executable.starts_with(&layout.prefix));
    home.map(|home| home.join(format!("python{}", answer.tag)))
        .and_then(|path| fs::canonicalize(path).ok())
        .unwrap_or_else(|| answer.base_executable.clone())
}

/// Older builds of python-build-standalone do not report that they are such; uv keeps them in folders with this name.
fn is_managed_by_uv(base_prefix: &Path) -> bool {
    let text = base_prefix.to_string_lossy();
    text.contains("/uv/python/cpython-")
}
