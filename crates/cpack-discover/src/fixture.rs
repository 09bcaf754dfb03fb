//! Small environments for tests, written by hand.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{DiscoverOptions, Environment, PythonInfo, discover};
use crate::model::{FindingKind, PythonKind};
use crate::record;

/// The site-packages of these environments.
pub(super) const SITE: &str = "lib/python3.11/site-packages";

/// An environment that is deleted with the value.
#[derive(Debug)]
pub(super) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    /// An empty virtual environment, with an interpreter that cannot be run.
    pub(super) fn new() -> Self {
        let fixture = Self { directory: tempfile::tempdir().expect("a directory") };
        fixture.write("pyvenv.cfg", "home = /nowhere/bin\nversion = 3.11.7\n");
        fixture.write("bin/python", "");
        fs::set_permissions(fixture.prefix().join("bin/python"), fs::Permissions::from_mode(0o755)).expect("chmod");
        symlink("python", fixture.prefix().join("bin/python3")).expect("links");
        symlink("lib", fixture.prefix().join("lib64")).expect("links");
        fs::create_dir_all(fixture.prefix().join(SITE)).expect("makes");
        fixture
    }

    /// The environment's prefix.
    pub(super) fn prefix(&self) -> PathBuf {
        self.directory.path().join("venv")
    }

    /// A folder beside the environment.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file, at a path relative to the prefix or absolute.
    pub(super) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.prefix().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
        fs::write(path, content).expect("writes");
    }

    /// Writes a module or other file of site-packages.
    pub(super) fn module(&self, path: &str, content: &str) {
        self.write(format!("{SITE}/{path}"), content);
    }

    /// Writes the files and the metadata of a distribution. Paths are relative to site-packages.
    pub(super) fn install(&self, name: &str, version: &str, files: &[(&str, &str)]) {
        self.install_with(name, version, &[], files);
    }

    /// The same of a distribution that requires others.
    pub(super) fn install_with(&self, name: &str, version: &str, requires: &[&str], files: &[(&str, &str)]) {
        let info = format!("{name}-{version}.dist-info");
        let requires: String = requires.iter().map(|r| format!("Requires-Dist: {r}\n")).collect();
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\n");
        let mut all = vec![(format!("{info}/METADATA"), metadata), (format!("{info}/INSTALLER"), "hand\n".to_owned())];
        all.extend(files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())));
        let mut rows = String::new();
        for (path, content) in &all {
            self.module(path, content);
            rows += &format!("{path},{},{}\n", record::hash(content.as_bytes()), content.len());
        }
        rows += &format!("{info}/RECORD,,\n");
        self.module(&format!("{info}/RECORD"), &rows);
    }

    /// Discovers it as an environment of CPython 3.11.
    pub(super) fn discover(&self) -> Environment {
        discover(&self.prefix(), &self.options()).expect("an environment")
    }

    /// With these options the interpreter is not run.
    pub(super) fn options(&self) -> DiscoverOptions {
        DiscoverOptions {
            whole_conda: false,
            cache_dir: self.directory.path().join("cache"),
            python: Some(python(&self.prefix())),
        }
    }
}

/// An interpreter that does not exist.
pub(super) fn python(prefix: &Path) -> PythonInfo {
    PythonInfo {
        version: "3.11.7".into(),
        tag: "3.11".into(),
        soabi: "cpython-311-x86_64-linux-gnu".into(),
        platform: "linux-x86_64".into(),
        glibc: Some("2.36".into()),
        cache_tag: "cpython-311".into(),
        magic: [167, 13, 13, 10],
        lib_name: "python3.11".into(),
        executable: prefix.join("bin/python3"),
        base_executable: "/nowhere/bin/python3.11".into(),
        base_prefix: "/nowhere".into(),
        kind: PythonKind::Venv,
        ships_relocatable_interpreter: false,
        stdlib: vec!["json".into(), "types".into()],
    }
}

/// Paths of a distribution's files, those in site-packages shortened.
pub(super) fn files(environment: &Environment, name: &str) -> Vec<String> {
    let distribution = environment.distribution(name).unwrap_or_else(|| panic!("{name} is not there"));
    shortened(&distribution.files)
}

/// Paths, those in site-packages shortened.
pub(super) fn shortened(files: &[super::FileStat]) -> Vec<String> {
    let text = |path: &cpack_format::SafePath| String::from_utf8_lossy(path.as_bytes()).into_owned();
    files.iter().map(|f| text(&f.path)).map(|p| p.strip_prefix(&format!("{SITE}/")).unwrap_or(&p).to_owned()).collect()
}

/// The messages of one kind.
pub(super) fn findings(environment: &Environment, kind: FindingKind) -> Vec<&str> {
    environment.warnings.iter().filter(|w| w.kind == kind).map(|w| w.message.as_str()).collect()
}

/// Sets the `mtime` of a file, in seconds from now.
pub(super) fn touch(path: &Path, seconds: i64) {
    let now = std::time::SystemTime::now();
    let delta = std::time::Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { now - delta } else { now + delta };
    fs::File::options().append(true).open(path).expect("opens").set_modified(time).expect("sets");
}

/// A path with a name that is not UTF-8.
pub(super) fn not_utf8(folder: &Path) -> PathBuf {
    folder.join(std::ffi::OsStr::from_bytes(b"caf\xe9.txt"))
}

/// The interpreters of this machine that are supported, one per version.
pub(crate) fn interpreters() -> Vec<PathBuf> {
    cpack_test::interpreters::interpreters().iter().map(|(_, program)| program.clone()).collect()
}
