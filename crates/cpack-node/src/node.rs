//! All caches of a node: looking in each of them, building in the first that can take an environment, making room.
//!
//! A start of a job and a start of a PEX take the same three steps; they differ in what they look for and what they build.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use cpack_format::manifest::Layer;
use cpack_format::message::with_causes;

use crate::building::BuildError;
use crate::cache::{
    BootId, Cache, Cleaning, Environment, LayerState, Lookup, Place, PlaceError, PlaceKind, Places, RECENT, Verdict,
    clean, free_at, places, unusable,
};
use crate::timing::{Phase, Timing};

/// How long a start may clean up before Python runs.
const CLEANING_TIME: Duration = Duration::from_secs(1);

/// How long a start may clean up if it cannot go on without.
const ROOM_TIME: Duration = Duration::from_secs(30);

/// [`Node::make_room`] spares layers that were used this recently: this start, or one beside it, has just built them.
const JUST_BUILT: Duration = Duration::from_secs(120);

/// Why this start does not build in a place.
#[derive(Debug)]
struct Refusal {
    kind: PlaceKind,
    reason: String,
}

impl Refusal {
    fn new(place: &Place, reason: String) -> Self {
        Self { kind: place.kind, reason }
    }
}

/// The places of a process, best first.
#[derive(Debug)]
pub struct Node {
    /// Directories in which a cache may be.
    pub places: Vec<Place>,
    /// The current boot of the machine.
    pub boot: BootId,
    /// A cache of more bytes is cleaned up.
    limit: u64,
    /// So is one whose disk has fewer free bytes, if the user set this.
    reserve: Option<u64>,
}

impl Node {
    /// The places that `from` names. Caches are cleaned up above `limit` bytes, or if less than `reserve` is free. Touches no
    /// file.
    pub fn new(from: &Places, limit: u64, reserve: Option<u64>) -> Self {
        let working_directory = std::env::current_dir().ok();
        Self { places: places(from, working_directory.as_deref()), boot: BootId::current(), limit, reserve }
    }

    /// The caches that exist and may be used.
    pub fn caches(&self) -> impl Iterator<Item = Cache> {
        self.places.iter().filter_map(|place| Cache::open(place, &self.boot).ok())
    }

    /// The first environment with one of `keys` that is ready in a cache. Creates nothing, and locks only its lease.
    pub fn look(&self, keys: impl IntoIterator<Item = String>) -> Option<(Cache, String, Environment)> {
        let mut caches: Vec<Cache> = self.caches().collect();
        keys.into_iter().find_map(|key| {
            let (at, environment) =
                caches.iter().enumerate().find_map(|(at, cache)| Some((at, find_in(cache, &key, &caches)?)))?;
            Some((caches.swap_remove(at), key, environment))
        })
    }

    /// The same of the environment that `key` names in each cache.
    pub fn look_by(&self, key: impl Fn(&Cache) -> String) -> Option<(Cache, String, Environment)> {
        let mut caches: Vec<Cache> = self.caches().collect();
        let keys: Vec<String> = caches.iter().map(key).collect();
        let (at, key, environment) = caches.iter().zip(keys).enumerate().find_map(|(at, (cache, key))| {
            let environment = find_in(cache, &key, &caches)?;
            Some((at, key, environment))
        })?;
        Some((caches.swap_remove(at), key, environment))
    }

    /// The caches of the places that can be written to, each made if it is missing.
    pub fn usable_caches(&self) -> impl Iterator<Item = Cache> {
        let usable = self.places.iter().filter(|place| unusable(place).is_none());
        usable.filter_map(|place| Cache::create(place, &self.boot).ok())
    }

    /// Whether any cache has this note of the environment `key` in `cache`.
    pub fn is_noted(&self, cache: &Cache, key: &str, verdict: Verdict) -> bool {
        self.caches().any(|other| other.is_noted(key, cache, verdict))
    }

    /// Notes the outcome of checking an environment in `cache`, which came with an image. Prefers a cache that other
    /// containers share to the image itself. Returns whether it was noted.
    pub fn note_checked(&self, cache: &Cache, key: &str, verdict: Verdict) -> bool {
        let note = |other: Cache| other.note_checked(key, cache, verdict).is_ok();
        self.usable_caches().filter(|other| !other.is_of_image()).any(note)
            || (verdict == Verdict::Whole && cache.trust_environment(key).is_ok())
            || self.usable_caches().any(note)
    }

    /// The places in which `layers` can be built, best first.
    pub fn attempts<'a>(&'a self, layers: &'a [&'a Layer]) -> Attempts<'a> {
        let mut attempts = Attempts {
            node: self,
            layers,
            ranked: VecDeque::new(),
            current: None,
            refusals: Vec::new(),
            failure: None,
            made_room: false,
        };
        attempts.rank();
        attempts
    }

    /// Cleans up `cache` after the environment `key` was built in it, which stays.
    pub fn clean(&self, cache: &Cache, key: &str, timing: &mut Timing) {
        let (limit, reserve) = (self.limit, self.reserve);
        let cleaning = Cleaning { limit, recent: RECENT, time: CLEANING_TIME, keep: Some(key), reserve };
        // A later start cleans up what is left.
        let _ = clean(cache, &cleaning);
        timing.mark(Phase::Clean);
    }

    /// Removes everything unused from all caches, since no disk has room. Slow, but else the start fails. Returns whether
    /// there is more room now.
    fn make_room(&self, timing: &mut Timing) -> bool {
        let cleaning = Cleaning { limit: 0, recent: JUST_BUILT, time: ROOM_TIME, keep: None, reserve: None };
        let bytes: u64 =
            self.caches().filter_map(|cache| clean(&cache, &cleaning).ok()).map(|cleaned| cleaned.bytes).sum();
        timing.mark(Phase::Clean);
        bytes > 0
    }
}

/// One pass over the places of a node, to build in the first that can take the environment.
///
/// The caller takes a cache ([`Attempts::next_cache`]), builds in it, and reports an error ([`Attempts::failed`]) before it
/// takes the next. If all disks are full, everything unused is removed from them, once, and the pass starts again.
#[derive(Debug)]
pub struct Attempts<'a> {
    node: &'a Node,
    layers: &'a [&'a Layer],
    ranked: VecDeque<&'a Place>,
    current: Option<&'a Place>,
    refusals: Vec<Refusal>,
    failure: Option<BuildError>,
    made_room: bool,
}

impl<'a> Attempts<'a> {
    /// The next cache to build in, created if it is missing. Fails if there is none left.
    pub fn next_cache(&mut self, timing: &mut Timing) -> Result<Cache, BuildError> {
        loop {
            while let Some(place) = self.ranked.pop_front() {
                match Cache::create(place, &self.node.boot) {
                    Ok(cache) => {
                        self.current = Some(place);
                        return Ok(cache);
                    }
                    Err(error) => self.refusals.push(Refusal::new(place, with_causes(&error))),
                }
            }
            let is_full = self.failure.as_ref().is_some_and(BuildError::is_full);
            if self.made_room || !is_full || !self.node.make_room(timing) {
                let reasons: Vec<String> = self.refusals.drain(..).map(|refusal| refusal.reason).collect();
                return Err(self.failure.take().unwrap_or_else(|| BuildError::NoPlace(reasons.join("; "))));
            }
            self.made_room = true;
            self.refusals.clear();
            self.rank();
        }
    }

    /// Notes why building in the last cache failed. Returns the error if building in another place would fail as well.
    pub fn failed(&mut self, error: BuildError) -> Result<(), BuildError> {
        match self.current.take() {
            Some(place) if error.is_of_this_place() => {
                self.refusals.push(Refusal::new(place, with_causes(&error)));
                self.failure = Some(error);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Tells the user why the last cache is not in the place that `CPACK_CACHE_DIR` names: a typing error, or a full disk.
    pub fn not_as_chosen(&self) -> Option<String> {
        let used = self.current.filter(|place| place.kind != PlaceKind::Chosen);
        let refusal = self.refusals.iter().rev().find(|refusal| refusal.kind == PlaceKind::Chosen);
        used.and(refusal).map(|refusal| format!("CPACK_CACHE_DIR is not used: {}", refusal.reason))
    }

    /// Orders the places: the chosen one first, then those that hold most of the layers, then in their own order; places
    /// without enough space come last.
    fn rank(&mut self) {
        let total: u64 = self.layers.iter().map(|layer| layer.archive.unpacked).sum();
        let mut ranked = Vec::new();
        for place in &self.node.places {
            if let Some(reason) = unusable(place) {
                self.refusals.push(Refusal::new(place, format!("{}: {reason}", place.path.display())));
                continue;
            }
            let there = match Cache::open(place, &self.node.boot) {
                Ok(cache) => size_there(&cache, self.layers),
                Err(PlaceError::Io { .. }) => 0,
                Err(error) => {
                    self.refusals.push(Refusal::new(place, with_causes(&error)));
                    continue;
                }
            };
            let (free, needed) = (free_at(&place.path), total.saturating_sub(there));
            let lacks_space = free < needed;
            if lacks_space && place.kind == PlaceKind::Chosen {
                let (path, free, needed) = (place.path.display(), free >> 20, needed.div_ceil(1 << 20));
                let reason = format!("{path} has {free} MiB free, and the environment takes {needed} MiB");
                self.refusals.push(Refusal::new(place, reason));
            }
            ranked.push((lacks_space, place.kind != PlaceKind::Chosen, Reverse(there), place));
        }
        ranked.sort_by_key(|(lacks_space, other, there, _)| (*lacks_space, *other, *there));
        self.ranked = ranked.into_iter().map(|(.., place)| place).collect();
    }
}

/// Takes a lease on the environment `key` in `cache` if it may be used. For a cache that came with an image this depends on
/// the notes in `caches`.
fn find_in(cache: &Cache, key: &str, caches: &[Cache]) -> Option<Environment> {
    let is_noted = |verdict| caches.iter().any(|other| other.is_noted(key, cache, verdict));
    match cache.find_environment(key) {
        Lookup::Ready(_) if cache.is_read_only() && is_noted(Verdict::Damaged) => None,
        Lookup::Ready(environment) => Some(environment),
        Lookup::Stale if cache.is_of_image() && is_noted(Verdict::Whole) && !is_noted(Verdict::Damaged) => {
            cache.lease_environment(key)
        }
        Lookup::Stale | Lookup::Missing => None,
    }
}

/// Bytes of those `wanted` layers that are in a cache; at least 1 for each.
fn size_there(cache: &Cache, wanted: &[&Layer]) -> u64 {
    let there = wanted.iter().filter(|layer| cache.layer_state(**layer) != LayerState::Missing);
    there.map(|layer| layer.archive.unpacked.max(1)).sum()
}
