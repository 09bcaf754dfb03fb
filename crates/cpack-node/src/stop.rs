//! Whether a start should end before Python runs: set by whoever watches for signals, asked by everything that takes long.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// A request to end, shared by all threads of a start.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    stopped: Arc<AtomicBool>,
    reason: Arc<OnceLock<String>>,
}

impl Stop {
    /// Asks all that look at this to end. The first reason stays.
    pub fn set(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The flag, for those that look at it in a loop.
    pub fn flag(&self) -> &AtomicBool {
        &self.stopped
    }

    /// Whether to end.
    pub fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The reason, for people.
    pub fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_else(|| "no reason".into())
    }
}
