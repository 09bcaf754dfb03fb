//! Environments from conda's own files: `-r environment.yml`, a lock file of conda-lock or `conda list --explicit`, `pixi.lock`.
//!
//! | file | made by the first of these that is there |
//! | --- | --- |
//! | `environment.yml`, any `.yml` | micromamba, mamba, conda, pixi |
//! | `conda-lock.yml`, any `-lock.yml` | micromamba, mamba, conda-lock |
//! | a list that begins with `@EXPLICIT` | micromamba, mamba, conda |
//! | `pixi.lock`, `pixi.toml` | pixi, in the project's own `.pixi/envs/default` |
//!
//! The environment lies in the client's cache (see `kept`) and is used again for the same content of the file, and of the files
//! that its pip section names: nothing is solved again, so that what has no version keeps the one that it got. A local project in
//! the pip section is installed anew each time. pixi keeps its environment up to date by itself.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::RequirementsError;
use super::kept::{Kept, OF_PIXI};
use super::prepared::Prepared;
use super::request::{Machine, Options, Request};
use super::run::{command, run};
use super::tools::working;
use crate::cache::Fingerprint;

/// Begins a list of URLs, after comments.
const EXPLICIT: &str = "@EXPLICIT";

/// Bump when the same file becomes another environment.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `environment.yml`
    Environment,
    /// `conda-lock.yml`
    Lock,
    Explicit,
    Pixi,
}

impl Form {
    /// What a file is by its name, or for a text by its content; `None` if it is for pip or uv.
    fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        match path.extension()?.to_str()? {
            _ if name == "pixi.lock" || name == "pixi.toml" => Some(Self::Pixi),
            "yml" | "yaml" if path.file_stem()?.to_str()?.ends_with("-lock") => Some(Self::Lock),
            "yml" | "yaml" => Some(Self::Environment),
            "txt" | "lock" => {
                let text = fs::read_to_string(path).ok()?;
                let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                (lines.next() == Some(EXPLICIT)).then_some(Self::Explicit)
            }
            _ => None,
        }
    }

    /// The programs that make an environment of it, the best first.
    fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Environment => &["micromamba", "mamba", "conda", "pixi"],
            Self::Lock => &["micromamba", "mamba", "conda-lock"],
            Self::Explicit => &["micromamba", "mamba", "conda"],
            Self::Pixi => &["pixi"],
        }
    }
}

/// The name that an `environment.yml` gives its environment.
pub(crate) fn environment_name(path: &Path) -> Option<String> {
    let text = (Form::of(path)? == Form::Environment).then(|| fs::read_to_string(path).ok())??;
    let name = text.lines().find_map(|line| line.strip_prefix("name:"))?;
    let name = name.split('#').next()?.trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// Makes or finds the environment of a request for one of conda's files; `None` for requirements of pip and uv.
pub(super) fn prepare(
    request: &Request,
    machine: &Machine,
    heard: &dyn Fn(&str),
) -> Result<Option<Prepared>, RequirementsError> {
    let found = request.files.iter().find_map(|path| Some((path, Form::of(path)?)));
    let Some((path, form)) = found else { return Ok(None) };
    if request.files.len() > 1 {
        return Err(RequirementsError::CondaAlone { path: path.clone() });
    }
    if request.options != Options::default() {
        return Err(RequirementsError::CondaOptions { path: path.clone() });
    }
    let file = path.canonicalize().map_err(RequirementsError::file(path))?;
    let tools = form.tools();
    let at = |tool: &&'static str| Some((*tool, working(machine.path.as_deref(), &machine.conda, tool)?));
    let (tool, program) = tools
        .iter()
        .find_map(at)
        .ok_or_else(|| RequirementsError::NoCondaTool { path: path.clone(), tools: tools.join(", ") })?;
    let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
    let start = |arguments: Vec<OsString>, heard: &dyn Fn(&str)| {
        let mut command = of_conda(&program, &folder);
        command.args(arguments);
        run(command, tool, heard).map(|_| ())
    };
    let prefix = if form == Form::Pixi {
        let reused = folder.join(OF_PIXI).is_dir();
        start(install_in_place(&folder), heard)?;
        Made { prefix: folder.join(OF_PIXI), reused }
    } else {
        kept(machine, tool, &file, |directory| {
            steps(tool, form, &file, directory).into_iter().try_for_each(|arguments| start(arguments, heard))
        })?
    };
    if !prefix.prefix.join("bin/python").exists() {
        return Err(RequirementsError::CondaPython { path: path.clone() });
    }
    Ok(Some(Prepared { prefix: prefix.prefix, reused: prefix.reused, platform: None, is_conda: true }))
}

struct Made {
    prefix: PathBuf,
    reused: bool,
}

/// The environment of `file` in the client's cache, which `fill` makes in a directory that does not exist.
fn kept(
    machine: &Machine,
    tool: &str,
    file: &Path,
    fill: impl FnOnce(&Path) -> Result<(), RequirementsError>,
) -> Result<Made, RequirementsError> {
    let failed = || RequirementsError::file(&machine.cache_dir.join("environments"));
    let kept = Kept::open(&machine.cache_dir).map_err(failed())?;
    let text = fs::read_to_string(file).map_err(RequirementsError::file(file))?;
    let pip = OfPip::read(&text);
    let mut key = Fingerprint::of(&format!("cluster-pack conda environment {FORMAT}"));
    key.text(tool).text(&text);
    for name in pip.files {
        let path = file.with_file_name(name);
        key.text(name).text(fs::read(&path).map_err(RequirementsError::file(&path))?);
    }
    let key = key.finish();
    if let Some(prefix) = kept.find(&key).filter(|_| !pip.has_projects) {
        return Ok(Made { prefix, reused: true });
    }
    let directory = kept.begin(&key).map_err(failed())?;
    // mamba refuses a directory that is there, even an empty one.
    fs::remove_dir(directory.path()).map_err(failed())?;
    fill(directory.path())?;
    let made = kept.commit(&key, directory).map_err(failed())?;
    let inside = made.join(OF_PIXI);
    Ok(Made { prefix: if inside.is_dir() { inside } else { made }, reused: false })
}

/// What the lines of a pip section name that is not in the file.
#[derive(Debug, PartialEq, Eq)]
struct OfPip<'a> {
    /// Requirements files.
    files: Vec<&'a str>,
    /// Whether any names a local project, whose sources may change.
    has_projects: bool,
}

impl<'a> OfPip<'a> {
    fn read(text: &'a str) -> Self {
        let mut found = Self { files: Vec::new(), has_projects: false };
        let items = text.lines().filter_map(|line| line.trim().strip_prefix("- "));
        for item in items.map(|item| item.trim().trim_matches(['"', '\''])) {
            let of = |option: &str| item.strip_prefix(option).map(|rest| rest.trim_start_matches(['=', ' ']));
            let named = ["-r ", "-c ", "--requirement", "--constraint"].into_iter().find_map(of);
            found.files.extend(named.filter(|name| !name.contains("://")));
            let starts = ["-e ", "--editable", "./", "../", "/", "file:"];
            found.has_projects |= item == "." || starts.iter().any(|start| item.starts_with(start));
        }
        found
    }
}

/// A command of one of conda's tools, which asks no questions. Paths in the file are relative to its `folder`.
fn of_conda(program: &Path, folder: &Path) -> Command {
    let mut command = command(program);
    command.env("CONDA_ALWAYS_YES", "true").env("MAMBA_ALWAYS_YES", "true").env("PIXI_NO_PROGRESS", "true");
    command.current_dir(folder);
    command
}

/// What a tool is called with, one command after the other, to make `directory` of `file`.
fn steps(tool: &str, form: Form, file: &Path, directory: &Path) -> Vec<Vec<OsString>> {
    let (file, directory) = (file.as_os_str(), directory.as_os_str());
    let words = |words: &[&OsStr]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let word = OsStr::new;
    match (tool, form) {
        ("micromamba", _) => vec![words(&[word("create"), word("-y"), word("-p"), directory, word("-f"), file])],
        ("pixi", _) => {
            let manifest = Path::new(directory).join("pixi.toml");
            vec![
                words(&[word("init"), word("--import"), file, directory]),
                words(&[word("install"), word("--manifest-path"), manifest.as_os_str()]),
            ]
        }
        ("conda-lock", _) => vec![words(&[word("install"), word("-p"), directory, file])],
        (_, Form::Environment) => {
            vec![words(&[word("env"), word("create"), word("-p"), directory, word("-f"), file])]
        }
        _ => vec![words(&[word("create"), word("-y"), word("-p"), directory, word("--file"), file])],
    }
}

/// What makes pixi's own environment of the project in `folder` what its lock says; without a lock, what its manifest says.
fn install_in_place(folder: &Path) -> Vec<OsString> {
    let manifest =
        ["pixi.toml", "pyproject.toml"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
    let mut arguments: Vec<OsString> = vec!["install".into()];
    if folder.join("pixi.lock").is_file() {
        arguments.push("--frozen".into());
    }
    arguments.extend(["--manifest-path".into(), manifest.unwrap_or_else(|| folder.join("pixi.toml")).into()]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_conda_are_told_by_name_and_content() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("writes");
            path
        };
        for (name, text, form) in [
            ("environment.yml", "name: \"work\" # x\n", Some(Form::Environment)),
            ("dev.yaml", "", Some(Form::Environment)),
            ("conda-lock.yml", "", Some(Form::Lock)),
            ("dev.conda-lock.yml", "", Some(Form::Lock)),
            ("conda-linux-64.lock", "# platform: linux-64\n@EXPLICIT\nhttps://x\n", Some(Form::Explicit)),
            ("pixi.lock", "", Some(Form::Pixi)),
            ("requirements.txt", "six\n", None),
            ("uv.lock", "version = 1\n", None),
            ("pyproject.toml", "", None),
        ] {
            assert_eq!(Form::of(&write(name, text)), form, "{name}");
        }
        assert_eq!(environment_name(&directory.path().join("environment.yml")).as_deref(), Some("work"));
        assert_eq!(environment_name(&directory.path().join("dev.yaml")), None);
    }

    #[test]
    fn pip_section_is_looked_through_for_files_and_projects() {
        let text = "dependencies:\n  - python=3.11\n  - pip:\n    - six==1.17.0\n    - -r more.txt\n    - '--constraint=c.txt'\n";
        assert_eq!(OfPip::read(text), OfPip { files: vec!["more.txt", "c.txt"], has_projects: false });
        for line in ["-e .", ".", "./lib", "file:///x", "--editable=../y"] {
            assert!(OfPip::read(&format!("  - pip:\n    - {line}\n")).has_projects, "{line}");
        }
    }

    #[test]
    fn tools_are_called_as_their_manuals_say() {
        let shown = |tool: &str, form| {
            let steps = steps(tool, form, Path::new("/f"), Path::new("/d"));
            let line = |step: &Vec<OsString>| step.join(OsStr::new(" ")).into_string().expect("UTF-8");
            steps.iter().map(line).collect::<Vec<_>>().join("; ")
        };
        for (tool, form, commands) in [
            ("micromamba", Form::Environment, "create -y -p /d -f /f"),
            ("micromamba", Form::Lock, "create -y -p /d -f /f"),
            ("mamba", Form::Environment, "env create -p /d -f /f"),
            ("mamba", Form::Lock, "create -y -p /d --file /f"),
            ("conda", Form::Environment, "env create -p /d -f /f"),
            ("conda", Form::Explicit, "create -y -p /d --file /f"),
            ("conda-lock", Form::Lock, "install -p /d /f"),
            ("pixi", Form::Environment, "init --import /f /d; install --manifest-path /d/pixi.toml"),
        ] {
            assert_eq!(shown(tool, form), commands, "{tool}");
        }
    }
}
