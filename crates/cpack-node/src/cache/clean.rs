//! Clean-up: `cpack-boot` does it itself, since no other program on the node knows what is still wanted.
//!
//! It runs after a new environment was put up, never before an extraction: ext4 takes up to 15 times longer to create
//! files while inodes were freed a short while ago. What goes: directories of builders and private copies whose owner is
//! dead; and, while the cache is over its limit or the disk nearly full, layers that no environment links and the
//! environments that were started the longest ago. What never goes: what a process has a lease on, what a live process of
//! this user maps or names, what was used in the last hour. What programs keep in `user/` goes 30 days after its last use,
//! a shared piece of an archive after a day. A job prefix goes when its environment or an overlay of it is gone.
//!
//! Environments and layers are renamed into a staging directory and unlinked there; a later clean-up takes what is left.
//!
//! **Clean-up removes no layer of which an environment is being built.** A builder makes its staging directory
//! ([`Cache::staging`]), touches the layers (`Cache::touch_layer`), links them, commits the tree, and then removes the
//! staging directory. [`clean`] lists the layers, then the staging directories, then the environments. So it sees the
//! builder, or its environment, or a layer that was touched after the clean-up began, which it keeps whatever its age. A
//! layer that is touched between that check and the rename is put back (`remove_layer`).
//!
//! **Locks that do not work**: [`flock::to_remove`] believes a lock only if it keeps a second descriptor out, and never on a
//! network file system. Elsewhere clean-up removes no environment and no layer, and a builder counts as dead after a day.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use cpack_fault::point;
use cpack_format::Digest;
use cpack_store::unique_name;
use nix::sys::statvfs::{Statvfs, statvfs};

use super::environments::move_tree;
use super::named::named_by_processes;
use super::own_directory::{Cache, ENVIRONMENTS, LAYERS, LOCKS, PIECES, PRIVATE, STAGING};
use super::places::USER;
use super::records::{layers_of, lease_path};
use super::staging::disown;
use super::{Staging, commit, flock, image, lease, pieces, remove_tree, unused};

/// A directory without a living owner is left alone this long: its owner may not have locked it yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Where locks are refused, only age tells that an owner is dead.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A layer that no environment links and that was used this recently may belong to an environment that is being built.
pub const RECENT: Duration = Duration::from_secs(3600);

/// The disk is nearly full when less than one part in this many is free.
const NEARLY_FULL: u64 = 20;

/// What a clean-up aims at.
#[derive(Debug, Clone, Copy)]
pub struct Cleaning<'a> {
    /// Bytes of layers above which unused environments go.
    pub limit: u64,
    /// Layers that no environment links, and shared pieces, stay if they were used this recently, mostly [`RECENT`];
    /// layers that recently in any case while another process builds, and if they were used since the clean-up began.
    pub recent: Duration,
    /// How long it may take.
    pub time: Duration,
    /// The environment that was just put up.
    pub keep: Option<&'a str>,
    /// Free bytes of the disk below which unused environments go, too. None: one part in [`NEARLY_FULL`] of it.
    pub reserve: Option<u64>,
}

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Environments.
    pub environments: u64,
    /// Job prefixes.
    pub jobs: u64,
    /// Layers.
    pub layers: u64,
    /// Directories of dead processes.
    pub abandoned: u64,
    /// Files that programs cached in `user/`.
    pub cached_files: u64,
    /// Bytes of the layers.
    pub bytes: u64,
    /// Environments that would have gone but are used.
    pub in_use: u64,
    /// Environments and layers that clean-up cannot remove, because they came with a container's image.
    pub fixed: u64,
}

/// Cleans up. A file that cannot be removed is no error: a later clean-up tries again.
pub fn clean(cache: &Cache, cleaning: &Cleaning<'_>) -> io::Result<Cleaned> {
    if cache.is_read_only() {
        let fixed = (cache.environments()?.len() + cache.layers()?.len()) as u64;
        return Ok(Cleaned { fixed, ..Cleaned::default() });
    }
    let deadline = Instant::now().checked_add(cleaning.time);
    let (started, recent) = (SystemTime::now(), cleaning.recent);
    let (staging, in_use, cleaned) = (cache.trash(deadline)?, None, Cleaned::default());
    let mut cleaner = Cleaner { cache, started, recent, staging, deadline, in_use, cleaned };
    cleaner.abandoned()?;
    let mut size = cleaner.size()?;
    // Environments whose layers are gone count nothing, and take their space.
    let is_over =
        |size: u64| size > cleaning.limit || cleaning.limit == 0 || is_nearly_full(cache.root(), cleaning.reserve);
    if is_over(size) {
        size = size.saturating_sub(cleaner.unlinked_layers(cleaning.keep)?);
    }
    if is_over(size) {
        for key in cleaner.least_recently_used()? {
            if !is_over(size) || cleaner.is_late() {
                break;
            }
            let is_new = cache.last_used(&key).is_some_and(|used| used >= started);
            if !is_new && cleaning.keep != Some(key.as_str()) && cleaner.remove_environment(&key)? {
                size = size.saturating_sub(cleaner.unlinked_layers(cleaning.keep)?);
            }
        }
    }
    cleaner.jobs()?;
    cleaner.locks()?;
    let (user, shared) =
        if is_over(size) { (unused::UNUSED_IN_NEED, recent) } else { (unused::UNUSED, pieces::UNUSED) };
    cleaner.cleaned.cached_files = unused::remove(&cache.directory(USER), user, deadline);
    unused::remove(&cache.directory(PIECES), shared, deadline);
    remove_tree(cleaner.staging.path(), deadline)?;
    point("clean.removed")?;
    Ok(cleaner.cleaned)
}

/// What became of a prefix that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removed {
    /// It is in the staging directory of the clean-up.
    Gone,
    /// A process uses it, so it stayed.
    InUse,
    /// Another one was in its place: it is there again.
    PutBack,
    /// It came with a container's image and stayed.
    Fixed,
}

struct Cleaner<'a> {
    cache: &'a Cache,
    started: SystemTime,
    recent: Duration,
    staging: Staging,
    deadline: Option<Instant>,
    /// What live processes name, looked up when it is first asked for.
    in_use: Option<HashSet<Vec<u8>>>,
    cleaned: Cleaned,
}

impl Cleaner<'_> {
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.cache.layers()?.iter().map(|content| self.cache.layer_size(content)).sum())
    }

    /// Removes the directories of dead builders, and private copies that no process uses.
    fn abandoned(&mut self) -> io::Result<()> {
        for (parent, lease) in [(STAGING, false), (PRIVATE, true)] {
            for entry in self.cache.list(parent)? {
                let path = entry.path();
                if path == self.staging.path() || self.is_late() {
                    continue;
                }
                // The locks keep other clean-ups out meanwhile.
                let Some(_locks) = abandoned(&path, lease) else { continue };
                point("clean.abandoned")?;
                // Out of its place first: where locks do not work its owner may live, and must not commit half of it.
                let aside = self.staging.path().join(unique_name());
                let place = match move_tree(&path, &aside) {
                    Ok(()) => aside,
                    Err(e) if image::is_immovable(&e) => path,
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                if remove_tree(&place, self.deadline)? {
                    self.cleaned.abandoned += 1;
                } else {
                    disown(&place);
                }
            }
        }
        Ok(())
    }

    /// Whether another process that lives has a staging directory.
    fn is_other_building(&self) -> io::Result<bool> {
        let paths = self.cache.list(STAGING)?.into_iter().map(|entry| entry.path());
        Ok(paths.filter(|path| path != self.staging.path()).any(|path| abandoned(&path, false).is_none()))
    }

    /// Removes files of `locks/` whose layer or environment is not in the cache: their builder was killed. A builder that
    /// holds a removed file excludes no other one, which costs work and nothing else.
    fn locks(&self) -> io::Result<()> {
        for entry in self.cache.list(LOCKS)? {
            let (path, name) = (entry.path(), entry.file_name());
            let is_there = |parent| self.cache.directory(parent).join(&name).exists();
            let is_old = lease::last_used(&path).is_some_and(|used| age(used) > RECENT);
            if is_old && !is_there(LAYERS) && !is_there(ENVIRONMENTS) && lease::exclusive(&path).is_some() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Removes layers that no environment links and that were not used lately. Returns their bytes.
    fn unlinked_layers(&mut self, keep: Option<&str>) -> io::Result<u64> {
        let layers = self.cache.layers()?;
        if self.recent < RECENT && self.is_other_building()? {
            self.recent = RECENT;
        }
        let mut linked = HashSet::new();
        for key in self.cache.environments()? {
            linked.extend(layers_of(&self.cache.environment_path(&key)).unwrap_or_default());
        }
        linked.extend(keep.and_then(|key| layers_of(&self.cache.environment_path(key)).ok()).into_iter().flatten());
        point("clean.looked")?;
        let mut bytes = 0;
        for content in layers {
            if !linked.contains(&content) && !self.is_late() {
                bytes += self.remove_layer(&content)?;
            }
        }
        Ok(bytes)
    }

    fn remove_layer(&mut self, content: &Digest) -> io::Result<u64> {
        if self.is_in_use(content.to_hex().as_bytes()) {
            return Ok(0);
        }
        let (state, size) = (self.cache.layer_state_file(content), self.cache.layer_size(content));
        let Some(_lock) = lease::exclusive(&state) else { return Ok(0) };
        let used = lease::last_used(&state);
        if used.is_some_and(|used| used >= self.started || age(used) < self.recent) {
            return Ok(0);
        }
        point("clean.unused")?;
        let aside = match self.cache.move_layer(content, &self.staging) {
            Err(e) if image::is_immovable(&e) => {
                self.cleaned.fixed += 1;
                return Ok(0);
            }
            aside => aside?,
        };
        let Some(aside) = aside else { return Ok(0) };
        if lease::last_used(&Cache::state_file(&aside)) != used {
            // If there is one again, a process that found this one gone has built it.
            let _ = commit::commit(&aside, &self.cache.layer(content));
            return Ok(0);
        }
        point("clean.layer")?;
        let _ = fs::remove_file(self.cache.lock_path(&content.to_hex()));
        self.cleaned.layers += 1;
        self.cleaned.bytes += size;
        Ok(size)
    }

    /// Environments, those first that were started the longest ago.
    fn least_recently_used(&self) -> io::Result<Vec<String>> {
        let mut keys: Vec<_> = self.cache.environments()?.into_iter().map(|k| (self.cache.last_used(&k), k)).collect();
        keys.sort_unstable();
        Ok(keys.into_iter().map(|(_, key)| key).collect())
    }

    /// Removes an environment unless it is used. Whether it did.
    fn remove_environment(&mut self, key: &str) -> io::Result<bool> {
        let place = self.cache.environment_path(key);
        let removed = self.remove_prefix(&place, key)?;
        match removed {
            Removed::Gone => {
                point("clean.environment")?;
                let _ = fs::remove_file(self.cache.lock_path(key));
                self.cleaned.environments += 1;
            }
            Removed::InUse => self.cleaned.in_use += 1,
            Removed::Fixed => self.cleaned.fixed += 1,
            Removed::PutBack => {}
        }
        Ok(removed == Removed::Gone)
    }

    /// Removes job prefixes that lead to what is gone.
    fn jobs(&mut self) -> io::Result<()> {
        for name in self.cache.jobs()? {
            let parts = self.cache.job_parts(&name);
            let is_whole = parts.is_some_and(|(tree, overlays)| tree.exists() && overlays.iter().all(|o| o.exists()));
            if !is_whole && !self.is_late() && self.remove_prefix(&self.cache.job_path(&name), &name)? == Removed::Gone
            {
                point("clean.job")?;
                self.cleaned.jobs += 1;
            }
        }
        Ok(())
    }

    /// Moves a prefix of Python, called `name`, out of its place unless it is used.
    fn remove_prefix(&mut self, place: &Path, name: &str) -> io::Result<Removed> {
        // No process can have started from a prefix without a lease file.
        let locked = lease::exclusive(&lease_path(place));
        if (locked.is_none() && lease_path(place).exists()) || self.is_in_use(name.as_bytes()) {
            return Ok(Removed::InUse);
        }
        let aside = self.staging.path().join(format!("prefix-{}", unique_name()));
        match move_tree(place, &aside) {
            Err(e) if image::is_immovable(&e) => return Ok(Removed::Fixed),
            result => result?,
        }
        if !is_same(locked.as_ref(), &lease_path(&aside)) {
            // This process stood still for long, and another put up a new one meanwhile.
            let _ = commit::commit(&aside, place);
            return Ok(Removed::PutBack);
        }
        Ok(Removed::Gone)
    }

    /// Whether a live process of this user maps or names what is called so.
    fn is_in_use(&mut self, name: &[u8]) -> bool {
        let cache = self.cache;
        self.in_use.get_or_insert_with(|| named_by_processes(cache)).contains(name)
    }
}

fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

/// Locks a directory under `staging/` or `private/` whose owner is dead; `None` if the owner may live.
///
/// A process that makes a private copy locks its directory until it holds the lease in it, so this checks the directory first,
/// then the lease.
fn abandoned(path: &Path, leased: bool) -> Option<(File, Option<File>)> {
    let directory = File::open(path).ok()?;
    let age = age(directory.metadata().and_then(|m| m.modified()).ok()?);
    let has_lease = || leased && lease_path(path).exists();
    let lock = match flock::to_remove(path) {
        Ok(lock) => (age > YOUNG || has_lease()).then_some(lock),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(_)) => (age > ABANDONED).then_some(directory),
    }?;
    let lease = if has_lease() { Some(lease::exclusive(&lease_path(path))?) } else { None };
    Some((lock, lease))
}

fn is_same(locked: Option<&File>, path: &Path) -> bool {
    let Some(locked) = locked else { return true };
    match (locked.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn is_nearly_full(path: &Path, reserve: Option<u64>) -> bool {
    let reserved = |s: &Statvfs| reserve.unwrap_or(s.blocks().saturating_mul(s.fragment_size()) / NEARLY_FULL);
    statvfs(path).is_ok_and(|s| s.blocks_available().saturating_mul(s.fragment_size()) < reserved(&s))
}

#[cfg(test)]
mod tests {
    use super::super::records::{Description, write_records};
    use super::super::{BootId, LayerState, Place, PlaceKind, Wanted, content_of, seal_directories};
    use super::*;
    use std::fs::FileTimes;

    fn cache(directory: &Path) -> Cache {
        let place = Place { path: directory.into(), kind: PlaceKind::Temporary };
        Cache::create(&place, &BootId::new("b")).expect("a cache")
    }

    fn layer(cache: &Cache, text: &str, size: u64) -> Digest {
        let staging = cache.staging().expect("staging");
        let scratch = tempfile::tempdir().expect("a directory");
        fs::write(scratch.path().join("file"), text).expect("writes");
        let content = content_of(scratch.path(), 1, &|| {}).expect("reads");
        let staged = Cache::stage_layer(&staging, Wanted::with_content(content)).expect("stages");
        fs::copy(scratch.path().join("file"), staged.files().join("file")).expect("copies");
        seal_directories(staged.files()).expect("seals");
        cache.commit_layer(&staged, size).expect("publishes");
        set_age(&cache.layer_state_file(&content), RECENT * 2);
        content
    }

    fn set_age(path: &Path, age: Duration) {
        let time = SystemTime::now() - age;
        File::open(path).and_then(|f| f.set_times(FileTimes::new().set_modified(time))).expect("sets the time");
    }

    fn environment(cache: &Cache, key: &str, layers: &[Digest], age: Duration) {
        let staging = cache.staging().expect("staging");
        let tree = staging.subdirectory("tree").expect("creates");
        fs::create_dir(tree.join("bin")).expect("creates");
        fs::write(tree.join("bin/python"), "").expect("writes");
        let description = Description {
            format: 1,
            name: String::new(),
            environment: Digest::of(b""),
            store: String::new(),
            python: String::new(),
            version: String::new(),
        };
        write_records(&tree, cache, &description, b"{}", layers).expect("writes");
        cache.commit_environment(&tree, key).expect("publishes");
        set_age(&lease_path(&cache.environment_path(key)), age);
    }

    const HOUR: Duration = Duration::from_secs(3600);

    /// On a disk with room, whatever the disk of the tests has.
    fn cleaning(limit: u64, keep: Option<&str>) -> Cleaning<'_> {
        Cleaning { limit, recent: RECENT, time: Duration::from_secs(60), keep, reserve: Some(0) }
    }

    fn run(cache: &Cache, limit: u64, keep: Option<&str>) -> Cleaned {
        clean(cache, &cleaning(limit, keep)).expect("cleans")
    }

    #[test]
    fn the_least_recently_started_go_until_the_rest_fits() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let [shared, old, new, loose] = [("s", 10), ("o", 100), ("n", 100), ("l", 5)].map(|(t, s)| layer(&cache, t, s));
        environment(&cache, "old", &[shared, old], 3 * HOUR);
        environment(&cache, "new", &[shared, new], HOUR);
        assert_eq!(run(&cache, 1000, None), Cleaned::default());
        assert_eq!(cache.environments().expect("lists").len(), 2);
        let cleaned = run(&cache, 150, None);
        assert_eq!(cleaned, Cleaned { environments: 1, layers: 2, bytes: 105, ..Cleaned::default() });
        assert_eq!(cache.environments().expect("lists"), ["new"]);
        assert_eq!(cache.layer_state(Wanted::with_content(shared)), LayerState::Ready);
        assert_eq!(
            (cache.layer_state(Wanted::with_content(old)), cache.layer_state(Wanted::with_content(loose))),
            (LayerState::Missing, LayerState::Missing)
        );
        assert_eq!(run(&cache, 0, Some("new")), Cleaned::default());
    }

    #[test]
    fn on_a_full_disk_all_that_is_unused_goes_whatever_the_limit() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let content = layer(&cache, "text", 10);
        environment(&cache, "old", &[content], 3 * HOUR);
        let cleaned = clean(&cache, &Cleaning { reserve: Some(u64::MAX), ..cleaning(1000, None) }).expect("cleans");
        assert_eq!(cleaned, Cleaned { environments: 1, layers: 1, bytes: 10, ..Cleaned::default() });
    }

    #[test]
    fn clean_up_removes_the_next_time_what_it_had_no_time_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let dead = cache.directory(STAGING).join("dead");
        fs::create_dir_all(dead.join("inside")).expect("creates");
        // As a removal that was interrupted leaves it: just changed, and without an owner.
        disown(&dead);
        let hurried = clean(&cache, &Cleaning { time: Duration::ZERO, ..cleaning(u64::MAX, None) }).expect("cleans");
        assert_eq!((hurried.abandoned, dead.exists()), (0, true));
        // Its own directory stays behind then, and has no owner either.
        assert_eq!(fs::read_dir(cache.directory(STAGING)).expect("lists").count(), 2);
        assert_eq!(run(&cache, u64::MAX, None).abandoned, 2);
        assert_eq!(fs::read_dir(cache.directory(STAGING)).expect("lists").count(), 0);
    }

    #[test]
    fn clean_up_keeps_what_is_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let used = layer(&cache, "u", 100);
        environment(&cache, "leased", &[used], HOUR);
        let overlay = layer(&cache, "overlay", 100);
        let recent = layer(&cache, "recent", 100);
        cache.touch_layer(&recent);
        let super::super::Lookup::Ready(environment) = cache.find_environment("leased") else { panic!("is there") };
        let lease = cache.lease_layer(Wanted::with_content(overlay)).expect("is there");
        set_age(&cache.layer_state_file(&overlay), RECENT * 2);
        assert_eq!(run(&cache, 0, None), Cleaned { in_use: 1, ..Cleaned::default() });
        drop((environment, lease));
        let cleaned = run(&cache, 0, None);
        assert_eq!((cleaned.environments, cleaned.layers), (1, 2));
        assert_eq!(cache.layer_state(Wanted::with_content(recent)), LayerState::Ready);
    }

    #[test]
    fn directories_of_the_dead_go_and_those_of_the_living_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let living = cache.staging().expect("staging");
        let dead = cache.directory(STAGING).join("dead");
        let young = cache.directory(STAGING).join("young");
        [&dead, &young].iter().for_each(|d| fs::create_dir(d).expect("creates"));
        set_age(&dead, HOUR);
        set_age(living.path(), HOUR);
        assert_eq!(run(&cache, u64::MAX, None).abandoned, 1);
        assert!(living.path().exists() && young.exists() && !dead.exists());
    }
}
