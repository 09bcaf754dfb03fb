//! Retries transient errors until a deadline, with pauses that grow. A permanent error ends the call at once.
//!
//! A thousand executors that start at once must not come back at once: each pause is drawn evenly between nothing and
//! a bound that doubles ("full jitter").

use std::hash::{BuildHasher as _, RandomState};
use std::thread;
use std::time::{Duration, Instant};

use crate::StoreError;

/// The longest first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause of all.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a call may take, and each attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// The whole call.
    pub(super) call: Duration,
    /// One attempt.
    pub(super) attempt: Duration,
    /// The whole call, if no server can be reached.
    pub(super) unreachable: Duration,
}

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether nothing answered at that address. Most likely it is wrong, so patience is short.
    pub(super) unreachable: bool,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self { error, unreachable: false }
    }
}

/// Time and chance for [`retry`]: a parameter, so that tests need neither.
pub(super) trait Clock {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
    fn sleep(&self, pause: Duration);
    /// A number between 0 and 1.
    fn chance(&self) -> f64;
}

#[derive(Debug)]
pub(super) struct SystemClock(Instant);

impl SystemClock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, pause: Duration) {
        thread::sleep(pause);
    }

    fn chance(&self) -> f64 {
        // The seed of every new RandomState differs, within and between processes.
        let bits = RandomState::new().hash_one(self.0.elapsed());
        (bits >> 32) as f64 / f64::from(u32::MAX)
    }
}

/// Calls `attempt` with the time that it may take, until it succeeds or fails for good, or the budget is spent. Returns the
/// last error, with the number of attempts and their time.
pub(super) fn retry<T>(
    clock: &dyn Clock,
    budget: Budget,
    mut attempt: impl FnMut(Duration) -> Result<T, Failure>,
) -> Result<T, StoreError> {
    let start = clock.now();
    let mut bound = FIRST_PAUSE;
    let mut tries = 1u32;
    loop {
        let left = (start + budget.call).saturating_sub(clock.now());
        let failure = match attempt(left.min(budget.attempt)) {
            Ok(value) => return Ok(value),
            Err(failure) if failure.error.is_transient() => failure,
            Err(failure) => return Err(failure.error),
        };
        let patience = if failure.unreachable { budget.unreachable.min(budget.call) } else { budget.call };
        let pause = bound.mul_f64(clock.chance().clamp(0.0, 1.0));
        if clock.now() + pause >= start + patience {
            return Err(spent(failure.error, tries, clock.now() - start));
        }
        let event = cpack_events::span("retry", || failure.error.location.clone());
        clock.sleep(pause);
        drop(event);
        bound = (bound * 2).min(LONGEST_PAUSE);
        tries += 1;
    }
}

fn spent(error: StoreError, tries: u32, time: Duration) -> StoreError {
    let times = if tries == 1 { "once".to_owned() } else { format!("{tries} times") };
    let reason = format!("{} (tried {times} in {:.1} s)", error.reason, time.as_secs_f64());
    StoreError { reason, ..error }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::StoreErrorKind;

    const BUDGET: Budget =
        Budget { call: Duration::from_secs(30), attempt: Duration::from_secs(4), unreachable: Duration::from_secs(2) };

    struct FakeClock {
        now: Cell<Duration>,
        pauses: RefCell<Vec<Duration>>,
        chance: f64,
    }

    impl FakeClock {
        fn new(chance: f64) -> Self {
            Self { now: Cell::default(), pauses: RefCell::default(), chance }
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            self.now.get()
        }
        fn sleep(&self, pause: Duration) {
            self.pauses.borrow_mut().push(pause);
            self.now.set(self.now.get() + pause);
        }
        fn chance(&self) -> f64 {
            self.chance
        }
    }

    fn error(kind: StoreErrorKind) -> Failure {
        let error =
            StoreError { kind, operation: "cannot read", location: "s3://b/k".into(), reason: "no answer".into() };
        Failure { error, unreachable: false }
    }

    #[test]
    fn permanent_errors_end_it_at_once() {
        let clock = FakeClock::new(1.0);
        let mut tries = 0;
        let result: Result<(), _> = retry(&clock, BUDGET, |_| {
            tries += 1;
            Err(error(StoreErrorKind::Denied))
        });
        assert_eq!(result.expect_err("denied").reason, "no answer");
        assert_eq!((tries, clock.pauses.borrow().len()), (1, 0));
    }

    #[test]
    fn transient_errors_are_tried_again_with_growing_pauses() {
        let clock = FakeClock::new(1.0);
        let mut left = 8;
        let result = retry(&clock, BUDGET, |_| {
            left -= 1;
            if left == 0 { Ok("done") } else { Err(error(StoreErrorKind::Transient)) }
        });
        assert_eq!(result.ok(), Some("done"));
        let pauses: Vec<u128> = clock.pauses.borrow().iter().map(Duration::as_millis).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000]);
    }

    #[test]
    fn the_deadline_bounds_the_call_and_every_attempt() {
        let clock = FakeClock::new(0.5);
        let mut given = Vec::new();
        let result: Result<(), _> = retry(&clock, BUDGET, |time| {
            given.push(time);
            clock.now.set(clock.now.get() + time);
            Err(error(StoreErrorKind::Transient))
        });
        let error = result.expect_err("never works");
        assert!(error.is_transient() && error.reason.contains("(tried "), "{error}");
        assert!(clock.now.get() <= BUDGET.call, "{:?}", clock.now);
        assert!(given.iter().all(|time| *time <= BUDGET.attempt && !time.is_zero()), "{given:?}");
    }

    #[test]
    fn patience_is_short_where_nothing_answers() {
        let clock = FakeClock::new(1.0);
        let result: Result<(), _> =
            retry(&clock, BUDGET, |_| Err(Failure { unreachable: true, ..error(StoreErrorKind::Transient) }));
        assert!(result.expect_err("refused").is_transient());
        assert!(clock.now.get() <= BUDGET.unreachable, "{:?}", clock.now);
    }

    #[test]
    fn pauses_of_two_processes_differ() {
        let clock = SystemClock::start();
        let chances: Vec<f64> = (0..20).map(|_| clock.chance()).collect();
        assert!(chances.iter().all(|c| (0.0..=1.0).contains(c)), "{chances:?}");
        assert!(chances.iter().any(|c| *c != chances[0]), "{chances:?}");
    }
}
