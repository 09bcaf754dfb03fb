//! Waiting for another process that builds.

use std::time::Duration;

use super::{BuildError, Means};
use crate::cache::{Cache, Claimed, Environment, Lookup};

/// How long to sleep between two looks at what another process builds, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(40));

/// The pauses between looks, each twice as long as the one before, up to the longest of [`PAUSES`].
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) fn new() -> Self {
        Self(PAUSES.0)
    }

    /// Sleeps; fails if the start should end.
    pub(super) fn sleep(&mut self, means: &Means<'_>) -> Result<(), BuildError> {
        means.check_stop()?;
        std::thread::sleep(self.0);
        self.0 = (self.0 * 2).min(PAUSES.1);
        Ok(())
    }
}

/// How waiting ends.
#[derive(Debug)]
pub enum Waited<T = Environment> {
    /// Another process built it.
    There(T),
    /// This process should build it.
    Ours(Claimed),
}

/// Waits until the environment `key` is in `cache`, or until no other process builds it ([`wait_for`]).
pub fn wait_for_environment(cache: &Cache, key: &str, name: &str, means: &Means<'_>) -> Result<Waited, BuildError> {
    let _event = cpack_events::span("wait", || format!("environment {key}"));
    wait_for(cache, name, means, || match cache.find_environment(key) {
        Lookup::Ready(environment) => Some(environment),
        Lookup::Stale | Lookup::Missing => None,
    })
}

/// Waits until `look` finds what is wanted, or until no other process builds it: none holds the claim `name`, or the holder
/// makes no progress for [`Means::stall_timeout`].
///
/// After `Ours` look once more: the last holder may have built it before it gave the claim back.
pub fn wait_for<T>(
    cache: &Cache,
    name: &str,
    means: &Means<'_>,
    look: impl Fn() -> Option<T>,
) -> Result<Waited<T>, BuildError> {
    let mut pauses = Pauses::new();
    let mut watched = cache.watch(name);
    loop {
        if let Some(claimed) = cache.claim(name) {
            return Ok(Waited::Ours(claimed));
        }
        if let Some(found) = look() {
            return Ok(Waited::There(found));
        }
        if watched.is_stalled(means.stall_timeout) {
            return Ok(Waited::Ours(Claimed::without_lock()));
        }
        pauses.sleep(means)?;
    }
}
