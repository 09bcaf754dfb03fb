//! Finds the active prefix and its kind of installation.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::DiscoverError;
use super::model::PythonKind;

/// The variables that name the active environment.
#[derive(Debug, Clone, Default)]
pub struct ActiveVariables {
    /// `VIRTUAL_ENV`: set by a virtual environment's `activate`.
    pub virtual_env: Option<OsString>,
    /// `CONDA_PREFIX`: set by `conda activate`.
    pub conda_prefix: Option<OsString>,
    /// `PATH`.
    pub path: Option<OsString>,
}

impl ActiveVariables {
    /// Reads the variables of this process.
    pub fn from_env() -> Self {
        let read = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self { virtual_env: read("VIRTUAL_ENV"), conda_prefix: read("CONDA_PREFIX"), path: read("PATH") }
    }
}

/// The active prefix: `venv`, `VIRTUAL_ENV`, `CONDA_PREFIX`, or that of the first `python3` on `PATH`, in this order. It need
/// not be an environment: [`discover()`](super::discover()) checks that.
pub fn active_prefix(venv: Option<&Path>, variables: &ActiveVariables) -> Result<PathBuf, DiscoverError> {
    if let Some(venv) = venv {
        return Ok(venv.to_owned());
    }
    if let Some(prefix) = variables.virtual_env.as_ref().or(variables.conda_prefix.as_ref()) {
        return Ok(prefix.into());
    }
    let directories = variables.path.as_deref().map(env::split_paths).into_iter().flatten();
    let python = directories.map(|d| d.join("python3")).find(|p| is_executable(p));
    python.as_deref().map_or(Err(DiscoverError::NothingActive), prefix_of)
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The prefix of an interpreter on `PATH`. Without a `pyvenv.cfg` the interpreter is run, because it may be a script of a
/// version manager.
fn prefix_of(python: &Path) -> Result<PathBuf, DiscoverError> {
    if let Some(prefix) = python.parent().and_then(Path::parent)
        && prefix.join("pyvenv.cfg").is_file()
    {
        return Ok(prefix.to_owned());
    }
    let failed = |reason: String| DiscoverError::Interpreter { path: python.to_owned(), reason };
    let output = Command::new(python)
        .args(["-I", "-S", "-B", "-c", "import sys; sys.stdout.write(sys.prefix)"])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(last_line(&output.stderr).unwrap_or_else(|| output.status.to_string())));
    }
    use std::os::unix::ffi::OsStringExt as _;
    Ok(OsString::from_vec(output.stdout).into())
}

/// The last line that is not empty, for a message of one line.
pub(super) fn last_line(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().take(300).collect())
}

/// A prefix before its interpreter was run.
#[derive(Debug)]
pub(super) struct Layout {
    /// Absolute, links not followed.
    pub(super) prefix: PathBuf,
    /// `System` may be `Standalone`, which only running the interpreter shows.
    pub(super) kind: PythonKind,
    /// Absolute, links not followed. It exists.
    pub(super) executable: PathBuf,
    pub(super) config: VenvConfig,
    /// Whether what was named is what a booted job with overlays runs in: a directory of links to `prefix`.
    pub(super) is_job: bool,
}

/// The environment that a booted job with overlays runs in, if `prefix` is the directory of links that it started from.
fn tree_of_job(prefix: &Path) -> Option<PathBuf> {
    let is_job = prefix.join(".cpack/overlays").is_file() && prefix.join("lib").is_symlink();
    let lib = if is_job { fs::canonicalize(prefix.join("lib")).ok()? } else { return None };
    lib.parent().map(Path::to_owned)
}

impl Layout {
    pub(super) fn of(prefix: &Path) -> Result<Self, DiscoverError> {
        let prefix = std::path::absolute(prefix).map_err(|e| not_an_environment(prefix, &e.to_string()))?;
        match fs::metadata(&prefix) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(not_an_environment(&prefix, "it does not exist"));
            }
            Err(e) => return Err(not_an_environment(&prefix, &e.to_string())),
            Ok(m) if !m.is_dir() => {
                return Err(not_an_environment(&prefix, "it is a file; name the folder that has bin/python"));
            }
            Ok(_) => {}
        }
        let tree = tree_of_job(&prefix);
        let is_job = tree.is_some();
        let prefix = tree.unwrap_or(prefix);
        let config = match fs::read_to_string(prefix.join("pyvenv.cfg")) {
            Ok(text) => Some(VenvConfig::parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(DiscoverError::Read { path: prefix.join("pyvenv.cfg"), source }),
        };
        let kind = match &config {
            Some(_) => PythonKind::Venv,
            None if prefix.join("conda-meta").is_dir() => PythonKind::Conda,
            None => PythonKind::System,
        };
        let executable = executable(&prefix)?;
        Ok(Self { prefix, kind, executable, config: config.unwrap_or_default(), is_job })
    }
}

fn not_an_environment(path: &Path, reason: &str) -> DiscoverError {
    DiscoverError::NotAnEnvironment { path: path.to_owned(), reason: reason.to_owned() }
}

/// The interpreter in `prefix/bin`.
fn executable(prefix: &Path) -> Result<PathBuf, DiscoverError> {
    let bin = prefix.join("bin");
    let mut dangling = None;
    for path in ["python3", "python"].map(|name| bin.join(name)) {
        match fs::metadata(&path) {
            Ok(_) => return Ok(path),
            Err(_) if path.is_symlink() => dangling = dangling.or(Some(path)),
            Err(_) => {}
        }
    }
    let Some(path) = dangling else {
        let reason = match bin.parent().map(|p| p.join("Scripts").is_dir()) {
            Some(true) => "it was made on Windows",
            _ => "it has no bin/python3; name a virtual environment with --venv",
        };
        return Err(not_an_environment(prefix, reason));
    };
    let target = end_of_links(&path);
    let reason = format!(
        "it leads to {}, which does not exist; install that interpreter or create the environment again",
        target.display()
    );
    Err(DiscoverError::Interpreter { path, reason })
}

/// The end of a chain of links, which need not exist.
fn end_of_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("/")).join(target);
    }
    path
}

/// The contents of `pyvenv.cfg`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct VenvConfig {
    /// The folder of the base interpreter.
    pub(super) home: Option<PathBuf>,
    /// The `X.Y` of the environment's version.
    pub(super) version: Option<String>,
    /// Whether the environment sees the base interpreter's site-packages.
    pub(super) system_site_packages: bool,
}

impl VenvConfig {
    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "home" => config.home = Some(value.into()),
                "include-system-site-packages" => config.system_site_packages = value.eq_ignore_ascii_case("true"),
                "version" | "version_info" => {
                    let mut parts = value.split('.');
                    if let (Some(major), Some(minor)) = (parts.next(), parts.next()) {
                        config.version = Some(format!("{major}.{minor}"));
                    }
                }
                _ => {}
            }
        }
        config
    }
}

/// Whether a name in `bin` is the interpreter under one of its names: `python`, `python3`, `python3.11`, `python3.13t`.
pub(super) fn is_python_name(name: &OsStr) -> bool {
    // Python 3.14 adds this name to each virtual environment.
    if name == "𝜋thon" {
        return true;
    }
    let Some(rest) = name.to_str().and_then(|n| n.strip_prefix("python")) else { return false };
    let rest = rest.strip_suffix('t').unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pyvenv_cfg_is_read_as_python_reads_it() {
        for (text, home, version, system) in [
            ("home = /a b/bin\nversion = 3.11.7\n", "/a b/bin", "3.11", false),
            ("HOME=/x\r\nversion_info = 3.12.1.final.0\r\ninclude-system-site-packages = TRUE\r\n", "/x", "3.12", true),
            ("nonsense\nhome = /x=y\nversion_info = 3.9\n", "/x=y", "3.9", false),
        ] {
            let expected =
                VenvConfig { home: Some(home.into()), version: Some(version.into()), system_site_packages: system };
            assert_eq!(VenvConfig::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn is_python_name_knows_names_of_the_interpreter() {
        for (name, expected) in [
            ("python", true),
            ("python3.11", true),
            ("python3.13t", true),
            ("𝜋thon", true),
            ("python3-config", false),
            ("pythonw-x", false),
            ("ipython3", false),
        ] {
            assert_eq!(is_python_name(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn active_prefix_is_the_one_named_first() {
        let all = ActiveVariables { virtual_env: Some("/v".into()), conda_prefix: Some("/c".into()), path: None };
        assert_eq!(active_prefix(Some(Path::new("named")), &all).expect("named"), Path::new("named"));
        assert_eq!(active_prefix(None, &all).expect("virtual"), Path::new("/v"));
        let conda = ActiveVariables { virtual_env: None, ..all };
        assert_eq!(active_prefix(None, &conda).expect("conda"), Path::new("/c"));
        assert!(matches!(active_prefix(None, &ActiveVariables::default()), Err(DiscoverError::NothingActive)));
    }

    #[test]
    fn layout_refuses_other_directories_in_one_line() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let message = |path: &Path| Layout::of(path).map(|_| ()).expect_err("refused").to_string();
        assert!(message(&path.join("none")).contains("does not exist"));
        assert!(message(path).contains("no bin/python3"));
        fs::write(path.join("file"), "").expect("writes");
        assert!(message(&path.join("file")).contains("it is a file"));
        fs::create_dir(path.join("bin")).expect("makes");
        std::os::unix::fs::symlink("/gone/python3.11", path.join("bin/python")).expect("links");
        std::os::unix::fs::symlink("python", path.join("bin/python3")).expect("links");
        let broken = message(path);
        assert!(broken.contains("/gone/python3.11") && broken.contains("create the environment again"), "{broken}");
        assert_eq!(broken.lines().count(), 1);
    }
}
