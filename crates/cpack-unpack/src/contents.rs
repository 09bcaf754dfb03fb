//! What environment was unpacked, and which of its files hold its path.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_extract::Stats;
use cpack_format::job::minor;
use cpack_format::prefix::{Prefixes, replace};

use crate::conda_unpack::{self, SCRIPTS};
use crate::error::UnpackError;
use crate::mend::{mend_byte_code, mend_scripts, replace_file};
use crate::record::rewrite_records;

/// The interpreter of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Python {
    /// It is in the archive.
    Shipped,
    /// Each node has its own.
    Node {
        /// The directory that it was in, if the archive tells.
        home: Option<PathBuf>,
        /// Whether its own packages are seen.
        sees_system: bool,
    },
}

/// An environment that depends on no place, but for the files in [`Unpacked::prefixes`].
#[derive(Debug)]
pub struct Unpacked {
    /// Where it is.
    pub root: PathBuf,
    /// The version of its Python, `3.11.7`, or `3.11` if no more is known.
    pub version: String,
    /// `SOABI` of its native modules; empty without any.
    pub soabi: String,
    /// Its interpreter.
    pub python: Python,
    /// Whether it is a conda environment.
    pub is_conda: bool,
    /// The files that must hold the environment's path, and what they have in its place.
    pub prefixes: Vec<Prefixes>,
    /// What was extracted.
    pub stats: Stats,
}

impl Unpacked {
    /// Looks at what `archive` was extracted to, and mends what can be mended without knowing where it will be.
    pub(crate) fn read(archive: &Path, into: &Path, stats: Stats) -> Result<Self, UnpackError> {
        let root = root_below(into).ok_or_else(|| UnpackError::NoEnvironment { path: archive.into() })?;
        let library = library(&root).ok_or_else(|| UnpackError::NoEnvironment { path: archive.into() })?;
        let failed = |source| UnpackError::Write { path: root.clone(), source };
        let config = Config::parse(&fs::read_to_string(root.join("pyvenv.cfg")).unwrap_or_default());
        let is_conda = root.join("conda-meta").is_dir();
        let is_shipped =
            is_file(&root.join("bin").join(&library)) && root.join("lib").join(&library).join("os.py").is_file();
        let number = library.trim_start_matches("python").trim_end_matches('t').to_owned();
        let told = if is_conda { conda_version(&root) } else { config.version.clone() };
        let version = told.filter(|told| minor(told) == number).unwrap_or(number);
        let prefixes = if is_conda { conda_prefixes(archive, &root)? } else { Vec::new() };
        let mended = mend_scripts(&root.join("bin"), config.home.as_deref()).map_err(failed)?;
        rewrite_records(&root.join("lib").join(&library).join("site-packages"), &mended).map_err(failed)?;
        let soabi = mend_byte_code(&root.join("lib"), &version).map_err(failed)?;
        let python = if is_shipped {
            Python::Shipped
        } else {
            Python::Node { home: config.home, sees_system: config.sees_system }
        };
        Ok(Self { root, version, soabi, python, is_conda, prefixes, stats })
    }

    /// Writes the path `prefix`, at which the environment will be, into the files that must hold it.
    pub fn settle(&self, prefix: &Path) -> Result<(), UnpackError> {
        for prefixes in &self.prefixes {
            for (name, mode) in prefixes.files() {
                let path = self.root.join(name);
                let failed = |source| UnpackError::Write { path: path.clone(), source };
                let executable = fs::metadata(&path).map_err(failed)?.permissions().mode() & 0o111 != 0;
                let bytes = fs::read(&path).map_err(failed)?;
                let prefix = prefix.as_os_str().as_bytes();
                let settled = replace(mode, &bytes, prefixes.placeholder.as_bytes(), prefix)
                    .map_err(|source| UnpackError::TooLong { path: path.clone(), source })?;
                replace_file(&path, &settled, executable).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The name of its interpreter, `python3.11`.
    pub fn interpreter_name(&self) -> String {
        format!("python{}", minor(&self.version))
    }
}

/// The directory of the environment below `into`: that itself, or the one directory in it.
fn root_below(into: &Path) -> Option<PathBuf> {
    let is_environment =
        |root: &Path| root.join("pyvenv.cfg").is_file() || root.join("conda-meta").is_dir() || library(root).is_some();
    if is_environment(into) {
        return Some(into.to_owned());
    }
    let mut entries = fs::read_dir(into).ok()?.flatten();
    let (first, second) = (entries.next()?, entries.next());
    let is_alone = second.is_none() && first.file_type().is_ok_and(|kind| kind.is_dir());
    Some(first.path()).filter(|root| is_alone && is_environment(root))
}

/// The name of the directory in `lib` that has the modules: `python3.11`, or `python3.13t`.
fn library(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root.join("lib")).ok()?.flatten();
    let is_library = |name: &str| {
        let number = name.strip_prefix("python3.").map(|rest| rest.strip_suffix('t').unwrap_or(rest));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> = directories.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| is_library(name));
    names.sort();
    names.into_iter().find(|name| root.join("lib").join(name).join("site-packages").is_dir())
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

/// What `pyvenv.cfg` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    home: Option<PathBuf>,
    /// `X.Y.Z`.
    version: Option<String>,
    sees_system: bool,
}

impl Config {
    fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "home" => config.home = Some(PathBuf::from(value)).filter(|home| home.is_absolute()),
                // virtualenv writes `3.11.7.final.0`.
                "version" | "version_info" => {
                    config.version = Some(value.split('.').take(3).collect::<Vec<_>>().join("."));
                }
                "include-system-site-packages" => config.sees_system = value.eq_ignore_ascii_case("true"),
                _ => {}
            }
        }
        config
    }
}

/// The version of the package `python`, from the name of its record: `python-3.11.7-h955ad1f_0.json`.
fn conda_version(root: &Path) -> Option<String> {
    let entries = fs::read_dir(root.join("conda-meta")).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).find_map(|name| {
        let version = name.strip_prefix("python-")?.split('-').next()?;
        version.starts_with("3.").then(|| version.to_owned())
    })
}

/// The files that `bin/conda-unpack` would mend. It and its module are removed: its work is done elsewhere.
fn conda_prefixes(archive: &Path, root: &Path) -> Result<Vec<Prefixes>, UnpackError> {
    let [script, module] = SCRIPTS.map(|name| root.join("bin").join(name));
    let Some(text) = fs::read_to_string(&script).ok().filter(|_| is_file(&script)) else {
        return if conda_unpack::has_placeholders(&root.join("conda-meta")) {
            Err(UnpackError::Fixed { path: archive.into() })
        } else {
            Ok(Vec::new())
        };
    };
    let mut records = conda_unpack::records(&text).map_err(|at| UnpackError::Records { path: archive.into(), at })?;
    records.extend(conda_unpack::interpreters(&root.join("conda-meta")));
    let mut prefixes = Vec::new();
    for (path, placeholder, mode) in records.into_iter().filter(|(path, ..)| is_file(&root.join(path.as_path()))) {
        let Ok(name) = String::from_utf8(path.as_bytes().to_vec()) else { continue };
        Prefixes::add(&mut prefixes, &placeholder, mode, name);
    }
    for path in [script, module] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(UnpackError::Write { path, source: error });
            }
            _ => {}
        }
    }
    Ok(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pyvenv_cfg_is_read_as_venv_virtualenv_and_uv_write_it() {
        let venv = "home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.11.7\ncommand = /p -m venv /x\n";
        let expected = Config { home: Some("/usr/bin".into()), version: Some("3.11.7".into()), sees_system: true };
        assert_eq!(Config::parse(venv), expected);
        let virtualenv = "home = /usr/bin\nversion = 3.11.7\nversion_info = 3.11.7.final.0\n";
        assert_eq!(Config::parse(virtualenv).version.as_deref(), Some("3.11.7"));
        let uv = "home = /u/bin\nimplementation = CPython\nuv = 0.9\nversion_info = 3.12\n";
        assert_eq!(Config::parse(uv).version.as_deref(), Some("3.12"));
        assert_eq!(Config::parse("home = relative\nodd\n"), Config::default());
    }

    #[test]
    fn environment_lies_at_the_top_or_in_the_one_directory_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let top = directory.path();
        assert_eq!(root_below(top), None);
        fs::create_dir_all(top.join("venv/lib/python3.11/site-packages")).expect("creates");
        assert_eq!(root_below(top), Some(top.join("venv")));
        assert_eq!(library(&top.join("venv")).as_deref(), Some("python3.11"));
        fs::create_dir(top.join("other")).expect("creates");
        assert_eq!(root_below(top), None);
        fs::create_dir_all(top.join("lib/python3.x/site-packages")).expect("creates");
        assert_eq!(root_below(top), None);
        fs::create_dir_all(top.join("lib/python3.13t/site-packages")).expect("creates");
        assert_eq!(root_below(top), Some(top.to_owned()));
    }
}
