//! Work on several threads that end with the call, without a pool that outlives it.
//!
//! [`with_beat`] calls one function again and again while another works. [`try_map`] and [`try_map_with`] map a list, and
//! keep one contract:
//!
//! - The calling thread works, too, so `threads = 1` starts no thread. If the system refuses a thread, the threads that
//!   there are do all the work.
//! - Each thread takes the next item when it is done with one. Results come back in the order of the items.
//! - After the first error no thread takes another item. Items that other threads are at are finished, and their results
//!   dropped. The caller gets the error that came first.
//! - A panic stops the others in the same way and goes on in the calling thread with its own payload, whatever errors there
//!   were: nothing is reported as done because a worker died.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

/// Calls `work` for each of `items` on at most `threads` threads.
pub fn try_map<I: Sync, T: Send, E: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    try_map_with(threads, items, || (), |(), item| work(item))
}

/// As [`try_map`]. Each thread makes a state by `start`, such as a buffer, and lends it to its calls of `work`.
pub fn try_map_with<I: Sync, T: Send, E: Send, S>(
    threads: usize,
    items: &[I],
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, &I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let shared = Shared { items, next: AtomicUsize::new(0), error: Mutex::new(None) };
    let run = || shared.run(&start, &work);
    let done = thread::scope(|scope| {
        let others = 1..threads.min(items.len());
        let others: Vec<_> = others.map_while(|_| Builder::new().spawn_scoped(scope, run).ok()).collect();
        let mut done = run();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    if let Some(error) = shared.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    // Not sorted: sorting is code of 10 KB for each type of result.
    let mut in_order: Vec<Option<T>> = items.iter().map(|_| None).collect();
    for (index, result) in done {
        if let Some(slot) = in_order.get_mut(index) {
            *slot = Some(result);
        }
    }
    Ok(in_order.into_iter().flatten().collect())
}

/// Calls `beat` on another thread, at once and after each `pause`, until `work` ends, by a panic or otherwise. If the system
/// refuses a thread, there is no beat.
pub fn with_beat<T>(pause: Duration, beat: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    let (working, ended) = mpsc::channel::<()>();
    let beat = &beat;
    let beating = move || {
        beat();
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            beat();
        }
    };
    thread::scope(move |scope| {
        // Dropped when `work` returns or unwinds, which ends the beat.
        let _working = working;
        let _ = Builder::new().spawn_scoped(scope, beating);
        work()
    })
}

/// What the threads of one call share.
struct Shared<'a, I, E> {
    items: &'a [I],
    /// The item to be taken next: at or past the end once something failed.
    next: AtomicUsize,
    error: Mutex<Option<E>>,
}

impl<I, E> Shared<'_, I, E> {
    /// Takes items until there are none. Returns each result with the index of its item.
    fn run<T, S>(&self, start: impl Fn() -> S, work: impl Fn(&mut S, &I) -> Result<T, E>) -> Vec<(usize, T)> {
        let stop = StopOnUnwind(self);
        let (mut state, mut done) = (start(), Vec::new());
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.items.get(index) else { break };
            match work(&mut state, item) {
                Ok(result) => done.push((index, result)),
                Err(error) => {
                    self.stop();
                    self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                }
            }
        }
        std::mem::forget(stop);
        done
    }

    fn stop(&self) {
        self.next.store(self.items.len(), Ordering::Relaxed);
    }
}

/// Stops the other threads when this one unwinds.
struct StopOnUnwind<'a, 'b, I, E>(&'a Shared<'b, I, E>);

impl<I, E> Drop for StopOnUnwind<'_, '_, I, E> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 2000] {
            let doubled: Result<Vec<u32>, Infallible> = try_map(threads, &items, |item| Ok(item * 2));
            assert_eq!(doubled, Ok((0..1000).map(|item| item * 2).collect()), "{threads} threads");
        }
        assert_eq!(try_map(4, &[], |_: &u32| Err::<(), _>("called")), Ok(vec![]));
    }

    #[test]
    fn each_thread_has_its_own_state() {
        let together = Barrier::new(3);
        let states = try_map_with(
            3,
            &[1, 2, 3],
            || thread::current().id(),
            |state, _| {
                together.wait();
                if *state == thread::current().id() { Ok(*state) } else { Err("a state of another thread") }
            },
        );
        let mut states: Vec<String> = states.expect("own states").iter().map(|id| format!("{id:?}")).collect();
        states.sort_unstable();
        states.dedup();
        assert_eq!(states.len(), 3);
    }

    #[test]
    fn the_first_error_stops_the_rest() {
        for threads in [1, 4] {
            let (taken, items) = (AtomicUsize::new(0), Vec::from_iter(0..10_000));
            let result = try_map(threads, &items, |item| {
                taken.fetch_add(1, Ordering::Relaxed);
                if *item >= threads { Err("no") } else { Ok(()) }
            });
            assert_eq!(result, Err("no"));
            assert!(taken.into_inner() <= 2 * threads, "at most one more for each thread");
        }
    }

    #[test]
    fn with_beat_ends_with_its_work_even_if_that_panics() {
        let beats = AtomicUsize::new(0);
        let beat = || {
            beats.fetch_add(1, Ordering::Relaxed);
        };
        let wait_for = |count| {
            while beats.load(Ordering::Relaxed) < count {
                thread::yield_now();
            }
        };
        with_beat(Duration::from_millis(1), beat, || wait_for(3));
        let long = Duration::from_secs(3600);
        let panic = catch_unwind(AssertUnwindSafe(|| with_beat(long, beat, || panic!("the work dies"))));
        assert_eq!(panic.expect_err("panics").downcast_ref::<&str>(), Some(&"the work dies"));
        assert_eq!(with_beat(long, beat, || 7), 7);
    }

    #[test]
    fn panic_of_any_thread_goes_on_to_the_caller_and_stops_the_rest() {
        let caller = thread::current().id();
        for in_caller in [false, true] {
            let (together, taken, items) = (Barrier::new(2), AtomicUsize::new(0), Vec::from_iter(0..10_000));
            let work = |item: &i32| -> Result<(), &str> {
                taken.fetch_add(1, Ordering::Relaxed);
                if *item < 2 {
                    together.wait();
                    assert!(in_caller != (thread::current().id() == caller), "item of the thread that dies");
                    // The other has begun to unwind, or will before this one is through the list.
                    thread::sleep(Duration::from_millis(100));
                    return Err("an error is no excuse");
                }
                Ok(())
            };
            let panic = catch_unwind(AssertUnwindSafe(|| try_map(2, &items, work))).expect_err("panics");
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"item of the thread that dies"));
            assert_eq!(taken.into_inner(), 2, "no other item was taken");
        }
    }
}
