//! The two tools that resolve and install: uv where present, else pip.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::error::RequirementsError;
use super::local;
use super::platform::Platform;
use super::request::Options;
use super::run::{Said, command, run};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tool {
    Uv(PathBuf),
    /// The pip of the interpreter.
    Pip,
}

pub(super) struct Task<'a> {
    pub(super) tool: &'a Tool,
    /// The interpreter, or for uv a version that it finds or downloads.
    pub(super) interpreter: &'a OsStr,
    pub(super) options: &'a Options,
    pub(super) platform: Option<&'a Platform>,
    pub(super) files: &'a [PathBuf],
    /// A file of further requirements.
    pub(super) extra: Option<&'a Path>,
    /// A file of those among them that replace what the files say of the same project: only what has a name can.
    pub(super) overrides: Option<&'a Path>,
    /// A directory for the files of this run.
    pub(super) scratch: &'a Path,
    /// Is called with each line that the tool prints.
    pub(super) heard: &'a dyn Fn(&str),
}

impl Tool {
    /// uv, if it is on `path`, else pip.
    pub(super) fn find(path: Option<&OsStr>) -> Self {
        all_on_path(path, "uv").find(|program| is_no_broken_shim(program)).map_or(Self::Pip, Self::Uv)
    }
}

/// The first executable called `name` on `path`.
pub(super) fn on_path(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    all_on_path(path, name).next()
}

/// The executables called `name` on `path`.
fn all_on_path<'a>(path: Option<&'a OsStr>, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let is_executable =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    folders.map(move |folder| folder.join(name)).filter(is_executable)
}

/// The first program called `name` on `path`, or else in `also`, that works.
pub(super) fn working(path: Option<&OsStr>, also: &[PathBuf], name: &str) -> Option<PathBuf> {
    let also = also.iter().filter(|file| file.is_file() && file.file_name() == Some(OsStr::new(name)));
    all_on_path(path, name).chain(also.cloned()).find(|program| is_no_broken_shim(program))
}

/// Whether a program is none of a version manager's scripts that are there and fail, because the version of Python that has
/// the program is not the one that is chosen.
fn is_no_broken_shim(program: &Path) -> bool {
    let mut version = command(program);
    version.arg("--version");
    !is_script(program) || run(version, "uv --version", &|_| {}).is_ok()
}

/// Whether a file begins with `#!`.
fn is_script(file: &Path) -> bool {
    fs::File::open(file).is_ok_and(|mut file| {
        let mut start = [0; 2];
        std::io::Read::read_exact(&mut file, &mut start).is_ok() && start == *b"#!"
    })
}

impl Task<'_> {
    /// Resolves the requirements: returns what an installation into an empty environment would install, sorted.
    pub(super) fn resolve(&self) -> Result<Vec<String>, RequirementsError> {
        let mut pins = match self.tool {
            Tool::Uv(uv) => {
                let mut command = command(uv);
                command.args(["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python"]);
                command.arg(self.interpreter);
                self.inputs(&mut command, &[]);
                lines(&run(command, "uv pip compile", self.heard)?.stdout)
            }
            Tool::Pip => self.pip_report(&["--ignore-installed"])?,
        };
        pins.sort_unstable();
        Ok(pins)
    }

    /// The distributions that the requirements need and the environment at `prefix` lacks.
    pub(super) fn additions(&self, prefix: &Path) -> Result<Vec<String>, RequirementsError> {
        let python = prefix.join("bin/python3");
        let mut additions = match self.tool {
            Tool::Uv(uv) => {
                let mut command = command(uv);
                command.args(["pip", "install", "--dry-run", "--break-system-packages", "--python"]).arg(python);
                self.inputs(&mut command, &[]);
                let said = run(command, "uv pip install", self.heard)?;
                let added = said.stderr.lines().filter_map(|line| line.trim().strip_prefix("+ "));
                added.map(as_requirement).collect()
            }
            Tool::Pip => {
                let python = python.display().to_string();
                self.pip_report(&["--python", &python])?
            }
        };
        additions.sort_unstable();
        Ok(additions)
    }

    /// Makes an empty virtual environment.
    pub(super) fn create(&self, prefix: &Path) -> Result<(), RequirementsError> {
        let (what, mut command) = match self.tool {
            Tool::Uv(uv) => {
                let mut command = command(uv);
                command.args(["venv", "--quiet", "--no-project", "--allow-existing", "--python"]).arg(self.interpreter);
                ("uv venv", command)
            }
            Tool::Pip => {
                let mut command = command(self.interpreter);
                command.args(["-I", "-m", "venv", "--without-pip"]);
                ("python -m venv", command)
            }
        };
        command.arg(prefix);
        run(command, what, self.heard).map(|_| ())
    }

    /// Installs the resolution `pins` into the environment at `prefix`. Distributions that are right already stay.
    pub(super) fn install(&self, prefix: &Path, pins: &[String]) -> Result<(), RequirementsError> {
        // Editable projects and paths come from the requirements themselves. The pins hold the versions of all others.
        let exact = pins.iter().filter(|pin| local::is_pin(pin));
        let constraints = self.scratch.join("constraints.txt");
        write_lines(&constraints, exact)?;
        let python = prefix.join("bin/python3");
        match self.tool {
            Tool::Uv(uv) => {
                let mut command = command(uv);
                command.args(["pip", "install", "--exact", "--python"]).arg(python);
                command.args(projects(pins));
                self.inputs(&mut command, &["--constraints".as_ref(), constraints.as_os_str()]);
                run(command, "uv pip install", self.heard).map(|_| ())
            }
            Tool::Pip => self.pip_install(prefix, &["--constraint".as_ref(), constraints.as_os_str()]),
        }
    }

    /// Installs exactly the requirements, without their own requirements.
    pub(super) fn install_only(&self, prefix: &Path, requirements: &[String]) -> Result<(), RequirementsError> {
        match self.tool {
            Tool::Uv(uv) => {
                let mut command = command(uv);
                command.args(["pip", "install", "--no-deps", "--python"]).arg(prefix.join("bin/python3"));
                command.args(projects(requirements));
                self.inputs(&mut command, &[]);
                run(command, "uv pip install", self.heard).map(|_| ())
            }
            Tool::Pip => self.pip_install(prefix, &["--no-deps".as_ref()]),
        }
    }

    fn pip_install(&self, prefix: &Path, arguments: &[&OsStr]) -> Result<(), RequirementsError> {
        let mut command = command(self.interpreter);
        command.args(["-I", "-m", "pip"]);
        if self.platform.is_none() {
            // The interpreter's own pip installs into the other environment.
            command.arg("--python").arg(prefix.join("bin/python3"));
        }
        command.args(["install", "--quiet"]);
        let target = self.scratch.join("target");
        if self.platform.is_some() {
            command.arg("--target").arg(&target);
        }
        self.inputs(&mut command, arguments);
        run(command, "pip install", self.heard)?;
        if self.platform.is_some() { lay_out(&target, prefix) } else { Ok(()) }
    }

    /// What pip's report says that it would install.
    fn pip_report(&self, arguments: &[&str]) -> Result<Vec<String>, RequirementsError> {
        #[derive(Deserialize)]
        struct Report {
            install: Vec<Item>,
        }
        #[derive(Deserialize)]
        struct Item {
            metadata: Metadata,
            download_info: Download,
            is_direct: bool,
        }
        #[derive(Deserialize)]
        struct Metadata {
            name: String,
            version: String,
        }
        #[derive(Deserialize)]
        struct Download {
            url: String,
        }
        let report = self.scratch.join("report.json");
        let mut command = command(self.interpreter);
        command.args(["-I", "-m", "pip"]);
        // `--python` comes before pip's own command.
        let (before, after) = arguments.split_at(if arguments.first() == Some(&"--python") { 2 } else { 0 });
        command.args(before).args(["install", "--quiet", "--dry-run"]).args(after).arg("--report").arg(&report);
        if self.platform.is_some() {
            command.arg("--target").arg(self.scratch.join("unused"));
        }
        self.inputs(&mut command, &[]);
        run(command, "pip install --dry-run", self.heard)?;
        let bytes = fs::read(&report).map_err(RequirementsError::file(&report))?;
        let parsed: Report = serde_json::from_slice(&bytes).map_err(|e| RequirementsError::file(&report)(e.into()))?;
        let pin = |item: Item| match item.is_direct {
            true => format!("{} @ {}", item.metadata.name, item.download_info.url),
            false => format!("{}=={}", item.metadata.name, item.metadata.version),
        };
        Ok(parsed.install.into_iter().map(pin).collect())
    }

    /// Adds requirements, indexes and platform to a command.
    fn inputs(&self, command: &mut Command, arguments: &[&OsStr]) {
        command.args(arguments);
        let is_uv = matches!(self.tool, Tool::Uv(_));
        // uv compiles files that it is given, and installs those after `-r`.
        let compiles = command.get_args().any(|argument| argument == "compile");
        for file in self.files.iter().map(PathBuf::as_path).chain(self.extra) {
            if !compiles {
                command.arg("-r");
            }
            command.arg(file);
        }
        if let Some(overrides) = self.overrides.filter(|_| is_uv) {
            command.arg("--overrides").arg(overrides);
        }
        match (self.platform, is_uv) {
            (Some(platform), true) => {
                command.arg("--python-platform").arg(platform.name());
            }
            (Some(platform), false) => {
                command.arg("--only-binary=:all:");
                command.args(platform.pip_tags().iter().flat_map(|tag| ["--platform", tag]));
            }
            (None, _) => {}
        }
        self.options.apply(command, is_uv);
    }
}

impl Options {
    /// URLs may have credentials: they go into variables, which other users cannot see.
    fn apply(&self, command: &mut Command, is_uv: bool) {
        let (index, extra) =
            if is_uv { ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL") } else { ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") };
        if let Some(url) = &self.index_url {
            command.env_remove("UV_DEFAULT_INDEX").env(index, url);
        }
        if !self.extra_index_urls.is_empty() {
            command.env(extra, self.extra_index_urls.join(" "));
        }
        for place in &self.find_links {
            command.arg("--find-links").arg(place);
        }
    }
}

/// Moves the files that pip installed with `--target` to their places in a virtual environment.
///
/// pip puts modules at the top of `target`, beside folders such as `bin` and `share`, and RECORD calls those `../../bin`.
fn lay_out(target: &Path, prefix: &Path) -> Result<(), RequirementsError> {
    let lib = prefix.join("lib");
    let mut entries = fs::read_dir(&lib).map_err(RequirementsError::file(&lib))?.flatten();
    let site = entries.find_map(|entry| Some(entry.path().join("site-packages")).filter(|site| site.is_dir()));
    let site = site.unwrap_or_else(|| lib.join("site-packages"));
    let mut outside: Vec<OsString> = Vec::new();
    let infos: Vec<PathBuf> =
        fs::read_dir(target).map_err(RequirementsError::file(target))?.flatten().map(|e| e.path()).collect();
    for record in infos.iter().map(|info| info.join("RECORD")).filter(|record| record.is_file()) {
        let bytes = fs::read(&record).map_err(RequirementsError::file(&record))?;
        let mut rewritten = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if let Some(path) = line.strip_prefix(b"../../") {
                let top = path.split(|b| matches!(b, b'/' | b',')).next().unwrap_or_default();
                outside.push(OsStr::from_bytes(top).to_owned());
                rewritten.extend_from_slice(b"../");
            }
            rewritten.extend_from_slice(line);
        }
        fs::write(&record, rewritten).map_err(RequirementsError::file(&record))?;
    }
    for entry in infos {
        let Some(name) = entry.file_name() else { continue };
        let base = if outside.iter().any(|top| top == name) { prefix } else { site.as_path() };
        merge_into(&entry, &base.join(name)).map_err(RequirementsError::file(&entry))?;
    }
    Ok(())
}

/// Moves a file or folder on the same disk. Into a folder that exists it moves the content.
fn merge_into(from: &Path, to: &Path) -> std::io::Result<()> {
    if !(from.is_dir() && to.is_dir()) {
        return fs::rename(from, to);
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        merge_into(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The directories of projects among the lines of a resolution. Named on the command line they are installed again, which of
/// those in files uv 0.13 does only when `pyproject.toml` changes.
fn projects(lines: &[String]) -> impl Iterator<Item = &String> {
    lines.iter().filter(|line| local::path(line).is_some_and(|(path, is_editable)| !is_editable && path.is_dir()))
}

/// What uv says that it adds, as a requirement: `name==version`, or `name==version (from URL)`.
fn as_requirement(added: &str) -> String {
    match added.strip_suffix(')').and_then(|added| added.split_once(" (from ")) {
        Some((pin, url)) => format!("{} @ {url}", pin.split("==").next().unwrap_or(pin)),
        None => added.to_owned(),
    }
}

/// Lines with text that are not comments.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Writes one line for each text.
pub(super) fn write_lines<'a>(path: &Path, lines: impl Iterator<Item = &'a String>) -> Result<(), RequirementsError> {
    let text: String = lines.flat_map(|line| [line.as_str(), "\n"]).collect();
    fs::write(path, text).map_err(RequirementsError::file(path))
}

/// The interpreter behind `python`: links are followed, and a script of a version manager is asked.
pub(super) fn behind(python: &Path) -> PathBuf {
    if is_script(python) {
        let mut command = command(python);
        command.args(["-I", "-S", "-c", "import sys; print(sys.executable, end='')"]);
        if let Ok(said) = run(command, "python", &|_| {}) {
            return PathBuf::from(said.stdout);
        }
    }
    fs::canonicalize(python).unwrap_or_else(|_| python.to_owned())
}

/// The interpreter of version `X.Y` or `X.Y.Z` on this machine: on `path`, or where pyenv keeps them.
pub(super) fn interpreter(version: &str, path: Option<&OsStr>, home: Option<&Path>) -> Option<PathBuf> {
    let minor: String = version.split('.').take(2).collect::<Vec<_>>().join(".");
    let name = format!("python{minor}");
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let pyenv = home.map(|home| home.join(".pyenv/versions"));
    let mut versions: Vec<PathBuf> = pyenv
        .and_then(|folder| fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path().join("bin"))
        .collect();
    versions.sort();
    let is_right = |file: &PathBuf| {
        let mut command = command(file);
        command.args(["-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]);
        let said = if file.is_file() { run(command, "python", &|_| {}).ok() } else { None };
        said.is_some_and(|Said { stdout, .. }| {
            let found = stdout.trim();
            found == version || found.strip_prefix(version).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    folders.chain(versions.into_iter().rev()).map(|folder| folder.join(&name)).find(is_right)
}
