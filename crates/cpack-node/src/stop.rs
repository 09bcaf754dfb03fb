//! The request to end a start before Python runs. The watching thread sets it; every loop that takes long checks it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A request to end, shared by all threads of a start.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
    reason: Arc<OnceLock<String>>,
}

impl Stop {
    /// Asks all threads to end. The first reason is kept.
    pub fn set(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The flag, for loops that check it themselves.
    pub fn flag(&self) -> &AtomicBool {
        &self.stopped
    }

    /// Whether the start should end.
    pub fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The reason, for messages.
    pub fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_else(|| "no reason".into())
    }
}
