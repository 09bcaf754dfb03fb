//! What discovery finds: plain values, without methods that touch a disk.

use std::fmt;
use std::path::{Path, PathBuf};

use cpack_artifact::SafePath;
use cpack_artifact::content;

/// An environment as it is on disk now. No path occurs twice among its distributions, its editables and its unowned
/// files.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Absolute path of the prefix, as the user named it.
    pub prefix: PathBuf,
    /// Where modules are, relative to the prefix: `lib/python3.11/site-packages`.
    pub site_packages: SafePath,
    /// Its interpreter.
    pub python: PythonInfo,
    /// What is installed, in the order of normalised names.
    pub distributions: Vec<Distribution>,
    /// Files that belong to no distribution, without those of the virtual environment itself, in the order of paths.
    pub unowned: Vec<FileStat>,
    /// Projects that are installed as editable, in the order of normalised names.
    pub editables: Vec<Editable>,
    /// Files that several distributions claim, and who got them.
    pub contested: Vec<Contested>,
    /// What the user should know.
    pub warnings: Vec<Finding>,
}

impl Environment {
    /// Where a file of this environment is on disk.
    pub fn source(&self, file: &FileStat) -> PathBuf {
        match &file.source {
            Some(source) => source.to_path_buf(),
            None => self.prefix.join(&file.path),
        }
    }

    /// The editable projects in the order in which their modules are found: `.pth` files are processed in the order of their
    /// names, and what they put on the path comes before what finders find.
    pub fn editables_in_turn(&self) -> Vec<&Editable> {
        let site = self.site_packages.as_bytes();
        let turn = |editable: &&Editable| {
            let in_site = |file: &FileStat| {
                let name = file.path.as_bytes().strip_prefix(site)?.strip_prefix(b"/")?;
                (name.ends_with(b".pth") && !name.contains(&b'/')).then(|| name.to_vec())
            };
            let on_path = matches!(editable.form, EditableForm::PthPath | EditableForm::EggLink | EditableForm::Link);
            (!on_path, editable.own_files.iter().filter_map(in_site).min())
        };
        let mut editables: Vec<&Editable> = self.editables.iter().collect();
        editables.sort_by_cached_key(turn);
        editables
    }

    /// The distribution with this normalised name.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        let at = self.distributions.binary_search_by(|d| d.name.as_str().cmp(name)).ok()?;
        self.distributions.get(at)
    }
}

/// What kind of installation a prefix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PythonKind {
    /// A virtual environment: it has a `pyvenv.cfg`.
    Venv,
    /// An interpreter's own prefix.
    System,
    /// A conda prefix: it has a `conda-meta`.
    Conda,
    /// The prefix of a relocatable interpreter, as uv installs them (python-build-standalone).
    Standalone,
}

/// The interpreter of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonInfo {
    /// Full version, e.g. `3.11.7`.
    pub version: String,
    /// The version that executors must have, e.g. `3.11`.
    pub tag: String,
    /// `sysconfig`'s `SOABI`, e.g. `cpython-311-x86_64-linux-gnu`.
    pub soabi: String,
    /// `sysconfig.get_platform()`, e.g. `linux-x86_64`.
    pub platform: String,
    /// Version of the C library that it runs with here, e.g. `2.36`; none where that is not glibc.
    pub glibc: Option<String>,
    /// What is between a module's name and `.pyc` in `__pycache__`, e.g. `cpython-311`.
    pub cache_tag: String,
    /// The first four bytes of its `.pyc` files.
    pub magic: [u8; 4],
    /// Name of the folder of its modules in `lib`, e.g. `python3.11`; `python3.13t` without the global lock.
    pub lib_name: String,
    /// The interpreter in the environment's `bin`: absolute, links not followed.
    pub executable: PathBuf,
    /// The interpreter behind it, with all links followed.
    pub base_executable: PathBuf,
    /// The prefix of the base interpreter.
    pub base_prefix: PathBuf,
    /// What kind of installation the environment is.
    pub kind: PythonKind,
    /// Whether the base interpreter may be shipped as a layer: it works wherever it is put.
    pub ships_relocatable_interpreter: bool,
    /// Top-level names of its standard library, sorted.
    pub stdlib: Vec<String>,
}

/// One file or symbolic link, with the stat data by which a later run recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Where it is in the environment.
    pub path: SafePath,
    /// Where its bytes are, if not at `path` under the prefix: editable projects, system interpreters, links that led
    /// out of the environment.
    pub source: Option<Box<Path>>,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of its bytes, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Time of the last change of its inode, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link with this target: relative, and inside the environment.
    Link(Box<[u8]>),
}

impl FileKind {
    /// The kind in a layer.
    pub fn content_kind(&self) -> content::Kind {
        match self {
            Self::File => content::Kind::File,
            Self::Executable => content::Kind::Executable,
            Self::Link(_) => content::Kind::Link,
        }
    }
}

/// One installed project.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Name as PEP 503 normalises it.
    pub name: String,
    /// Name as its metadata has it.
    pub display_name: String,
    /// Version as its metadata has it.
    pub version: String,
    /// Its `.dist-info` or `.egg-info` directory (or file).
    pub info: SafePath,
    /// Its files, in the order of their paths.
    pub files: Vec<FileStat>,
    /// `Requires-Dist`, as written.
    pub requires: Vec<String>,
    /// `Requires-Python`, as written.
    pub requires_python: Option<String>,
    /// Its console and GUI scripts.
    pub entry_points: Vec<EntryPoint>,
    /// Top-level names that can be imported from its files, sorted.
    pub import_names: Vec<String>,
    /// Where it came from, if not from an index.
    pub direct_url: Option<DirectUrl>,
    /// Tags of its wheel, e.g. `cp311-cp311-manylinux_2_17_x86_64`.
    pub tags: Vec<String>,
    /// Who installed it, e.g. `uv`.
    pub installer: Option<String>,
    /// Files that may differ from what was installed.
    pub suspects: Vec<Suspect>,
}

/// A file that may differ from what its distribution installed: its length is another than in RECORD, or it was changed
/// after RECORD was written. Reading it and comparing its hash tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The file.
    pub path: SafePath,
    /// The hash in RECORD, as [`crate::content::record::matches`] takes it.
    pub hash: String,
    /// Whether the length differs already, so that there is nothing left to compare.
    pub certain: bool,
}

/// A script that a distribution declares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPoint {
    /// Its name: the file in `bin/`.
    pub name: String,
    /// `module:function`.
    pub value: String,
    /// Whether it is in the group `gui_scripts`, else `console_scripts`.
    pub gui: bool,
}

/// What `direct_url.json` says (PEP 610).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectUrl {
    /// Where it came from, without credentials.
    pub url: String,
    /// The commit, where it came from version control.
    pub commit: Option<String>,
    /// Whether it was installed as editable.
    pub editable: bool,
}

/// How an editable project was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EditableForm {
    /// A `.pth` file with the path of its sources (all build backends have this form).
    PthPath,
    /// A module that maps names to paths, which a `.pth` file loads (setuptools).
    Finder,
    /// A module of the `editables` package, which a `.pth` file loads (hatchling's exact mode, PDM).
    Proxy,
    /// A module that maps names to files, which a `.pth` file loads (scikit-build-core).
    Redirect,
    /// A module that reads meson's install plan, which a `.pth` file loads (meson-python).
    Meson,
    /// Links in site-packages (flit).
    Link,
    /// `.egg-link` and `easy-install.pth` (`setup.py develop`).
    EggLink,
}

/// A project that is installed as editable: its files become an overlay of the job, not a layer of the environment.
#[derive(Debug, Clone)]
pub struct Editable {
    /// Name as PEP 503 normalises it.
    pub name: String,
    /// Name as its metadata has it.
    pub display_name: String,
    /// Version as its metadata has it.
    pub version: String,
    /// The folder of the project.
    pub project_dir: PathBuf,
    /// How it was installed.
    pub form: EditableForm,
    /// What it provides, and where that is.
    pub sources: Vec<ImportSource>,
    /// Files of the overlay, relative to the overlay's root, which is put on the path: the modules and the metadata.
    /// Each has a `source`.
    pub files: Vec<FileStat>,
    /// Those of `files` that are compiled extensions.
    pub extensions: Vec<SafePath>,
    /// Its files in the environment that must not be packed with it: `.pth`, finder, metadata.
    pub own_files: Vec<FileStat>,
    /// Its files in the environment outside site-packages and `bin/`, until they are handed to the unowned ones.
    pub(crate) data: Vec<FileStat>,
    /// Its scripts in `bin/`.
    pub scripts: Vec<FileStat>,
    /// `Requires-Dist`, as written.
    pub requires: Vec<String>,
    /// `Requires-Python`, as written.
    pub requires_python: Option<String>,
    /// Its console and GUI scripts.
    pub entry_points: Vec<EntryPoint>,
}

impl Editable {
    /// Whether `folder`, which a `.pth` file puts on the path, is where it is: its modules are in the overlay.
    pub(crate) fn is_at(&self, folder: &Path) -> bool {
        self.project_dir == folder || self.sources.iter().any(|source| source.path.parent() == Some(folder))
    }
}

/// One importable thing of an editable project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportSource {
    /// The name to import, with dots for a part of a namespace package: `pkg`, `google.pkg`.
    pub name: String,
    /// Where it goes in the overlay.
    pub target: SafePath,
    /// The package's folder or the module's file.
    pub path: PathBuf,
}

/// A path that several distributions claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contested {
    /// The path.
    pub path: SafePath,
    /// Normalised names of those whose RECORD has the hash of the file, in their order. The first has the file.
    /// Where none has it, the file is unowned.
    pub matching: Vec<String>,
    /// Normalised names of all that claim it.
    pub claimants: Vec<String>,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// RECORD lists files that are not there.
    MissingFiles,
    /// A `.dist-info` without METADATA or RECORD.
    DamagedMetadata,
    /// What an interrupted `pip uninstall` left.
    Leftover,
    /// Two versions of one project.
    Duplicate,
    /// A file that several distributions claim with different content.
    Contested,
    /// A file or link outside the environment.
    Outside,
    /// A file that cannot be read, or is no file.
    Unreadable,
    /// The prefix is an interpreter's own.
    SystemPython,
    /// The prefix is one of conda.
    Conda,
    /// The environment sees more than its own prefix.
    SystemSitePackages,
    /// Files of another Python version.
    OtherVersion,
    /// An editable project whose files cannot be told.
    Editable,
    /// An editable project provides a name that something else has.
    Shadow,
}

/// Something that the user should know: one line that says what, where and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// The line.
    pub message: String,
}

impl Finding {
    /// A finding. Line breaks in `message`, which may come from file names, become spaces.
    pub fn new(kind: FindingKind, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { kind, message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
