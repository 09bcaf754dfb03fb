//! Reads that wait for the store: one that waits for long is told of, once.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Fetches that programs wait for.
#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    since: BTreeMap<u64, (Instant, String)>,
}

impl Waits {
    /// Does `work`, which fetches from `what`.
    pub(crate) fn during<T>(&self, what: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
        let number = {
            let mut waiting = self.lock();
            waiting.next += 1;
            let number = waiting.next;
            waiting.since.insert(number, (Instant::now(), what()));
            number
        };
        let done = work();
        self.lock().since.remove(&number);
        done
    }

    /// What the fetch that began first fetches from, if it has taken at least `patience`.
    pub(crate) fn longer_than(&self, patience: Duration) -> Option<String> {
        let waiting = self.lock();
        let (_, (since, what)) = waiting.since.first_key_value()?;
        (since.elapsed() >= patience).then(|| what.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_name_the_fetch_that_takes_long_and_forget_it_when_it_is_done() {
        let waits = Waits::default();
        let named =
            waits.during(|| "one".into(), || waits.during(|| "two".into(), || waits.longer_than(Duration::ZERO)));
        assert_eq!(named, Some("one".into()));
        assert_eq!(waits.during(|| "three".into(), || waits.longer_than(Duration::from_secs(60))), None);
        assert_eq!(waits.longer_than(Duration::ZERO), None);
    }
}
