//! Where a node cache may be, best first.
//!
//! YARN gives each user a directory per disk that outlives the application (`LOCAL_USER_DIRS`, or `LOCAL_DIRS` without
//! `/appcache/…`) and that the user's containers on the node share; its cleaner does not count foreign files, so the
//! boot cleans up itself. Kubernetes gives `SPARK_LOCAL_DIRS`, which lives as long as the pod. `/dev/shm` is charged to
//! the container's memory and never used by default.
//!
//! A scheduler's `TMPDIR` may name a directory of the node that is not in the container. Then the directories that Python's
//! `tempfile` tries come after all others. A `TMPDIR` that exists but is full does not lead to them: environments would fill
//! the system's disk instead.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::statfs;
use nix::sys::statvfs::{FsFlags, statvfs};

/// Variables that name directories: those of people, of YARN, of Spark and of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// `CPACK_CACHE_DIR`.
    pub cache_dir: Option<PathBuf>,
    /// `LOCAL_USER_DIRS`: YARN's directories of this user, which outlive the application (newer Hadoop).
    pub local_user_dirs: Vec<PathBuf>,
    /// `LOCAL_DIRS`: YARN's directories of this application, one per disk.
    pub local_dirs: Vec<PathBuf>,
    /// `SPARK_LOCAL_DIRS`.
    pub spark_local_dirs: Vec<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub xdg_cache_home: Option<PathBuf>,
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `TMPDIR`, `TEMP` and `TMP`, in the order in which Python reads them.
    pub temporary: Vec<PathBuf>,
}

/// What kind of place it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// `CPACK_CACHE_DIR`: used whatever it is.
    Chosen,
    /// YARN's directory of the user, which outlives the application.
    User,
    /// A directory that the framework gave: YARN's of the application, or Spark's.
    Local,
    /// The user's own cache directory.
    Home,
    /// `TMPDIR`, or one of [`TEMPORARY`].
    Temporary,
    /// The working directory: the container's own, the last resort.
    Container,
}

impl PlaceKind {
    /// Whether the place itself may be made.
    pub(super) const fn may_be_created(self) -> bool {
        matches!(self, Self::Chosen | Self::Home)
    }

    /// A word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Chosen => "chosen",
            Self::User => "user",
            Self::Local => "local",
            Self::Home => "home",
            Self::Temporary => "temporary",
            Self::Container => "container",
        }
    }
}

/// A directory in which `cpack-<uid>` may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub path: PathBuf,
    /// What kind it is.
    pub kind: PlaceKind,
}

/// Where Python's `tempfile` looks for a temporary directory that no variable names (`_candidate_tempdir_list`). The
/// working directory is its last, as it is here.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/usr/tmp"];

/// The places that the environment variables name, best first, each once. Touches no file except to see whether the named
/// temporary directories exist.
pub fn places(from: &Places, working_directory: Option<&Path>) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    let mut add = |path: PathBuf, kind: PlaceKind| {
        let path = match working_directory {
            Some(directory) if kind == PlaceKind::Chosen => directory.join(path),
            _ => path,
        };
        let usable = is_place(&path) || (kind == PlaceKind::Chosen && path.is_absolute());
        if usable && !found.iter().any(|p| p.path == path) {
            found.push(Place { path, kind });
        }
    };
    from.cache_dir.iter().for_each(|path| add(path.clone(), PlaceKind::Chosen));
    from.local_user_dirs.iter().for_each(|path| add(path.clone(), PlaceKind::User));
    from.local_dirs.iter().filter_map(|path| above_appcache(path)).for_each(|path| add(path, PlaceKind::User));
    from.spark_local_dirs.iter().for_each(|path| add(path.clone(), PlaceKind::Local));
    // A start that sets XDG_CACHE_HOME sets it for programs, not for the starts inside it.
    match (from.xdg_cache_home.as_ref().filter(|path| !is_given(path)), &from.home) {
        (Some(cache), _) => add(cache.clone(), PlaceKind::Home),
        (None, Some(home)) => add(home.join(".cache"), PlaceKind::Home),
        (None, None) => {}
    }
    let named = from.temporary.iter().find(|path| is_place(path) && path.is_dir());
    // Without any variable /tmp is as good as one that is named.
    let common = if from.temporary.is_empty() { Some(Path::new(TEMPORARY[0])) } else { None };
    named.map(PathBuf::as_path).or(common).into_iter().for_each(|path| add(path.into(), PlaceKind::Temporary));
    from.local_dirs.iter().for_each(|path| add(path.clone(), PlaceKind::Local));
    if named.is_none() {
        TEMPORARY.iter().for_each(|path| add(path.into(), PlaceKind::Temporary));
    }
    working_directory.into_iter().for_each(|path| add(path.into(), PlaceKind::Container));
    found
}

/// The name of this user's cache in a place.
pub(super) fn directory_name() -> String {
    format!("cpack-{}", nix::unistd::geteuid())
}

/// The directory of a cache that a start may set `XDG_CACHE_HOME` to.
pub(super) const USER: &str = "user";

/// Whether a start set `XDG_CACHE_HOME` to this directory.
fn is_given(path: &Path) -> bool {
    path.ends_with(Path::new(&directory_name()).join(USER))
}

/// Whether a path that was not chosen can name a place: `/dev/shm` is memory, and relative paths change their meaning.
fn is_place(path: &Path) -> bool {
    path.is_absolute() && !path.starts_with("/dev")
}

/// `…/usercache/USER` of YARN's `…/usercache/USER/appcache/APPLICATION`.
fn above_appcache(path: &Path) -> Option<PathBuf> {
    let at = path.components().position(|c| c == Component::Normal("appcache".as_ref()))?;
    Some(path.components().take(at).collect())
}

/// Why environments cannot run from a place, or should not be built there; `None` if they can.
pub fn unusable(place: &Place) -> Option<String> {
    let existing = place.path.ancestors().find(|path| path.exists())?;
    let flags = statvfs(existing).ok()?.flags();
    if flags.contains(FsFlags::ST_NOEXEC) {
        return Some("its file system is mounted noexec".into());
    }
    if flags.contains(FsFlags::ST_RDONLY) {
        return Some("its file system is mounted read-only".into());
    }
    let anything_serves = matches!(place.kind, PlaceKind::Chosen | PlaceKind::Container);
    if !anything_serves && is_network(existing) {
        return Some("it is on a network file system: set CPACK_CACHE_DIR to use it nevertheless".into());
    }
    None
}

/// Says which directory above a place another user owns or may write to: that user could replace the cache. `None` if there
/// is none.
///
/// A place that was chosen, or that a framework gave, is not checked (all containers of a pod may write to Kubernetes'
/// volumes). Homes are often open to the user's own group.
pub(super) fn unguarded(place: &Place) -> Option<String> {
    let open_to = match place.kind {
        PlaceKind::Temporary => 0o022,
        PlaceKind::Home => 0o002,
        PlaceKind::Chosen | PlaceKind::User | PlaceKind::Local | PlaceKind::Container => return None,
    };
    let own = nix::unistd::geteuid().as_raw();
    let real = place.path.canonicalize().ok()?;
    real.ancestors().find_map(|path| {
        let metadata = path.metadata().ok()?;
        let (owner, mode) = (metadata.uid(), metadata.mode());
        if owner != own && owner != 0 && !is_unmapped(owner) {
            return Some(format!("is below {}, which belongs to uid {owner}: it is not used", path.display()));
        }
        let open = mode & open_to != 0 && mode & STICKY == 0;
        open.then(|| format!("is below {}, which others may write to: it is not used", path.display()))
    })
}

/// In a directory with this bit only owners may rename.
const STICKY: u32 = 0o1000;

/// Whether a user id is the one that stands for all that a user namespace does not know, as root outside of it.
fn is_unmapped(uid: u32) -> bool {
    const OVERFLOW: u32 = 65534;
    let maps_all = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    uid == OVERFLOW && !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(maps_all)
}

/// `f_type` of network file systems (linux/magic.h and their own sources): locks lie there, and files are slow.
const NETWORK: &[u32] = &[
    0x6969,      // NFS
    0x517b,      // SMB
    0xfe53_4d42, // SMB2
    0xff53_4d42, // CIFS
    0x6573_5546, // FUSE
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x0102_1997, // 9p
    0x5346_414f, // AFS
    0x1983_0326, // BeeGFS
    0x7375_7245, // Coda
    0xaad7_aaea, // PanFS
];

/// Whether `path` is on a file system that other nodes may have mounted, too.
pub(super) fn is_network(path: &Path) -> bool {
    // f_type is a signed word on some architectures: its low 32 bits are what the constants are.
    statfs(path).is_ok_and(|stat| NETWORK.contains(&(stat.filesystem_type().0 as u32)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_outlive_the_container_come_first() {
        let from = Places {
            cache_dir: Some("relative".into()),
            local_user_dirs: vec!["/d1/usercache/u".into()],
            local_dirs: vec!["/d1/usercache/u/appcache/a".into(), "/d2/usercache/u/appcache/a".into()],
            spark_local_dirs: vec!["/data/spark".into()],
            xdg_cache_home: None,
            home: Some("/home/u".into()),
            temporary: Vec::new(),
        };
        let found = places(&from, Some(Path::new("/container")));
        let paths: Vec<_> = found.iter().map(|p| p.path.to_str().expect("UTF-8")).collect();
        let expected = [
            "/container/relative",
            "/d1/usercache/u",
            "/d2/usercache/u",
            "/data/spark",
            "/home/u/.cache",
            "/tmp",
            "/d1/usercache/u/appcache/a",
            "/d2/usercache/u/appcache/a",
            "/var/tmp",
            "/usr/tmp",
            "/container",
        ];
        assert_eq!(paths, expected);
        assert_eq!(found[0].kind, PlaceKind::Chosen);
    }

    #[test]
    fn places_fall_back_to_the_list_of_python_where_tmpdir_is_stale() {
        let directory = tempfile::tempdir().expect("a directory");
        let real = directory.path().to_owned();
        let fallback: Vec<PathBuf> = TEMPORARY.iter().map(PathBuf::from).collect();
        let stale = real.join("absent");
        for (named, expected) in [
            (vec![real.clone()], vec![real.clone()]),
            (vec![stale.clone()], fallback.clone()),
            (vec![stale.clone(), real.clone()], vec![real.clone()]),
            (vec!["relative".into()], fallback.clone()),
            (vec!["/dev/shm".into()], fallback.clone()),
            (Vec::new(), fallback),
        ] {
            let from = Places { temporary: named.clone(), home: Some("/".into()), ..Places::default() };
            let found: Vec<PathBuf> = places(&from, Some(Path::new("/c"))).into_iter().map(|p| p.path).collect();
            let expected = [vec!["/.cache".into()], expected, vec!["/c".into()]].concat();
            assert_eq!(found, expected, "{named:?}");
        }
    }

    #[test]
    fn memory_and_relative_paths_are_left_out() {
        let from = Places {
            temporary: vec!["/dev/shm/x".into()],
            home: Some("home".into()),
            spark_local_dirs: vec!["here".into()],
            ..Places::default()
        };
        let fallback: Vec<_> = places(&from, None).into_iter().map(|place| place.path).collect();
        assert_eq!(fallback, TEMPORARY.map(PathBuf::from));
        let chosen = Places { cache_dir: Some("/dev/shm/x".into()), ..Places::default() };
        assert_eq!(places(&chosen, None)[0].path, Path::new("/dev/shm/x"));
    }

    #[test]
    fn places_below_directories_that_others_may_write_to_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let parent = directory.path().join("parent");
        std::fs::create_dir_all(parent.join("place")).expect("creates");
        for (mode, kind, refused) in [
            (0o755, PlaceKind::Temporary, false),
            (0o1777, PlaceKind::Temporary, false),
            (0o777, PlaceKind::Temporary, true),
            (0o775, PlaceKind::Temporary, true),
            (0o775, PlaceKind::Home, false),
            (0o777, PlaceKind::Home, true),
            (0o777, PlaceKind::Local, false),
            (0o777, PlaceKind::Chosen, false),
        ] {
            std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(mode)).expect("chmod");
            let found = unguarded(&Place { path: parent.join("place"), kind });
            assert_eq!(found.is_some(), refused, "{mode:o} {kind:?}: {found:?}");
        }
    }

    #[test]
    fn ordinary_directory_is_usable() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().join("not/yet"), kind: PlaceKind::Temporary };
        assert_eq!(unusable(&place), None);
    }
}
