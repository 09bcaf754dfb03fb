//! The values that discovery returns. Their methods do not read the disk.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cpack_format::SafePath;
use cpack_format::content;
use cpack_format::prefix::Mode;

pub use cpack_format::manifest::EntryPoint;

/// An environment as it is on disk now. No path occurs twice among its distributions, its editables and its unowned
/// files.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Absolute, as the user named it.
    pub prefix: PathBuf,
    /// Relative to the prefix: `lib/python3.11/site-packages`.
    pub site_packages: SafePath,
    /// The interpreter.
    pub python: PythonInfo,
    /// Sorted by normalised name.
    pub distributions: Vec<Distribution>,
    /// Files of no distribution, sorted by path, without those of the virtual environment itself.
    pub unowned: Vec<FileStat>,
    /// Editable projects, sorted by normalised name.
    pub editables: Vec<Editable>,
    pub(crate) contested: Vec<Contested>,
    /// Warnings for the user.
    pub warnings: Vec<Finding>,
    /// Whether it sees the packages of its base interpreter; those of a node's, where it is booted.
    pub sees_system: bool,
    /// Its conda packages, sorted by name, if it is a conda environment that is packed whole. The interpreter is one of them.
    pub packages: Vec<CondaPackage>,
}

impl Environment {
    /// The path on disk of a file of this environment.
    pub fn source(&self, file: &FileStat) -> PathBuf {
        file.on_disk(&self.prefix)
    }

    /// Normalised names of the distributions and of the editable projects.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let distributions = self.distributions.iter().map(|d| d.name.as_str());
        distributions.chain(self.editables.iter().map(|e| e.name.as_str()))
    }

    /// Whether it is a conda environment that is packed whole, with its interpreter.
    pub fn is_whole_conda(&self) -> bool {
        !self.packages.is_empty()
    }

    /// All files of its layers, without those of editable projects.
    pub fn files(&self) -> impl Iterator<Item = &FileStat> {
        let packages = self.packages.iter().flat_map(|package| &package.files);
        self.distributions.iter().flat_map(|distribution| &distribution.files).chain(packages).chain(&self.unowned)
    }

    /// The scripts that its distributions declare.
    pub fn entry_points(&self) -> impl Iterator<Item = &EntryPoint> {
        let packages = self.packages.iter().flat_map(|package| &package.entry_points);
        self.distributions.iter().flat_map(|distribution| &distribution.entry_points).chain(packages)
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

    /// Files that a distribution lists and another distribution, or none, owns.
    pub fn shared_files(&self, distribution: &Distribution) -> Vec<FileStat> {
        let contested = self.contested.iter();
        let paths = contested
            .filter(|contested| contested.claimants.contains(&distribution.name))
            .map(|contested| &contested.path)
            .filter(|path| distribution.files.binary_search_by(|file| file.path.cmp(path)).is_err());
        let packages = || self.packages.iter().map(|package| &package.files);
        let all = || self.distributions.iter().map(|d| &d.files).chain(packages()).chain([&self.unowned]);
        let find = |files: &Vec<FileStat>, path: &SafePath| {
            let at = files.binary_search_by(|file| file.path.cmp(path)).ok()?;
            files.get(at).cloned()
        };
        paths.filter_map(|path| all().find_map(|files| find(files, path))).collect()
    }

    /// Finds a distribution by its normalised name.
    pub fn distribution(&self, name: &str) -> Option<&Distribution> {
        let at = self.distributions.binary_search_by(|d| d.name.as_str().cmp(name)).ok()?;
        self.distributions.get(at)
    }
}

/// The kind of installation in a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PythonKind {
    /// A virtual environment, with a `pyvenv.cfg`.
    Venv,
    /// An interpreter's own prefix.
    System,
    /// A conda prefix, with a `conda-meta`.
    Conda,
    /// The prefix of a relocatable interpreter (python-build-standalone), which uv installs.
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
    /// The version of glibc on this machine, e.g. `2.36`; `None` with another C library.
    pub glibc: Option<String>,
    /// The part between a module's name and `.pyc` in `__pycache__`, e.g. `cpython-311`.
    pub cache_tag: String,
    /// The first four bytes of its `.pyc` files.
    pub magic: [u8; 4],
    /// The folder of its modules in `lib`, e.g. `python3.11`; `python3.13t` without the global lock.
    pub lib_name: String,
    /// The interpreter in the environment's `bin`: absolute, links not followed.
    pub executable: PathBuf,
    /// The interpreter behind it, with all links followed.
    pub base_executable: PathBuf,
    /// The prefix of the base interpreter.
    pub base_prefix: PathBuf,
    /// The kind of installation of the environment.
    pub kind: PythonKind,
    /// Whether the base interpreter works in any directory, so that it can be shipped as a layer.
    pub ships_relocatable_interpreter: bool,
    /// Top-level names of its standard library, sorted.
    pub stdlib: Vec<String>,
}

/// A file or symbolic link, with the stat data by which a later run recognises it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStat {
    /// Relative to the environment.
    pub path: SafePath,
    /// Its path on disk, if that is not `path` below the prefix: in editable projects, in system interpreters, and for links
    /// out of the environment.
    pub source: Option<Box<Path>>,
    /// Length in bytes.
    pub size: u64,
    /// `mtime` in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// `ctime` in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Inode number.
    pub ino: u64,
    /// File, executable or link.
    pub kind: FileKind,
}

/// The kind of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link with this target: relative, and inside the environment.
    Link(Box<[u8]>),
}

impl FileStat {
    /// The path on disk, if the environment's prefix is `prefix`.
    pub fn on_disk(&self, prefix: &Path) -> PathBuf {
        self.source.as_deref().map_or_else(|| prefix.join(&self.path), Path::to_owned)
    }
}

impl FileKind {
    /// The kind of the layer's file.
    pub fn content_kind(&self) -> content::Kind {
        match self {
            Self::File => content::Kind::File,
            Self::Executable => content::Kind::Executable,
            Self::Link(_) => content::Kind::Link,
        }
    }
}

/// An installed distribution.
#[derive(Debug, Clone)]
pub struct Distribution {
    /// Name as PEP 503 normalises it.
    pub name: String,
    /// Name as its metadata has it.
    pub display_name: String,
    /// Version as its metadata has it.
    pub version: String,
    /// Its `.dist-info` or `.egg-info`, a directory or a file.
    pub info: SafePath,
    /// Sorted by path.
    pub files: Vec<FileStat>,
    /// `Requires-Dist`, as written.
    pub requires: Vec<String>,
    /// Its console and GUI scripts.
    pub entry_points: Vec<EntryPoint>,
    /// Top-level names that can be imported from its files, sorted.
    pub import_names: Vec<String>,
    /// Its origin, if that is not an index.
    pub(crate) direct_url: Option<DirectUrl>,
    /// Tags of its wheel, e.g. `cp311-cp311-manylinux_2_17_x86_64`.
    pub tags: Vec<String>,
    /// Files that may differ from what was installed.
    pub suspects: Vec<Suspect>,
}

/// An installed conda package.
#[derive(Debug, Clone)]
pub struct CondaPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its build.
    pub build: String,
    /// Names of the packages that it needs.
    pub depends: Vec<String>,
    /// Sorted by path.
    pub files: Vec<FileStat>,
    /// Its record in `conda-meta`.
    pub record: SafePath,
    /// The record without what belongs to one installation.
    pub record_bytes: Vec<u8>,
    /// Its files that hold the environment's path.
    pub placeholders: HashMap<SafePath, Placeholder>,
    /// Its directory in the cache of the installer, which may be gone.
    pub unpacked: Option<PathBuf>,
    /// Console and GUI scripts of its distributions.
    pub entry_points: Vec<EntryPoint>,
    /// Top-level names that can be imported from its files, sorted.
    pub import_names: Vec<String>,
    /// Files that may differ from what was installed.
    pub suspects: Vec<Suspect>,
}

/// What a file of a conda package had before the environment's path was written into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// The path that the package was built for.
    pub placeholder: String,
    /// How the file holds it.
    pub mode: Mode,
    /// The hash of the file as it was built, for [`crate::record::matches`].
    pub hash: Option<String>,
}

/// A file that may differ from the installed one: its length differs from RECORD, or it changed after RECORD was written.
/// Only comparing its hash shows whether it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The file.
    pub path: SafePath,
    /// The hash in RECORD, for [`crate::record::matches`].
    pub hash: String,
    /// Whether the length differs, so that the hash need not be compared.
    pub certain: bool,
}

/// The contents of `direct_url.json` (PEP 610).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirectUrl {
    /// Without credentials.
    pub(crate) url: String,
    pub(crate) editable: bool,
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

/// An editable project. Its files become an overlay of the job, not a layer of the environment.
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
    /// The packages and modules that it provides.
    pub sources: Vec<ImportSource>,
    /// The modules and the metadata, relative to the overlay's root, which will be on `sys.path`. Each has a `source`.
    pub files: Vec<FileStat>,
    /// The compiled extensions among `files`.
    pub extensions: Vec<SafePath>,
    /// Its files in the environment, which are not packed with the environment: `.pth`, finder, metadata.
    pub own_files: Vec<FileStat>,
    /// Its files in the environment outside site-packages and `bin/`, until they are handed to the unowned ones.
    pub(crate) data: Vec<FileStat>,
    /// Its scripts in `bin/`.
    pub scripts: Vec<FileStat>,
    /// `Requires-Dist`, as written.
    pub requires: Vec<String>,
    /// Its console and GUI scripts.
    pub entry_points: Vec<EntryPoint>,
}

impl Editable {
    /// Whether `folder`, which a `.pth` file puts on the path, is where it is: its modules are in the overlay.
    pub fn is_at(&self, folder: &Path) -> bool {
        self.project_dir == folder || self.sources.iter().any(|source| source.path.parent() == Some(folder))
    }
}

impl Editable {
    /// The project as a distribution whose files are in `site_packages`, as a plain installation would have them.
    pub fn as_distribution(&self, site_packages: &SafePath) -> Distribution {
        let in_site = |path: &SafePath| SafePath::new(&[site_packages.as_bytes(), b"/", path.as_bytes()].concat()).ok();
        // RECORD lists the files of the editable installation, and direct_url.json the project's folder.
        let about_it = |path: &SafePath| {
            [&b".dist-info/RECORD"[..], b".dist-info/direct_url.json"].iter().any(|end| path.as_bytes().ends_with(end))
        };
        let kept = self.files.iter().filter(|file| !about_it(&file.path));
        let files: Vec<FileStat> =
            kept.filter_map(|file| Some(FileStat { path: in_site(&file.path)?, ..file.clone() })).collect();
        let info = self.files.iter().find_map(|file| {
            let first = file.path.components().next()?;
            let is_info = first.ends_with(b".dist-info") || first.ends_with(b".egg-info");
            is_info.then(|| SafePath::new(first).ok()).flatten()
        });
        Distribution {
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            version: self.version.clone(),
            info: info.as_ref().and_then(in_site).unwrap_or_else(|| site_packages.clone()),
            files,
            requires: self.requires.clone(),
            entry_points: self.entry_points.clone(),
            import_names: Vec::new(),
            direct_url: None,
            tags: Vec::new(),
            suspects: Vec::new(),
        }
    }
}

/// A package or module of an editable project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImportSource {
    /// The name to import, with dots for a part of a namespace package: `pkg`, `google.pkg`.
    pub name: String,
    /// Its path in the overlay.
    pub target: SafePath,
    /// The package's folder or the module's file.
    pub path: PathBuf,
}

/// A file that several distributions list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contested {
    pub(crate) path: SafePath,
    /// Normalised names of those whose RECORD has the file's hash, sorted. The first owns the file; without any, the file is
    /// unowned.
    pub(crate) matching: Vec<String>,
    /// Normalised names of all distributions that list it.
    pub(crate) claimants: Vec<String>,
}

/// The subject of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// RECORD lists missing files.
    MissingFiles,
    /// A `.dist-info` without METADATA or RECORD.
    DamagedMetadata,
    /// Files of an interrupted `pip uninstall`.
    Leftover,
    /// Two versions of one project.
    Duplicate,
    /// A file that several distributions list with different content.
    Contested,
    /// Large files that no package owns.
    Unowned,
    /// A file or link outside the environment.
    Outside,
    /// A file that cannot be read, or a socket, pipe or device.
    Unreadable,
    /// The prefix is an interpreter's own.
    SystemPython,
    /// The prefix is one of conda.
    Conda,
    /// The environment sees the base interpreter's site-packages.
    SystemSitePackages,
    /// Files of another Python version.
    OtherVersion,
    /// An editable project whose files are unknown.
    Editable,
    /// An editable project provides a name that is also provided elsewhere.
    Shadow,
    /// A distribution that is kept since something requires it.
    Required,
}

/// A warning for the user: one line that names the problem, the place and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The subject.
    pub kind: FindingKind,
    /// One line.
    pub message: String,
}

impl Finding {
    /// Control characters in `message`, which may come from file names, become spaces.
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
