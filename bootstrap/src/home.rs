//! Gives programs a directory for their caches and settings if they would find none.
//!
//! Many libraries keep files for their next run below `XDG_CACHE_HOME`, or else `~/.cache`, and settings below `XDG_CONFIG_HOME`,
//! or else `~/.config`. They cannot keep them beside their modules, because environments are read-only. In many containers the
//! home cannot be written to either: YARN sets `HOME=/home/`, others `/` or a missing directory. Then numba's `cache=True` fails at
//! import, matplotlib warns and looks for all fonts again, and other libraries compute again. In such a container, and only
//! there, a start sets the variables to `user/` and `user/config` in the node cache.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use cpack_node::cache::Cache;
use nix::unistd::{AccessFlags, User, access, geteuid};

/// The variables that libraries read (XDG Base Directory Specification), what each stands for in the home, and the place below
/// `user/`.
const VARIABLES: [(&str, &str, &str); 2] = [("XDG_CACHE_HOME", ".cache", ""), ("XDG_CONFIG_HOME", ".config", "config")];

/// Sets each of the variables in `environ` unless it is set or its directory in the home can be written to: to a directory in
/// `cache`, or else in the first of `others` that can be written to.
pub(crate) fn give_cache(
    environ: &mut BTreeMap<OsString, OsString>,
    cache: &Cache,
    others: impl Iterator<Item = Cache>,
) {
    let value = |name: &str| environ.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = value("HOME").or_else(|| Some(User::from_uid(geteuid()).ok()??.dir));
    let is_missing = |(variable, place, _): &(&str, &str, &str)| {
        value(variable).is_none() && !home.as_ref().is_some_and(|home| can_be_made(&home.join(place)))
    };
    let missing: Vec<_> = VARIABLES.into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return;
    }
    let directory = cache.user_directory().ok();
    if let Some(directory) = directory.or_else(|| others.filter_map(|other| other.user_directory().ok()).next()) {
        environ.extend(missing.into_iter().map(|(name, _, below)| (name.into(), place(&directory, below).into())));
    }
}

/// The directory `below` of `directory`, without a slash at its end where `below` is empty.
fn place(directory: &Path, below: &str) -> PathBuf {
    directory.join(below).components().collect()
}

/// Whether this user may write to a directory, or make it if it is missing.
fn can_be_made(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing.is_some_and(|path| path.is_dir() && access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpack_node::cache::{BootId, Place, PlaceKind};

    #[test]
    fn variables_that_lead_nowhere_get_a_directory_in_the_cache() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).into_os_string();
        std::fs::write(path("file"), "").expect("writes");
        let place = Place { path: directory.path().into(), kind: PlaceKind::Chosen };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        let user = cache.user_directory().expect("makes");
        let (given, config) = (user.clone().into_os_string(), user.join("config").into_os_string());
        for (variables, cache_home, config_home) in [
            (vec![("HOME", path(""))], None, None),
            (vec![("HOME", path("file"))], Some(&given), Some(&config)),
            (vec![("HOME", path("file")), ("XDG_CACHE_HOME", path("x"))], Some(&path("x")), Some(&config)),
            (vec![("HOME", path("file")), ("XDG_CONFIG_HOME", path("x"))], Some(&given), Some(&path("x"))),
        ] {
            let mut environ = variables.iter().map(|(name, value)| (OsString::from(name), value.clone())).collect();
            give_cache(&mut environ, &cache, std::iter::empty());
            let found = |name: &str| environ.get(OsStr::new(name));
            assert_eq!((found("XDG_CACHE_HOME"), found("XDG_CONFIG_HOME")), (cache_home, config_home), "{variables:?}");
        }
    }

    #[test]
    fn home_counts_where_its_cache_is_there_or_can_be_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("writes");
        assert!(can_be_made(directory.path()) && can_be_made(&directory.path().join("not/yet")));
        assert!(!can_be_made(&file) && !can_be_made(&file.join("below")));
    }
}
