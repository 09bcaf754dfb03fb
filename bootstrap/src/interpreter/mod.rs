//! The interpreter on the node: the recorded one, the same `X.Y` on `PATH` and in the usual places, or `CPACK_PYTHON`.
//!
//! An environment in the node cache belongs to one interpreter. Its key holds the digest of the interpreter's real path,
//! size, modification time and inode, so the warm path recognises it by `stat` alone and starts nothing. Only a start that
//! builds an environment runs the interpreter to ask what it is ([`probe`]); a tree under a key therefore proves that its
//! interpreter was asked once and fitted.

mod probe;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use cpack_format::Digest;
use cpack_format::job::{Job, minor};
use cpack_format::launcher::is_launcher;

use crate::settings::Settings;

pub(crate) use probe::{Choice, InterpreterError, choose, inspect, node_glibc, require_glibc, require_platform};

/// Directories in which a `pythonX.Y` may be, `~` being the home directory and a final `*` any ending of a name.
const USUAL_PLACES: &[&str] = &[
    "/usr/bin",
    "/usr/local/bin",
    "/opt/python/{}*/bin",
    "/opt/python{}*/bin",
    "/usr/local/python{}*/bin",
    "/opt/conda/bin",
    "/opt/anaconda3/bin",
    "/opt/miniconda3/bin",
    "~/miniconda3/bin",
    "~/.local/bin",
    "~/.local/share/uv/python/cpython-{}*/bin",
    "~/.pyenv/versions/{}*/bin",
    "/opt/pyenv/versions/{}*/bin",
];

/// Which interpreter a start looks for, and where.
#[derive(Debug, Clone)]
pub(crate) struct Search<'a> {
    pub(crate) minor: &'a str,
    pub(crate) soabi: &'a str,
    /// The interpreter on the client, tried first.
    recorded: &'a Path,
    /// `CPACK_PYTHON`: the only one that is tried.
    forced: Option<&'a Path>,
    path: &'a OsStr,
    home: Option<&'a Path>,
}

/// An interpreter as `stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its path without symbolic links.
    pub(crate) path: PathBuf,
    /// Stands for path, size, modification time and inode.
    digest: Digest,
}

impl<'a> Search<'a> {
    /// What `job` looks for under these settings.
    pub(crate) fn new(job: &'a Job, settings: &'a Settings) -> Self {
        Self {
            minor: minor(&job.interpreter.version),
            soabi: &job.interpreter.soabi,
            recorded: Path::new(&job.interpreter.path),
            forced: settings.python.as_deref(),
            path: &settings.path,
            home: settings.places.home.as_deref(),
        }
    }

    /// Any CPython of this version, `3.11`, that is not forced or recorded.
    pub(crate) fn of_minor(minor: &'a str, settings: &'a Settings) -> Self {
        let (path, home) = (&settings.path, settings.places.home.as_deref());
        Self { minor, soabi: "", recorded: Path::new(""), forced: None, path, home }
    }

    /// Paths at which the interpreter may be, best first. The iterator reads a directory only when it gets there.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let name = format!("python{}", self.minor);
        let named = self.forced.unwrap_or(self.recorded).to_owned();
        let others = self.forced.is_none().then(|| {
            let on_path = std::env::split_paths(self.path).filter(|d| d.is_absolute());
            on_path.chain(USUAL_PLACES.iter().flat_map(|place| self.usual(place))).map(move |d| d.join(&name))
        });
        std::iter::once(named).filter(|p| !p.as_os_str().is_empty()).chain(others.into_iter().flatten())
    }

    /// The identities of the candidates that exist, each once.
    pub(crate) fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        identities_at(self.candidates())
    }

    /// The directories that one of [`USUAL_PLACES`] stands for, the newest version first.
    fn usual(&self, place: &str) -> Vec<PathBuf> {
        let place = place.replace("{}", self.minor);
        let path = match (place.strip_prefix("~/"), self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            (Some(_), None) => return Vec::new(),
            (None, _) => PathBuf::from(&place),
        };
        let text = path.as_os_str().as_bytes();
        let Some(star) = text.iter().position(|b| *b == b'*') else { return vec![path] };
        let (prefix, rest) = (Path::new(OsStr::from_bytes(&text[..star])), &text[star + 1..]);
        let rest = Path::new(OsStr::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest)));
        let (Some(parent), Some(start)) = (prefix.parent(), prefix.file_name()) else { return Vec::new() };
        let mut found: Vec<_> = fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            // "3.1" must not find 3.11: no digit follows the version.
            .filter(|e| {
                let name = e.file_name();
                let ending = name.as_bytes().strip_prefix(start.as_bytes());
                ending.is_some_and(|ending| !ending.first().is_some_and(u8::is_ascii_digit))
            })
            .map(|e| parent.join(e.file_name()).join(rest))
            .collect();
        found.sort_unstable_by(|a, b| b.cmp(a));
        found
    }
}

/// The identities of the executables at `paths`, each once.
pub(crate) fn identities_at(paths: impl Iterator<Item = PathBuf>) -> impl Iterator<Item = Identity> {
    let mut seen = Vec::new();
    paths.filter_map(|path| identify(&path)).filter(move |identity| {
        let new = !seen.contains(&identity.path);
        seen.push(identity.path.clone());
        new
    })
}

/// The identity of the executable at `path`; `None` if there is none.
fn identify(path: &Path) -> Option<Identity> {
    let path = fs::canonicalize(path).ok()?;
    let metadata = fs::metadata(&path).ok().filter(|m| m.is_file() && m.mode() & 0o111 != 0)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_os_str().as_bytes());
    for number in [metadata.size(), metadata.mtime() as u64, metadata.mtime_nsec() as u64, metadata.ino()] {
        hasher.update(&number.to_le_bytes());
    }
    Some(Identity { path, digest: hasher.finalize().into() })
}

/// The name of an environment in the node cache: the environment id, and a digest for its interpreter.
///
/// A shipped interpreter is part of the environment, so its version and ABI are enough. The number changes with what each
/// tree has beside its layers: trees of older releases are not used then.
pub(crate) fn environment_key(environment: &Digest, minor: &str, soabi: &str, identity: Option<&Identity>) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("cluster-pack interpreter 2\n{minor}\n{soabi}\n").as_bytes());
    if let Some(identity) = identity {
        hasher.update(identity.digest.as_bytes());
    }
    let digest = Digest::from(hasher.finalize()).to_hex();
    format!("{environment}-{}", digest.get(..16).unwrap_or(&digest))
}

/// Whether the file is `cpack-boot` or a launcher, which would start itself again and again.
fn is_own(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let Ok(found) = file.metadata() else { return false };
    fs::metadata("/proc/self/exe").is_ok_and(|s| (s.dev(), s.ino()) == (found.dev(), found.ino()))
        || is_launcher(found.len(), |bytes, at| file.read_exact_at(bytes, at))
}

/// Whether the file is an interpreter that an environment in a node cache ships: clean-up may remove it any time.
fn is_cached(path: &Path) -> bool {
    let prefix = path.parent().and_then(Path::parent);
    prefix.is_some_and(|prefix| prefix.join(cpack_node::cache::RECORDS).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search<'a>(path: &'a OsStr, home: &'a Path) -> Search<'a> {
        Search { minor: "3.1", soabi: "s", recorded: Path::new("/recorded"), forced: None, path, home: Some(home) }
    }

    #[test]
    fn the_recorded_interpreter_comes_first_and_a_forced_one_alone() {
        let mut search = search(OsStr::new("/a:relative:/b"), Path::new("/nowhere"));
        let all: Vec<_> = search.candidates().collect();
        assert_eq!(all[..3], ["/recorded", "/a/python3.1", "/b/python3.1"].map(PathBuf::from));
        assert!(all.contains(&PathBuf::from("/usr/bin/python3.1")));
        search.forced = Some(Path::new("/forced"));
        assert_eq!(search.candidates().collect::<Vec<_>>(), [PathBuf::from("/forced")]);
    }

    #[test]
    fn usual_places_are_searched_for_the_very_version() {
        let home = tempfile::tempdir().expect("a directory");
        for version in ["3.1.2", "3.1.4", "3.11.7"] {
            fs::create_dir_all(home.path().join(".pyenv/versions").join(version)).expect("creates");
        }
        let found = search(OsStr::new(""), home.path()).usual("~/.pyenv/versions/{}*/bin");
        let expected = ["3.1.4", "3.1.2"].map(|v| home.path().join(".pyenv/versions").join(v).join("bin"));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_key_changes_with_whatever_makes_another_interpreter() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("python3.1");
        fs::write(&file, "1").expect("writes");
        assert_eq!(identify(&file), None, "not executable");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&file, executable).expect("chmod");
        let id = Digest::of(b"");
        let key = |minor, soabi| environment_key(&id, minor, soabi, identify(&file).as_ref());
        let first = key("3.1", "s");
        assert_eq!(first, key("3.1", "s"));
        assert_ne!(first, key("3.2", "s"));
        assert_ne!(first, key("3.1", "t"));
        assert_ne!(first, environment_key(&id, "3.1", "s", None));
        fs::write(&file, "22").expect("writes");
        assert_ne!(first, key("3.1", "s"));
    }

    #[test]
    fn versions_are_cut_at_the_second_dot() {
        for (version, expected) in [("3.11.7", "3.11"), ("3.11", "3.11"), ("3", "3"), ("", ""), ("3.14.0rc1", "3.14")] {
            assert_eq!(minor(version), expected);
        }
    }
}
