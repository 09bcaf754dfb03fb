//! Job prefixes in the node cache: what Python starts from where a job has overlays.
//!
//! ```text
//! jobs/<key>-<digest>/bin/python …      its own directory: interpreter, scripts of the environment and of the overlays
//! jobs/<key>-<digest>/lib …             links to what the environment has of that name
//! jobs/<key>-<digest>/pyvenv.cfg        makes it the `sys.prefix` of every child
//! jobs/<key>-<digest>/.cpack/overlays   directories of the overlays, relative to the cache, one a line, in their order
//! jobs/<key>-<digest>/.cpack/tree       where the environment is, if it is in another cache
//! jobs/<key>-<digest>/.cpack/lease      as that of an environment
//! ```
//!
//! The name says all that it is made of, so that a start finds it with the few system calls that find an environment. It
//! holds a lease on the job prefix beside those on the environment and the overlays. [`mod@super::clean`] removes a job prefix
//! whose environment or overlay is gone, and takes its lease for that, as it does with an environment: a start first
//! leases what the job prefix leads to, then the job prefix, so that one that it got is whole.
//!
//! The environment and overlays of a cache on a read-only file system get their job prefix in another cache. Paths into the
//! first one are absolute there.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use cpack_format::Digest;

use super::boot_id::Mark;
use super::commit::Committed;
use super::environments::{Lookup, commit_prefix, replace_prefix};
use super::own_directory::{Cache, JOBS, make_directory};
use super::records::{RECORDS, lease_path, write_lease};

/// The list of overlays, relative to a prefix of Python. What reads it there is the hook of [`crate::tree`].
const OVERLAYS: &str = ".cpack/overlays";

/// Where the environment is, if it is in another cache.
const TREE: &str = ".cpack/tree";

/// Changes when job prefixes are made in another way: those of an older release are not used then.
const FORMAT: &str = "cluster-pack job prefix 1";

/// Hexadecimal digits that tell the job prefixes of one environment apart.
const DIGITS: usize = 32;

impl Cache {
    /// The name of the job prefix of the environment in `tree` with the overlays in these directories.
    ///
    /// The path of the tree is part of it: with an interpreter that a layer ships, `pyvenv.cfg` holds it.
    pub fn job_name(&self, tree: &Path, overlays: &[PathBuf]) -> String {
        let mut text = format!("{FORMAT}\n").into_bytes();
        text.extend(self.list_of(overlays));
        text.extend_from_slice(tree.as_os_str().as_bytes());
        let digest = Digest::of(&text).to_hex();
        let key = tree.file_name().unwrap_or_default().to_string_lossy();
        format!("{key}-{}", digest.get(..DIGITS).unwrap_or(&digest))
    }

    /// What leads from a job prefix of this cache to the environment in `tree`.
    pub(crate) fn path_from_job(&self, tree: &Path) -> PathBuf {
        match tree.strip_prefix(self.root()) {
            Ok(inside) => Path::new("../..").join(inside),
            Err(_) => tree.into(),
        }
    }

    /// Directories of overlays as a list in a prefix has them: relative to the cache, two levels above every prefix, or
    /// absolute if they are in another one.
    fn list_of(&self, overlays: &[PathBuf]) -> Vec<u8> {
        let mut list = Vec::new();
        for files in overlays {
            list.extend_from_slice(files.strip_prefix(self.root()).unwrap_or(files).as_os_str().as_bytes());
            list.push(b'\n');
        }
        list
    }

    /// Writes what tells Python in `prefix` which overlays there are. The directory of its records is made if there is none.
    pub(crate) fn write_overlays(&self, prefix: &Path, overlays: &[PathBuf]) -> io::Result<()> {
        fs::create_dir_all(prefix.join(RECORDS))?;
        fs::write(prefix.join(OVERLAYS), self.list_of(overlays))
    }

    /// Writes the records of a job prefix that is being staged.
    pub(crate) fn write_job_records(&self, staged: &Path, tree: &Path, overlays: &[PathBuf]) -> io::Result<()> {
        self.write_overlays(staged, overlays)?;
        if !tree.starts_with(self.root()) {
            fs::write(staged.join(TREE), tree.as_os_str().as_bytes())?;
        }
        write_lease(staged, self)
    }

    /// Where the job prefix called `name` is, or would be.
    pub fn job_path(&self, name: &str) -> PathBuf {
        self.directory(JOBS).join(name)
    }

    /// Looks for a job prefix, in a fixed number of system calls.
    pub fn find_job(&self, name: &str) -> Lookup {
        self.find_prefix(self.job_path(name))
    }

    /// The names of the job prefixes that are there.
    pub fn jobs(&self) -> io::Result<Vec<String>> {
        self.names(JOBS)
    }

    /// Renames a staged job prefix into its place, unless there is one.
    pub(crate) fn commit_job(&self, staged: &Path, name: &str) -> io::Result<Committed> {
        // A cache of an older release has no directory for them.
        make_directory(&self.directory(JOBS))?;
        commit_prefix(staged, &self.job_path(name), ["job.renamed", "job.closed"])
    }

    /// Puts a staged job prefix in the place of one that is not to be used; that one is at `staged` afterwards.
    pub(crate) fn replace_job(&self, staged: &Path, name: &str) -> io::Result<()> {
        replace_prefix(staged, &self.job_path(name), ["job.exchanged", "job.closed"])
    }

    /// Marks a job prefix that was synced to disk.
    pub fn mark_job_durable(&self, name: &str) -> io::Result<()> {
        Mark::Durable.overwrite(&lease_path(&self.job_path(name)))
    }

    /// The tree and the overlays that a job prefix is made of; `None` if its records are gone or damaged.
    pub(crate) fn job_parts(&self, name: &str) -> Option<(PathBuf, Vec<PathBuf>)> {
        let place = self.job_path(name);
        let list = fs::read(place.join(OVERLAYS)).ok()?;
        let lines = list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let overlays: Vec<PathBuf> = lines.map(|line| self.root().join(OsStr::from_bytes(line))).collect();
        let tree = match fs::read(place.join(TREE)) {
            Ok(tree) => OsString::from_vec(tree).into(),
            Err(_) => self.environment_path(environment_of(name)?),
        };
        (self.job_name(&tree, &overlays) == name).then_some((tree, overlays))
    }
}

/// The key of the environment that a job prefix called `name` is made of.
pub(super) fn environment_of(name: &str) -> Option<&str> {
    name.rsplit_once('-').map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::super::{BootId, Place, PlaceKind};
    use super::*;

    #[test]
    fn the_name_of_a_job_prefix_tells_its_environment_and_its_overlays() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: PlaceKind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        let [a, b] = [b"a", b"b"].map(|text| cache.layer_files(&Digest::of(text)));
        let both = [a.clone(), b.clone()];
        let tree = cache.environment_path("e1-0a");
        let name = cache.job_name(&tree, &both);
        assert_eq!(environment_of(&name), Some("e1-0a"));
        assert_ne!(name, cache.job_name(&tree, &[b.clone(), a]), "the order is that of the path");
        assert_ne!(name, cache.job_name(&cache.environment_path("e1-0b"), &both));
        let prefix = cache.job_path(&name);
        cache.write_job_records(&prefix, &tree, &both).expect("writes");
        assert_eq!(cache.job_parts(&name), Some((tree, both.to_vec())));
        fs::write(prefix.join(OVERLAYS), cache.list_of(&[b])).expect("writes");
        assert_eq!(cache.job_parts(&name), None, "the list is not the one that the name stands for");
    }

    #[test]
    fn job_prefix_may_lead_into_another_cache() {
        let [own, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        let [cache, image] = [&own, &other].map(|directory| {
            let place = Place { path: directory.path().into(), kind: PlaceKind::Temporary };
            Cache::create(&place, &BootId::new("b")).expect("a cache")
        });
        let overlays = vec![image.layer_files(&Digest::of(b"a")), cache.layer_files(&Digest::of(b"b"))];
        let tree = image.environment_path("e1-0a");
        let name = cache.job_name(&tree, &overlays);
        assert_ne!(name, cache.job_name(&cache.environment_path("e1-0a"), &overlays));
        cache.write_job_records(&cache.job_path(&name), &tree, &overlays).expect("writes");
        assert_eq!(cache.job_parts(&name), Some((tree.clone(), overlays)));
        assert_eq!(cache.path_from_job(&tree), tree);
        assert_eq!(cache.path_from_job(&cache.environment_path("e")), Path::new("../../environments/e"));
    }

    #[test]
    fn cache_of_an_older_release_gets_a_directory_for_job_prefixes() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: PlaceKind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        fs::remove_dir(cache.directory(JOBS)).expect("removes");
        assert_eq!(cache.jobs().expect("lists"), [""; 0]);
        let staging = cache.staging().expect("staging");
        for expected in [Committed::Ours, Committed::Theirs] {
            let staged = staging.subdirectory(&format!("{expected:?}")).expect("creates");
            cache.write_job_records(&staged, &cache.environment_path("e"), &[]).expect("writes");
            assert_eq!(cache.commit_job(&staged, "e-1").expect("publishes"), expected);
        }
        assert_eq!(cache.jobs().expect("lists"), ["e-1"]);
    }
}
