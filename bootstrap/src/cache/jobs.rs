//! Job prefixes in the node cache: what Python starts from where a job has overlays.
//!
//! ```text
//! jobs/<key>-<digest>/bin/python …      its own directory: interpreter, scripts of the environment and of the overlays
//! jobs/<key>-<digest>/lib …             links to what the environment has of that name
//! jobs/<key>-<digest>/pyvenv.cfg        makes it the `sys.prefix` of every child
//! jobs/<key>-<digest>/.cpack/overlays   directories of the overlays, relative to the cache, one a line, in their order
//! jobs/<key>-<digest>/.cpack/lease      as that of an environment
//! ```
//!
//! The name says all that it is made of, so that a start finds it with the few system calls that find an environment. It
//! holds a lease on the job prefix beside those on the environment and the overlays. [`mod@super::clean`] removes a job prefix
//! whose environment or overlay is gone, and takes its lease for that, as it does with an environment: a start first
//! leases what the job prefix leads to, then the job prefix, so that one that it got is whole.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cpack_artifact::Digest;
use cpack_artifact::fault::point;

use super::commit::{self, Published};
use super::environments::{RECORDS, lease_path, write_lease};
use super::reboot::Mark;
use super::{Cache, Found, JOBS, LAYERS};

/// The list of overlays, relative to a prefix of Python. What reads it there is the hook of [`crate::environment`].
pub(crate) const OVERLAYS: &str = ".cpack/overlays";

/// Changes when job prefixes are made in another way: those of an older release are not used then.
const FORMAT: &str = "cluster-pack job prefix 1";

/// Hexadecimal digits that tell the job prefixes of one environment apart.
const DIGITS: usize = 32;

impl Cache {
    /// The name of the job prefix of the environment called `key` with these overlays.
    ///
    /// The path of the cache is part of it: with an interpreter that a layer ships, `pyvenv.cfg` holds it.
    pub fn job_name(&self, key: &str, overlays: &[Digest]) -> String {
        let mut text = format!("{FORMAT}\n{}", list(overlays)).into_bytes();
        text.extend_from_slice(self.root().as_os_str().as_bytes());
        let digest = Digest::of(&text).to_hex();
        format!("{key}-{}", digest.get(..DIGITS).unwrap_or(&digest))
    }

    /// Where the job prefix called `name` is, or would be.
    pub fn job_path(&self, name: &str) -> PathBuf {
        self.directory(JOBS).join(name)
    }

    /// Looks for a job prefix, in a fixed number of system calls.
    pub fn find_job(&self, name: &str) -> Found {
        self.find_prefix(self.job_path(name))
    }

    /// The names of the job prefixes that are there.
    pub fn jobs(&self) -> io::Result<Vec<String>> {
        let entries = self.list(JOBS)?;
        Ok(entries.into_iter().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    /// Publishes a staged job prefix.
    pub fn publish_job(&self, staged: &Path, name: &str) -> io::Result<Published> {
        let place = self.job_path(name);
        let published = match commit::publish(staged, &place) {
            // A cache of an older release has no directory for them.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_jobs()?;
                commit::publish(staged, &place)
            }
            result => result,
        }?;
        point("job.renamed")?;
        if published == Published::Ours {
            close(&place)?;
        }
        Ok(published)
    }

    fn make_jobs(&self) -> io::Result<()> {
        match fs::create_dir(self.directory(JOBS)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// Puts a staged job prefix in the place of one that is not to be used; that one is at `staged` afterwards.
    pub fn replace_job(&self, staged: &Path, name: &str) -> io::Result<()> {
        let place = self.job_path(name);
        // Only a directory that may be written to can be moved to another parent.
        match fs::set_permissions(&place, Permissions::from_mode(0o755)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => commit::exchange(staged, &place)?,
        }
        point("job.exchanged")?;
        close(&place)
    }

    /// Marks a job prefix that was synced to disk.
    pub fn mark_job_durable(&self, name: &str) -> io::Result<()> {
        Mark::Durable.overwrite(&lease_path(&self.job_path(name)))
    }

    /// The overlays of a job prefix; `None` if its list is gone or damaged.
    pub(crate) fn overlays_of(&self, name: &str) -> Option<Vec<Digest>> {
        let text = fs::read_to_string(self.job_path(name).join(OVERLAYS)).ok()?;
        let digest = |line: &str| line.strip_prefix(LAYERS)?.strip_prefix('/')?.split('/').next()?.parse().ok();
        let overlays: Vec<Digest> = text.lines().map(digest).collect::<Option<_>>()?;
        let key = environment_of(name)?;
        (self.job_name(key, &overlays) == name).then_some(overlays)
    }
}

/// The key of the environment that a job prefix called `name` is made of.
pub(crate) fn environment_of(name: &str) -> Option<&str> {
    name.rsplit_once('-').map(|(key, _)| key)
}

/// Writes what tells Python in `prefix` which overlays there are. The directory of its records is made if there is none.
pub(crate) fn write_overlays(prefix: &Path, overlays: &[Digest]) -> io::Result<()> {
    fs::create_dir_all(prefix.join(RECORDS))?;
    fs::write(prefix.join(OVERLAYS), list(overlays))
}

impl Cache {
    /// Writes the records of a job prefix that is being staged.
    pub(crate) fn write_job_records(&self, staged: &Path, overlays: &[Digest]) -> io::Result<()> {
        write_overlays(staged, overlays)?;
        write_lease(staged, self)
    }
}

/// Directories of overlays, relative to the cache, two levels above every prefix: hexadecimal digits alone, which need no
/// encoding and no quoting.
fn list(overlays: &[Digest]) -> String {
    overlays.iter().map(|content| format!("{LAYERS}/{content}/files\n")).collect()
}

/// Takes the permission to write from the top directory, which had to be writable to be renamed.
fn close(place: &Path) -> io::Result<()> {
    fs::set_permissions(place, Permissions::from_mode(0o555))?;
    point("job.closed")
}

#[cfg(test)]
mod tests {
    use super::super::{BootId, Kind, Place};
    use super::*;

    #[test]
    fn the_name_of_a_job_prefix_tells_its_environment_and_its_overlays() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: Kind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")];
        let name = cache.job_name("e1-0a", &[a, b]);
        assert_eq!(environment_of(&name), Some("e1-0a"));
        assert_ne!(name, cache.job_name("e1-0a", &[b, a]), "the order is that of the path");
        assert_ne!(name, cache.job_name("e1-0b", &[a, b]));
        let prefix = cache.job_path(&name);
        cache.write_job_records(&prefix, &[a, b]).expect("writes");
        assert_eq!(cache.overlays_of(&name), Some(vec![a, b]));
        fs::write(prefix.join(OVERLAYS), list(&[b])).expect("writes");
        assert_eq!(cache.overlays_of(&name), None, "the list is not the one that the name stands for");
    }

    #[test]
    fn a_cache_of_an_older_release_gets_a_directory_for_job_prefixes() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place { path: directory.path().into(), kind: Kind::Temporary };
        let cache = Cache::create(&place, &BootId::new("b")).expect("a cache");
        fs::remove_dir(cache.directory(JOBS)).expect("removes");
        assert_eq!(cache.jobs().expect("lists"), [""; 0]);
        let staging = cache.staging().expect("staging");
        for expected in [Published::Ours, Published::Theirs] {
            let staged = staging.subdirectory(&format!("{expected:?}")).expect("creates");
            cache.write_job_records(&staged, &[]).expect("writes");
            assert_eq!(cache.publish_job(&staged, "e-1").expect("publishes"), expected);
        }
        assert_eq!(cache.jobs().expect("lists"), ["e-1"]);
    }
}
