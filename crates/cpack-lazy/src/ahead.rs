//! Fetching what a trace says before programs ask for it.
//!
//! It stays a *window* ahead of the program: what was fetched ahead is at most [`WINDOW`] bytes more than what programs have
//! asked for of the trace. So pieces are still kept when they are asked for, and a program that does something else than the
//! traced one did costs the window and no more.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cpack_format::trace::TracedPiece;

/// Bytes that are fetched ahead of the program: half of what is kept ([`crate::BUDGET`]).
pub(crate) const WINDOW: u64 = 32 << 20;

/// A trace that is followed.
#[derive(Debug)]
pub(crate) struct Ahead {
    order: Vec<(TracedPiece, u64)>,
    positions: HashMap<TracedPiece, usize>,
    window: u64,
    state: Mutex<State>,
    /// Notified when a program asks for a piece.
    asked: Condvar,
}

#[derive(Debug)]
struct State {
    /// The position of the piece that is fetched next.
    next: usize,
    /// Bytes before that position.
    passed: u64,
    /// Which pieces programs have asked for, and their bytes.
    is_asked: Vec<bool>,
    asked: u64,
}

impl Ahead {
    /// Follows `order`, pieces with their sizes.
    pub(crate) fn new(order: Vec<(TracedPiece, u64)>, window: u64) -> Self {
        let positions = order.iter().enumerate().map(|(position, (piece, _))| (*piece, position)).collect();
        let state = State { next: 0, passed: 0, is_asked: vec![false; order.len()], asked: 0 };
        Self { order, positions, window, state: Mutex::new(state), asked: Condvar::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// The size of a piece of the trace.
    pub(crate) fn size(&self, piece: TracedPiece) -> u64 {
        let position = self.positions.get(&piece).copied();
        position.and_then(|position| self.order.get(position)).map_or(0, |(_, size)| *size)
    }

    /// The piece that should be fetched next, waited for until programs are near enough. `None` at the end.
    pub(crate) fn next(&self) -> Option<TracedPiece> {
        let mut state = self.lock();
        loop {
            let (piece, size) = *self.order.get(state.next)?;
            if state.is_asked.get(state.next).copied().unwrap_or(true) {
                state.pass(size);
            } else if state.passed == 0 || state.passed + size <= state.asked + self.window {
                state.pass(size);
                return Some(piece);
            } else {
                state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Notes that a program asks for a piece.
    pub(crate) fn asked_for(&self, piece: TracedPiece) {
        let Some(position) = self.positions.get(&piece) else { return };
        let size = self.size(piece);
        let mut state = self.lock();
        if let Some(is_asked) = state.is_asked.get_mut(*position)
            && !std::mem::replace(is_asked, true)
        {
            state.asked += size;
            self.asked.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn pass(&mut self, size: u64) {
        self.next += 1;
        self.passed += size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(pieces: u32, window: u64) -> Ahead {
        Ahead::new((0..pieces).map(|number| (TracedPiece(0, number), 10)).collect(), window)
    }

    #[test]
    fn ahead_leaves_out_what_programs_have_asked_for() {
        let ahead = ahead(4, 1000);
        ahead.asked_for(TracedPiece(0, 1));
        ahead.asked_for(TracedPiece(7, 1));
        let order: Vec<u32> = std::iter::from_fn(|| ahead.next().map(|piece| piece.1)).collect();
        assert_eq!(order, [0, 2, 3]);
    }

    #[test]
    fn ahead_waits_at_the_end_of_its_window_until_programs_follow() {
        let ahead = ahead(5, 20);
        assert_eq!([ahead.next(), ahead.next()].map(|piece| piece.map(|piece| piece.1)), [Some(0), Some(1)]);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| std::iter::from_fn(|| ahead.next()).for_each(|piece| sender.send(piece.1).expect("sends")));
            let waits = receiver.recv_timeout(std::time::Duration::from_millis(50));
            assert!(waits.is_err(), "{waits:?}");
            ahead.asked_for(TracedPiece(0, 0));
            // Asked for twice, it counts once.
            ahead.asked_for(TracedPiece(0, 0));
            assert_eq!(receiver.recv(), Ok(2));
            assert!(receiver.recv_timeout(std::time::Duration::from_millis(50)).is_err());
            // What was asked for before its turn is left out.
            ahead.asked_for(TracedPiece(0, 3));
            ahead.asked_for(TracedPiece(0, 1));
            assert_eq!(receiver.recv(), Ok(4));
        });
    }

    #[test]
    fn ahead_fetches_a_first_piece_that_is_longer_than_the_window() {
        assert_eq!(ahead(1, 3).next(), Some(TracedPiece(0, 0)));
    }
}
