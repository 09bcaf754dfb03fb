//! The node's caches taken together: looking in all of them, building in the first that can take it, making room.
//!
//! Jobs ([`crate::boot`]) and PEX files ([`crate::pex`]) come to an environment by the same three steps, which only differ
//! in what is looked for and what is built.

use std::cmp::Reverse;
use std::sync::Once;
use std::time::Duration;

use cpack_artifact::manifest::Layer;

use crate::cache::{
    BootId, Cache, Cleaning, Environment, Found, Kind, LayerState, Place, PlaceError, RECENT, clean, free_at, places,
    unusable,
};
use crate::error::{BootError, one_line, with_causes};
use crate::say;
use crate::settings::Settings;
use crate::trace::{Phase, Trace};

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
    /// The places that the settings name. Nothing is looked at.
    pub fn new(settings: &Settings) -> Self {
        let working_directory = std::env::current_dir().ok();
        let places = places(&settings.places, working_directory.as_deref());
        Self { places, boot: BootId::current(), limit: settings.cache_limit, reserve: settings.cache_reserve }
    }

    /// The caches that there are.
    pub fn caches(&self) -> impl Iterator<Item = Cache> {
        self.places.iter().filter_map(|place| Cache::open(place, &self.boot).ok())
    }

    /// The first environment of those names that is in a cache. Nothing is created or locked but its lease.
    pub fn look(&self, keys: impl IntoIterator<Item = String>) -> Option<(Cache, String, Environment)> {
        let mut caches: Vec<Cache> = self.caches().collect();
        keys.into_iter().find_map(|key| {
            let find = |cache: &Cache| find_in(cache, &key, &caches);
            let (at, environment) =
                caches.iter().enumerate().find_map(|(at, cache)| find(cache).map(|found| (at, found)))?;
            Some((caches.swap_remove(at), key, environment))
        })
    }

    /// The caches that can be written to, made where there are none.
    pub(crate) fn made_caches(&self) -> impl Iterator<Item = Cache> {
        let usable = self.places.iter().filter(|place| unusable(place).is_none());
        usable.filter_map(|place| Cache::create(place, &self.boot).ok())
    }

    /// Whether a cache here notes of an environment in `cache` that it was found whole, or was not.
    pub fn is_noted(&self, cache: &Cache, key: &str, whole: bool) -> bool {
        self.caches().any(|other| other.is_noted(key, cache, whole))
    }

    /// Notes of an environment in `cache`, which came with an image, whether it was found whole: where other containers see
    /// it if it can be, else where this one does. Whether it was noted.
    pub fn note_checked(&self, cache: &Cache, key: &str, whole: bool) -> bool {
        let note = |other: Cache| other.note_checked(key, cache, whole).is_ok();
        self.made_caches().filter(|other| !other.is_of_image()).any(note)
            || (whole && cache.trust_environment(key).is_ok())
            || self.made_caches().any(note)
    }

    /// Builds in the best place that can take it, `layers` being what is needed there. Where all disks are full, and
    /// something can go, it goes.
    pub fn build<T>(
        &self,
        layers: &[&Layer],
        trace: &mut Trace,
        mut build: impl FnMut(Cache, &mut Trace) -> Result<T, BootError>,
    ) -> Result<T, BootError> {
        match self.build_somewhere(layers, trace, &mut build) {
            Err(BootError::Build(error)) if error.is_full() && self.make_room(trace) => {
                self.build_somewhere(layers, trace, &mut build)
            }
            result => result,
        }
    }

    fn build_somewhere<T>(
        &self,
        layers: &[&Layer],
        trace: &mut Trace,
        build: &mut impl FnMut(Cache, &mut Trace) -> Result<T, BootError>,
    ) -> Result<T, BootError> {
        let mut refusals = Vec::new();
        let mut failure = None;
        for place in self.ranked(layers, &mut refusals) {
            let cache = match Cache::create(place, &self.boot) {
                Ok(cache) => cache,
                Err(error) => {
                    refusals.push(Refusal::new(place, with_causes(&error)));
                    continue;
                }
            };
            match build(cache, trace) {
                Err(BootError::Build(error)) if error.is_of_this_place() => {
                    refusals.push(Refusal::new(place, with_causes(&error)));
                    failure = Some(error);
                }
                result => {
                    if result.is_ok() {
                        tell_who_chose_another(place, &refusals);
                    }
                    return result;
                }
            }
        }
        let reasons: Vec<String> = refusals.into_iter().map(|refusal| refusal.reason).collect();
        Err(failure.map_or_else(|| BootError::NoPlace(reasons.join("; ")), BootError::Build))
    }

    /// The places to build in, best first: the one that somebody chose, then where most of the layers are already, then in
    /// their order, those without enough space last.
    fn ranked(&self, layers: &[&Layer], refusals: &mut Vec<Refusal>) -> Vec<&Place> {
        let total: u64 = layers.iter().map(|layer| layer.archive.unpacked).sum();
        let mut ranked = Vec::new();
        for place in &self.places {
            if let Some(reason) = unusable(place) {
                refusals.push(Refusal::new(place, format!("{}: {reason}", place.path.display())));
                continue;
            }
            let there = match Cache::open(place, &self.boot) {
                Ok(cache) => size_there(&cache, layers),
                Err(PlaceError::Io { .. }) => 0,
                Err(error) => {
                    refusals.push(Refusal::new(place, with_causes(&error)));
                    continue;
                }
            };
            let (free, needed) = (free_at(&place.path), total.saturating_sub(there));
            let lacks_space = free < needed;
            if lacks_space && place.kind == Kind::Chosen {
                let (path, free, needed) = (place.path.display(), free >> 20, needed.div_ceil(1 << 20));
                let reason = format!("{path} has {free} MiB free, and the environment takes {needed} MiB");
                refusals.push(Refusal::new(place, reason));
            }
            ranked.push((lacks_space, place.kind != Kind::Chosen, Reverse(there), place));
        }
        ranked.sort_by_key(|(lacks_space, other, there, _)| (*lacks_space, *other, *there));
        ranked.into_iter().map(|(.., place)| place).collect()
    }

    /// Cleans up the cache that something was built in, but for the environment `key`.
    pub fn clean(&self, cache: &Cache, key: &str, trace: &mut Trace) {
        let (limit, reserve) = (self.limit, self.reserve);
        let cleaning = Cleaning { limit, recent: RECENT, time: CLEANING_TIME, keep: Some(key), reserve };
        // Nobody waits for it to succeed.
        let _ = clean(cache, &cleaning);
        trace.mark(Phase::Clean);
    }

    /// Removes what nobody uses from all caches, since no disk has room: slow, and better than not to start.
    fn make_room(&self, trace: &mut Trace) -> bool {
        let cleaning = Cleaning { limit: 0, recent: JUST_BUILT, time: ROOM_TIME, keep: None, reserve: None };
        let bytes: u64 =
            self.caches().filter_map(|cache| clean(&cache, &cleaning).ok()).map(|cleaned| cleaned.bytes).sum();
        trace.mark(Phase::Clean);
        bytes > 0
    }
}

/// An environment that may be used in one of `caches`. Of those that came with an image, others note what was found.
fn find_in(cache: &Cache, key: &str, caches: &[Cache]) -> Option<Environment> {
    let is_noted = |whole| caches.iter().any(|other| other.is_noted(key, cache, whole));
    match cache.find_environment(key) {
        Found::Ready(_) if cache.is_read_only() && is_noted(false) => None,
        Found::Ready(environment) => Some(environment),
        Found::Stale if cache.is_of_image() && is_noted(true) && !is_noted(false) => cache.lease_environment(key),
        Found::Stale | Found::Missing => None,
    }
}

/// Who chose a place learns, once, why the environment is somewhere else: it may be a typing error, or a full disk.
fn tell_who_chose_another(used: &Place, refusals: &[Refusal]) {
    static TOLD: Once = Once::new();
    if used.kind == Kind::Chosen {
        return;
    }
    if let Some(refusal) = refusals.iter().rev().find(|refusal| refusal.kind == Kind::Chosen) {
        TOLD.call_once(|| say(&one_line(&format!("cpack-boot: CPACK_CACHE_DIR is not used: {}", refusal.reason))));
    }
}

/// How much of `wanted` is in a cache.
fn size_there(cache: &Cache, wanted: &[&Layer]) -> u64 {
    let there = wanted.iter().filter(|layer| cache.layer_state(&layer.content) != LayerState::Missing);
    there.map(|layer| layer.archive.unpacked.max(1)).sum()
}
