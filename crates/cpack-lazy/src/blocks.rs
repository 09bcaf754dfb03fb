//! Pieces and blocks that were read lately.
//!
//! The kernel keeps what programs read, so this serves three ends: small files that are read together are mostly in the same
//! piece, several threads ask for parts of one block at once, and what was fetched for a program that has not asked yet waits here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffers::Buffer;

/// Bytes of pieces and blocks that are kept: at most half of them are pieces that wait to be asked for ([`crate::ahead::WINDOW`]).
pub const BUDGET: usize = 64 << 20;

/// The same where nothing that was fetched ahead waits: without a trace, or from a directory.
pub(crate) const BUDGET_OF_DEMAND: usize = 32 << 20;

/// Blocks up to this size are not kept: the kernel asks for them by one request, its read-ahead being 128 KiB.
const SMALL: usize = 64 << 10;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A verified piece of a layer.
    Piece { layer: u32, number: u32 },
    /// A decoded block of a layer's file.
    Block { layer: u32, file: u32, block: u32 },
}

/// Bytes that may be shared and are not changed.
pub(crate) type Bytes = Arc<Buffer>;

/// Locked by the thread that makes the bytes.
type Slot = Arc<Mutex<Option<Bytes>>>;

#[derive(Debug)]
pub(crate) struct Blocks {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Key, Kept>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

#[derive(Debug)]
struct Kept {
    slot: Slot,
    used: u64,
    bytes: usize,
    /// No program has asked for it yet. It is not dropped before.
    is_ahead: bool,
}

impl Blocks {
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget, state: Mutex::default() }
    }

    /// The bytes of `key`, made by `make` unless they are kept. One thread makes them while others that want the same wait.
    pub(crate) fn get<E>(&self, key: Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        self.get_in(self.slot(key, false), key, make)
    }

    /// Makes the bytes of `key` unless they are kept, and keeps them until a program [gets](Self::get) them or they are
    /// [forgotten](Self::forget). The caller bounds the bytes that are kept so: half of the budget.
    pub(crate) fn prepare<E>(&self, key: Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<(), E> {
        self.get_in(self.slot(key, true), key, make).map(drop)
    }

    /// Drops the bytes of `key`, which no program will get.
    pub(crate) fn forget(&self, key: Key) {
        let mut state = lock(&self.state);
        if let Some(kept) = state.slots.remove(&key) {
            state.bytes -= kept.bytes;
        }
    }

    fn get_in<E>(&self, slot: Slot, key: Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Bytes, E> {
        let mut locked = lock(&slot);
        if let Some(bytes) = &*locked {
            return Ok(Arc::clone(bytes));
        }
        let made = make();
        match made {
            Ok(bytes) => {
                let bytes = Arc::new(Buffer::new(bytes));
                *locked = Some(Arc::clone(&bytes));
                self.keep(key, bytes.capacity());
                Ok(bytes)
            }
            Err(error) => {
                lock(&self.state).slots.remove(&key);
                Err(error)
            }
        }
    }

    /// `ahead` is whether no program asks for it yet.
    fn slot(&self, key: Key, ahead: bool) -> Slot {
        let mut state = lock(&self.state);
        state.now += 1;
        let used = state.now;
        let kept =
            state.slots.entry(key).or_insert_with(|| Kept { slot: Slot::default(), used, bytes: 0, is_ahead: ahead });
        kept.used = used;
        kept.is_ahead &= ahead;
        Arc::clone(&kept.slot)
    }

    /// Counts the bytes of `key`, and drops those that were not used for longest.
    fn keep(&self, key: Key, bytes: usize) {
        let mut state = lock(&self.state);
        if matches!(key, Key::Block { .. }) && bytes <= SMALL {
            state.slots.remove(&key);
            return;
        }
        let Some(kept) = state.slots.get_mut(&key) else { return };
        // Another thread may have counted the same key, after an error of a third.
        let before = std::mem::replace(&mut kept.bytes, bytes);
        state.bytes = state.bytes - before + bytes;
        while state.bytes > self.budget {
            let made = state.slots.iter().filter(|(other, kept)| **other != key && kept.bytes > 0 && !kept.is_ahead);
            let Some(oldest) = made.min_by_key(|(_, kept)| kept.used).map(|(key, _)| *key) else { return };
            state.bytes -= state.slots.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn piece(number: u32) -> Key {
        Key::Piece { layer: 0, number }
    }

    #[test]
    fn blocks_drop_what_was_not_used_for_longest() {
        let blocks = Blocks::new(100);
        let made = AtomicUsize::new(0);
        let get = |number| {
            blocks.get(piece(number), || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok::<_, ()>(vec![0; 40])
            })
        };
        for (number, expected) in [(1, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 4)] {
            assert_eq!(get(number).map(|bytes| bytes.len()), Ok(40));
            assert_eq!(made.load(Ordering::Relaxed), expected, "after {number}");
        }
        assert!(lock(&blocks.state).bytes <= 100);
    }

    #[test]
    fn blocks_that_wait_are_kept_until_they_are_asked_for() {
        let blocks = Blocks::new(100);
        let make = |number| move || Ok::<_, ()>(vec![number; 40]);
        assert_eq!(blocks.prepare(piece(1), make(1)), Ok(()));
        for number in [2, 3, 4] {
            assert_eq!(blocks.get(piece(number.into()), make(number)).map(|bytes| bytes[0]), Ok(number));
        }
        assert_eq!(blocks.get(piece(1), || Err("it was dropped")).map(|bytes| bytes[0]), Ok(1));
        // Asked for, it is dropped as any other, also where it is prepared again.
        assert_eq!(blocks.prepare(piece(1), || Err("it was dropped")), Ok(()));
        for number in [5, 6, 7] {
            assert_eq!(blocks.get(piece(number.into()), make(number)).map(|bytes| bytes[0]), Ok(number));
        }
        assert_eq!(blocks.get(piece(1), || Err("made again")).map(drop), Err("made again"));
        assert_eq!(blocks.prepare(piece(8), make(8)), Ok(()));
        blocks.forget(piece(8));
        assert_eq!(blocks.get(piece(8), || Err("forgotten")).map(drop), Err("forgotten"));
        assert!(lock(&blocks.state).bytes <= 100);
    }

    #[test]
    fn blocks_are_made_once_for_threads_that_come_together() {
        let blocks = Blocks::new(1 << 20);
        let made = AtomicUsize::new(0);
        let together = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    let made = blocks.get(piece(1), || {
                        made.fetch_add(1, Ordering::Relaxed);
                        Ok::<_, ()>(vec![7; 1000])
                    });
                    assert_eq!(made.map(|bytes| bytes[999]), Ok(7));
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn blocks_ask_again_after_an_error() {
        let blocks = Blocks::new(100);
        assert_eq!(blocks.get(piece(1), || Err("no")).map(drop), Err("no"));
        assert_eq!(blocks.get(piece(1), || Ok::<_, ()>(vec![1])).map(|bytes| bytes.len()), Ok(1));
    }
}
