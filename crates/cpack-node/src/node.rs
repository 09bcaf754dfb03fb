//! The node's caches taken together: looking in all of them, building in the first that can take it, making room.
//!
//! Jobs and PEX files come to an environment by the same three steps, which only differ in what is looked for and what is
//! built.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use cpack_format::manifest::Layer;
use cpack_format::message::with_causes;

use crate::building::BuildError;
use crate::cache::{
    BootId, Cache, Cleaning, Environment, Found, Kind, LayerState, Place, PlaceError, Places, RECENT, clean, free_at,
    places, unusable,
};
use crate::timing::{Phase, Timing};

/// How long a start may clean up before Python runs.
const CLEANING_TIME: Duration = Duration::from_secs(1);

/// How long it may clean up where it cannot go on without.
const ROOM_TIME: Duration = Duration::from_secs(30);

/// Layers that this start, or one beside it, built a moment ago are not what is to go.
const JUST_BUILT: Duration = Duration::from_secs(120);

/// Why a place is not built in.
#[derive(Debug)]
struct Refusal {
    kind: Kind,
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
    /// Where caches may be, whether there is one or not.
    pub places: Vec<Place>,
    /// Since when the machine runs.
    pub boot: BootId,
    /// Above how many bytes a cache is cleaned up.
    limit: u64,
    /// Below how many free bytes of its disk, where people said so.
    reserve: Option<u64>,
}

impl Node {
    /// The node's places as `from` names them; caches are cleaned up above `limit` bytes, or where less than `reserve` is
    /// free. Nothing is looked at.
    pub fn new(from: &Places, limit: u64, reserve: Option<u64>) -> Self {
        let working_directory = std::env::current_dir().ok();
        Self { places: places(from, working_directory.as_deref()), boot: BootId::current(), limit, reserve }
    }

    /// The caches that there are.
    pub fn caches(&self) -> impl Iterator<Item = Cache> {
        self.places.iter().filter_map(|place| Cache::open(place, &self.boot).ok())
    }

    /// The first environment of those names that is in a cache. Nothing is created or locked but its lease.
    pub fn look(&self, keys: impl IntoIterator<Item = String>) -> Option<(Cache, String, Environment)> {
        let mut caches: Vec<Cache> = self.caches().collect();
        keys.into_iter().find_map(|key| {
            let (at, environment) =
                caches.iter().enumerate().find_map(|(at, cache)| match cache.find_environment(&key) {
                    Found::Ready(environment) => Some((at, environment)),
                    Found::Stale | Found::Missing => None,
                })?;
            Some((caches.swap_remove(at), key, environment))
        })
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

    /// Cleans up the cache that something was built in, but for the environment `key`.
    pub fn clean(&self, cache: &Cache, key: &str, timing: &mut Timing) {
        let (limit, reserve) = (self.limit, self.reserve);
        let cleaning = Cleaning { limit, recent: RECENT, time: CLEANING_TIME, keep: Some(key), reserve };
        // Nobody waits for it to succeed.
        let _ = clean(cache, &cleaning);
        timing.mark(Phase::Clean);
    }

    /// Removes what nobody uses from all caches, since no disk has room: slow, and better than not to start.
    fn make_room(&self, timing: &mut Timing) -> bool {
        let cleaning = Cleaning { limit: 0, recent: JUST_BUILT, time: ROOM_TIME, keep: None, reserve: None };
        let bytes: u64 =
            self.caches().filter_map(|cache| clean(&cache, &cleaning).ok()).map(|cleaned| cleaned.bytes).sum();
        timing.mark(Phase::Clean);
        bytes > 0
    }
}

/// One pass over the places of a node, to build in the first that can take it.
///
/// The caller takes a cache ([`Attempts::next_cache`]), builds in it, and either is done or says why not
/// ([`Attempts::failed`]). If all disks are full, what nobody uses is removed from them, once, and the pass starts again.
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
    /// The next cache to build in, created if it is missing. An error: there is none left.
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

    /// Notes why nothing could be built in the cache that was taken last. An error that no other place can mend comes back.
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

    /// Why the chosen place (`CPACK_CACHE_DIR`) is not the one that was taken last, for people: it may be a typing error, or
    /// a full disk.
    pub fn not_as_chosen(&self) -> Option<String> {
        let used = self.current.filter(|place| place.kind != Kind::Chosen);
        let refusal = self.refusals.iter().rev().find(|refusal| refusal.kind == Kind::Chosen);
        used.and(refusal).map(|refusal| format!("CPACK_CACHE_DIR is not used: {}", refusal.reason))
    }

    /// Orders the places: the chosen one first, then where most of the layers are already, then in their own order; those
    /// without enough space last.
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
            if lacks_space && place.kind == Kind::Chosen {
                let (path, free, needed) = (place.path.display(), free >> 20, needed.div_ceil(1 << 20));
                let reason = format!("{path} has {free} MiB free, and the environment takes {needed} MiB");
                self.refusals.push(Refusal::new(place, reason));
            }
            ranked.push((lacks_space, place.kind != Kind::Chosen, Reverse(there), place));
        }
        ranked.sort_by_key(|(lacks_space, other, there, _)| (*lacks_space, *other, *there));
        self.ranked = ranked.into_iter().map(|(.., place)| place).collect();
    }
}

/// How much of `wanted` is in a cache.
fn size_there(cache: &Cache, wanted: &[&Layer]) -> u64 {
    let there = wanted.iter().filter(|layer| cache.layer_state(&layer.content) != LayerState::Missing);
    there.map(|layer| layer.archive.unpacked.max(1)).sum()
}
