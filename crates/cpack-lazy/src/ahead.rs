//! Fetching what programs will ask for, before they do.
//!
//! **By a trace.** It stays a *window* ahead of the program: what was fetched ahead is at most [`WINDOW`] bytes more than what programs
//! have asked for of the trace. So pieces are still kept when they are asked for, and a program that does something else than
//! the traced one did costs the window and no more. In a local file the kernel is told of a piece instead: from the page cache a piece
//! is as near as from a copy (`import torch` with a trace, nothing filled: 3.24 s with advice, 3.53 s with copies).
//!
//! **By sequence**, for what no trace knows: a program that asks for a piece right after the one before it gets the next ones,
//! too, twice as many each time, as kernels read files ahead. Otherwise each piece would cost the store's time to answer.
//!
//! More was tried: the next two of each piece within eight of one that was asked for before. Of the pieces of `import torch` 138
//! were waited for instead of 292, and 506 instead of 401 fetched. That is better where the store takes long to answer (S3 without
//! a trace: 9.3 s instead of 10.6 s) and worse where the network is full (1 Gbit/s: 7.8 s instead of 6.5 s), which many nodes share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use cpack_format::trace::TracedPiece;

/// Bytes that are fetched ahead of the program: half of what is kept ([`crate::BUDGET`]).
pub(crate) const WINDOW: u64 = 32 << 20;

/// Most pieces that follow one: some 8 MiB, a quarter of what is kept without a trace.
const MOST_FOLLOWING: u32 = 8;

/// What a piece is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A program waits for it.
    Demand,
    /// A sequence seems to go on with it.
    Following,
    /// It is the trace's next one.
    Traced,
}

impl Purpose {
    /// The kind of event that a trace of the start has for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::Following | Self::Traced => "ahead",
        }
    }
}

/// What is fetched ahead.
#[derive(Debug)]
pub(crate) struct Ahead {
    order: Vec<(TracedPiece, u64)>,
    positions: HashMap<TracedPiece, usize>,
    window: u64,
    /// How many pieces each layer has. Sequences in other layers are not followed.
    pieces: Vec<u32>,
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
    /// By layer.
    sequences: HashMap<u32, Sequence>,
    /// What follows sequences, to be fetched first: a program is near.
    following: VecDeque<TracedPiece>,
}

/// Pieces of a layer that were asked for one after the other.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    last: u32,
    /// How many pieces follow the last one.
    following: u32,
    /// The first piece that was not fetched ahead.
    end: u32,
}

impl Ahead {
    /// Follows `order`, pieces with their sizes, and sequences in layers with so many `pieces`.
    pub(crate) fn new(order: Vec<(TracedPiece, u64)>, window: u64, pieces: Vec<u32>) -> Self {
        let positions = order.iter().enumerate().map(|(position, (piece, _))| (*piece, position)).collect();
        let state = State {
            next: 0,
            passed: 0,
            is_asked: vec![false; order.len()],
            asked: 0,
            sequences: HashMap::new(),
            following: VecDeque::new(),
        };
        Self { order, positions, window, pieces, state: Mutex::new(state), asked: Condvar::new() }
    }

    /// Whether there will be nothing to fetch.
    pub(crate) fn is_empty(&self) -> bool {
        self.order.is_empty() && self.pieces.iter().all(|count| *count == 0)
    }

    /// The size of a piece of the trace.
    pub(crate) fn size(&self, piece: TracedPiece) -> u64 {
        let position = self.positions.get(&piece).copied();
        position.and_then(|position| self.order.get(position)).map_or(0, |(_, size)| *size)
    }

    /// The piece that should be fetched next, and what for. Waits until programs are near enough.
    pub(crate) fn next(&self) -> (TracedPiece, Purpose) {
        let mut state = self.lock();
        loop {
            if let Some(piece) = state.following.pop_front() {
                return (piece, Purpose::Following);
            }
            match self.order.get(state.next).copied() {
                Some((_, size)) if state.is_asked.get(state.next).copied().unwrap_or(true) => state.pass(size),
                Some((piece, size)) if state.passed == 0 || state.passed + size <= state.asked + self.window => {
                    state.pass(size);
                    return (piece, Purpose::Traced);
                }
                _ => state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Notes that a program asks for a piece.
    pub(crate) fn asked_for(&self, piece: TracedPiece) {
        let mut state = self.lock();
        let Some(position) = self.positions.get(&piece) else {
            let count = self.pieces.get(piece.0 as usize).copied().unwrap_or(0);
            if state.follow(piece, count) {
                self.asked.notify_all();
            }
            return;
        };
        let size = self.size(piece);
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

    /// Adds what follows a piece of a layer with `count` pieces, if it is part of a sequence. Whether that is anything.
    fn follow(&mut self, TracedPiece(layer, number): TracedPiece, count: u32) -> bool {
        let start = Sequence { last: number, following: 0, end: 0 };
        let sequence = self.sequences.entry(layer).or_insert(start);
        if number == sequence.last {
            return false;
        }
        if number != sequence.last + 1 {
            *sequence = start;
            return false;
        }
        let following = (2 * sequence.following).clamp(1, MOST_FOLLOWING);
        let first = sequence.end.max(number + 1);
        let end = (number + 1 + following).min(count);
        *sequence = Sequence { last: number, following, end: end.max(first) };
        self.following.extend((first..end).map(|number| TracedPiece(layer, number)));
        first < end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(pieces: u32, window: u64) -> Ahead {
        Ahead::new((0..pieces).map(|number| (TracedPiece(0, number), 10)).collect(), window, Vec::new())
    }

    /// The number of the piece that is fetched next.
    fn next(ahead: &Ahead) -> u32 {
        ahead.next().0.1
    }

    #[test]
    fn ahead_leaves_out_what_programs_have_asked_for() {
        let ahead = ahead(4, 1000);
        ahead.asked_for(TracedPiece(0, 1));
        ahead.asked_for(TracedPiece(7, 1));
        let order: Vec<u32> = (0..3).map(|_| next(&ahead)).collect();
        assert_eq!(order, [0, 2, 3]);
    }

    #[test]
    fn ahead_waits_at_the_end_of_its_window_until_programs_follow() {
        let ahead = ahead(5, 20);
        assert_eq!([next(&ahead), next(&ahead)], [0, 1]);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..2).for_each(|_| sender.send(next(&ahead)).expect("sends")));
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
        assert_eq!(next(&ahead(1, 3)), 0);
    }

    /// What is fetched ahead after programs asked for these pieces of a layer with so many.
    fn following(count: u32, asked: &[u32]) -> Vec<u32> {
        let ahead = Ahead::new(Vec::new(), 0, vec![0, count]);
        asked.iter().for_each(|number| ahead.asked_for(TracedPiece(1, *number)));
        let following = &ahead.lock().following;
        following.iter().map(|piece| piece.1).collect()
    }

    #[test]
    fn ahead_follows_a_sequence_with_twice_as_many_pieces_each_time() {
        assert_eq!(following(100, &[10, 12, 15, 14]), [0; 0]);
        assert_eq!(following(100, &[10, 11]), [12]);
        // A piece is asked for again and again.
        assert_eq!(following(100, &[10, 10, 11, 11, 12]), [12, 13, 14]);
        assert_eq!(following(100, &[10, 11, 12, 13, 14, 15, 16]), (12..25).collect::<Vec<_>>());
        // It ends with the layer, and with the sequence.
        assert_eq!(following(14, &[10, 11, 12, 13]), [12, 13]);
        assert_eq!(following(100, &[10, 11, 12, 40, 41]), [12, 13, 14, 42]);
        assert_eq!(following(0, &[10, 11, 12]), [0; 0]);
    }

    #[test]
    fn ahead_fetches_what_follows_before_the_trace() {
        let ahead = Ahead::new(vec![(TracedPiece(0, 7), 10)], 100, vec![9, 9]);
        ahead.asked_for(TracedPiece(1, 3));
        ahead.asked_for(TracedPiece(1, 4));
        let expected = [(TracedPiece(1, 5), Purpose::Following), (TracedPiece(0, 7), Purpose::Traced)];
        assert_eq!([ahead.next(), ahead.next()], expected);
    }
}
