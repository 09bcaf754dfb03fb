//! Finds the active prefix and its kind of installation.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::DiscoverError;
use super::model::PythonKind;

/// What says which environment is active; the caller reads it once.
#[derive(Debug, Clone, Default)]
pub struct ActiveVariables {
    /// `VIRTUAL_ENV`: set by a virtual environment's `activate`.
    pub virtual_env: Option<OsString>,
    /// `CONDA_PREFIX`: set by `conda activate`.
    pub conda_prefix: Option<OsString>,
    /// `CONDA_DEFAULT_ENV`: the name of that environment; `base` is active in each shell of many users.
    pub conda_default_env: Option<OsString>,
    /// `UV_PROJECT_ENVIRONMENT`: where uv keeps a project's environment, if not in `.venv`.
    pub project_environment: Option<OsString>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// The working directory, which is in a project.
    pub directory: PathBuf,
}

impl ActiveVariables {
    /// Reads the variables of this process.
    pub fn from_env() -> Self {
        let read = |name| env::var_os(name).filter(|value| !value.is_empty());
        Self {
            virtual_env: read("VIRTUAL_ENV"),
            conda_prefix: read("CONDA_PREFIX"),
            conda_default_env: read("CONDA_DEFAULT_ENV"),
            project_environment: read("UV_PROJECT_ENVIRONMENT"),
            path: read("PATH"),
            directory: env::current_dir().unwrap_or_default(),
        }
    }
}

/// The prefix that the user means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivePrefix {
    /// The prefix. It need not be an environment: [`discover()`](super::discover()) tells.
    pub prefix: PathBuf,
    /// Whether nothing named it and it is not active: it is the environment of the project in the working directory.
    pub is_of_project: bool,
}

/// The prefix that the user means, in uv's order: `venv` if named, else `VIRTUAL_ENV`, else `CONDA_PREFIX` unless that is
/// conda's `base`, else `.venv` in the working directory or the nearest directory above it, else `base`, else the
/// environment of the first `python3` on `PATH`.
///
/// A system's Python is never taken, since packing it is hardly ever meant: it must be named.
pub fn active_prefix(venv: Option<&Path>, variables: &ActiveVariables) -> Result<ActivePrefix, DiscoverError> {
    let active = |prefix: PathBuf| Ok(ActivePrefix { prefix, is_of_project: false });
    if let Some(venv) = venv {
        return active(venv.to_owned());
    }
    if let Some(prefix) = variables.virtual_env.as_ref().map(PathBuf::from) {
        if !prefix.join("bin/python3").exists() {
            let reason =
                "VIRTUAL_ENV names it, and it has no bin/python3; activate another one, or name it with --venv";
            return Err(not_an_environment(&prefix, reason));
        }
        return active(prefix);
    }
    let is_base = variables.conda_default_env.as_ref().is_some_and(|name| name == "base" || name == "root");
    if let Some(prefix) = variables.conda_prefix.as_ref().filter(|_| !is_base) {
        return active(prefix.into());
    }
    if let Some(prefix) = of_project(&variables.directory, variables.project_environment.as_deref())? {
        return Ok(ActivePrefix { prefix, is_of_project: true });
    }
    if let Some(prefix) = &variables.conda_prefix {
        return active(prefix.into());
    }
    let directories = variables.path.as_deref().map(env::split_paths).into_iter().flatten();
    let python = directories.map(|d| d.join("python3")).find(|p| is_executable(p));
    let prefix = python.as_deref().map(prefix_of).transpose()?;
    match prefix {
        Some(prefix) if is_environment(&prefix) => active(prefix),
        system => Err(DiscoverError::NothingActive { directory: variables.directory.clone(), system }),
    }
}

/// The environment of the project that `directory` is in, as uv finds it: `.venv` there, or in the nearest directory above; or
/// pixi's default environment there.
fn of_project(directory: &Path, named: Option<&OsStr>) -> Result<Option<PathBuf>, DiscoverError> {
    for directory in directory.ancestors() {
        if directory.join("pyvenv.cfg").is_file() {
            return Ok(Some(directory.to_owned()));
        }
        // An absolute path takes the place of the directory.
        if let Some(prefix) = named.map(|named| directory.join(named)).filter(|prefix| prefix.is_dir()) {
            return Ok(Some(prefix));
        }
        let pixi = directory.join(".pixi/envs/default");
        if pixi.join("conda-meta").is_dir() && !directory.join(".venv").exists() {
            return Ok(Some(pixi));
        }
        let prefix = directory.join(".venv");
        if prefix.join("pyvenv.cfg").is_file() {
            return Ok(Some(prefix));
        }
        if prefix.is_dir() {
            return Err(not_an_environment(
                &prefix,
                "it has no pyvenv.cfg; create it again, or name another environment with --venv",
            ));
        }
    }
    Ok(None)
}

fn is_environment(prefix: &Path) -> bool {
    prefix.join("pyvenv.cfg").is_file() || prefix.join("conda-meta").is_dir()
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The prefix of an interpreter on `PATH`. Outside an environment the interpreter is run, because it may be a script of a
/// version manager. Without `site`, before Python 3.14, the prefix would be that of the base interpreter.
fn prefix_of(python: &Path) -> Result<PathBuf, DiscoverError> {
    if let Some(prefix) = python.parent().and_then(Path::parent)
        && is_environment(prefix)
    {
        return Ok(prefix.to_owned());
    }
    let failed = |reason: String| DiscoverError::Interpreter { path: python.to_owned(), reason };
    let output = Command::new(python)
        .args(["-I", "-B", "-c", "import sys; sys.stdout.write(sys.prefix)"])
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
    fn active_prefix_is_what_was_named_or_activated() {
        let prefix = |venv: Option<&str>, variables: &ActiveVariables| {
            let found = active_prefix(venv.map(Path::new), variables).expect("a prefix");
            assert!(!found.is_of_project);
            found.prefix
        };
        let directory = tempfile::tempdir().expect("a directory");
        let virtual_env = directory.path().join("v");
        let all = ActiveVariables {
            virtual_env: Some(virtual_env.clone().into()),
            conda_prefix: Some("/c".into()),
            ..ActiveVariables::default()
        };
        assert_eq!(prefix(Some("named"), &all), Path::new("named"));
        let gone = active_prefix(None, &all).expect_err("is not there").to_string();
        assert!(gone.contains("VIRTUAL_ENV names it") && gone.contains("--venv"), "{gone}");
        fs::create_dir_all(virtual_env.join("bin")).expect("makes");
        fs::write(virtual_env.join("bin/python3"), "").expect("writes");
        assert_eq!(prefix(None, &all), virtual_env);
        let conda = ActiveVariables { virtual_env: None, ..all };
        assert_eq!(prefix(None, &conda), Path::new("/c"));
        let nothing = active_prefix(None, &ActiveVariables::default());
        assert!(matches!(nothing, Err(DiscoverError::NothingActive { system: None, .. })));
    }

    #[test]
    fn active_prefix_is_the_nearest_dot_venv_unless_one_is_active() {
        let root = tempfile::tempdir().expect("a directory");
        let below = root.path().join("project/src/deep");
        fs::create_dir_all(&below).expect("makes");
        let make = |path: &str| {
            let prefix = root.path().join(path);
            fs::create_dir_all(&prefix).expect("makes");
            fs::write(prefix.join("pyvenv.cfg"), "").expect("writes");
            prefix
        };
        let at = |directory: &Path| ActiveVariables { directory: directory.to_owned(), ..ActiveVariables::default() };
        let outer = make(".venv");
        let found = active_prefix(None, &at(&below)).expect("finds");
        assert_eq!(found, ActivePrefix { prefix: outer, is_of_project: true });
        let own = make("project/.venv");
        assert_eq!(active_prefix(None, &at(&below)).expect("finds").prefix, own);
        assert_eq!(active_prefix(None, &at(&own.join("lib"))).expect("finds").prefix, own, "inside an environment");
        let uv = ActiveVariables { project_environment: Some("other".into()), ..at(&below) };
        assert_eq!(active_prefix(None, &uv).expect("finds").prefix, own);
        let other = make("project/other");
        assert_eq!(active_prefix(None, &uv).expect("finds").prefix, other);
        let base = ActiveVariables {
            conda_prefix: Some("/conda".into()),
            conda_default_env: Some("base".into()),
            ..at(&below)
        };
        assert_eq!(active_prefix(None, &base).expect("finds").prefix, own);
        assert_eq!(
            active_prefix(None, &ActiveVariables { directory: PathBuf::new(), ..base.clone() }).expect("finds").prefix,
            Path::new("/conda")
        );
        let named = ActiveVariables { conda_default_env: Some("mine".into()), ..base };
        assert_eq!(active_prefix(None, &named).expect("finds").prefix, Path::new("/conda"));
        fs::create_dir(root.path().join("project/src/.venv")).expect("makes");
        let broken = active_prefix(None, &at(&below)).expect_err("refused").to_string();
        assert!(broken.contains("project/src/.venv") && broken.contains("no pyvenv.cfg"), "{broken}");
    }

    #[test]
    fn active_prefix_takes_an_environment_on_path_and_never_a_systems_python() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = fs::canonicalize(root.path()).expect("exists");
        fs::create_dir(directory.join("bin")).expect("makes");
        let python = directory.join("bin/python3");
        let interpreters = super::super::fixture::interpreters();
        std::os::unix::fs::symlink(interpreters.first().expect("a Python"), &python).expect("links");
        let path = Some(directory.join("bin").into_os_string());
        let variables = ActiveVariables { path, ..ActiveVariables::default() };
        let message = active_prefix(None, &variables).expect_err("refused").to_string();
        for part in ["no .venv", "--venv PATH", "-r FILE", "packed only if it is named: --venv /"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert_eq!(message.lines().count(), 1);
        fs::write(directory.join("pyvenv.cfg"), "").expect("writes");
        assert_eq!(active_prefix(None, &variables).expect("finds").prefix, directory);
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
