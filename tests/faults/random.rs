//! Chance that can be repeated, and the clock of a part.

use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime};

/// SplitMix64 (Steele, Lea and Flood, 2014): a few lines, and the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).expect("small")
    }

    /// True once in `n`.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// One part of the suite: how much of it is done, by which seed, and how long it took.
#[derive(Debug)]
pub(crate) struct Part {
    name: &'static str,
    pub(crate) rounds: usize,
    /// As long as rounds go on, where they are many and short.
    time: Option<Duration>,
    done: Cell<usize>,
    pub(crate) seed: u64,
    started: Instant,
}

impl Part {
    /// `usual` rounds, or the same multiple of them that `CPACK_FAULT_ROUNDS` is of 200.
    pub(crate) fn new(name: &'static str, usual: usize) -> Self {
        let asked = number("CPACK_FAULT_ROUNDS").map(|n| usize::try_from(n).expect("a number of rounds"));
        let rounds = asked.map_or(usual, |asked| (asked * usual).div_ceil(USUAL_KILLS));
        Self::begin(name, rounds, None, &format!("{rounds} rounds"))
    }

    /// Done once, however many rounds are asked for: a table, or every step.
    pub(crate) fn once(name: &'static str) -> Self {
        Self::begin(name, 1, None, "once")
    }

    /// As many rounds as fit into [`FUZZ_SECONDS`], or `CPACK_FUZZ_SECONDS`; at least this many.
    pub(crate) fn timed(name: &'static str, least: usize) -> Self {
        let seconds = number("CPACK_FUZZ_SECONDS").unwrap_or(FUZZ_SECONDS);
        Self::begin(name, least, Some(Duration::from_secs(seconds)), &format!("{seconds} s"))
    }

    fn begin(name: &'static str, rounds: usize, time: Option<Duration>, length: &str) -> Self {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos().into());
        let seed = number("CPACK_FAULT_SEED").unwrap_or_else(now);
        say(&format!("faults: {name}: {length}, CPACK_FAULT_SEED={seed}"));
        Self { name, rounds, time, done: Cell::new(0), seed, started: Instant::now() }
    }

    /// The rounds, by number.
    pub(crate) fn each(&self) -> impl Iterator<Item = usize> + '_ {
        let goes_on = |round: &usize| *round < self.rounds || self.time.is_some_and(|t| self.started.elapsed() < t);
        (0..).take_while(goes_on).inspect(|round| self.done.set(round + 1))
    }

    pub(crate) fn random(&self) -> Random {
        Random::new(self.seed)
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: expected a number")))
}

/// How long each fuzz target runs in an ordinary run.
const FUZZ_SECONDS: u64 = 60;

/// Rounds of kills in an ordinary run: what `CPACK_FAULT_ROUNDS` counts.
pub(crate) const USUAL_KILLS: usize = 200;

impl Drop for Part {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() { "FAILED" } else { "passed" };
        say(&format!(
            "faults: {}: {outcome} in {:.0} s, {} rounds, CPACK_FAULT_SEED={}",
            self.name,
            self.started.elapsed().as_secs_f64(),
            self.done.get().max(self.rounds),
            self.seed
        ));
    }
}

/// Past the test harness, which shows what is printed of failed tests only.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}
