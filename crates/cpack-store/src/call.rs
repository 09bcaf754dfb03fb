//! One operation on a store on the network: what its errors say, and how long it may take.

use std::io;
use std::time::Duration;

use crate::network::Interrupted;
use crate::retry::{Budget, Failure};
use crate::{Deadlines, StoreError, StoreErrorKind, StoreUri};

/// Longest text of a server that an error repeats.
pub(crate) const MAX_MESSAGE: usize = 300;

/// An operation on one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    uri: &'a StoreUri,
    operation: &'static str,
    /// The object's key, or a directory of the layout.
    pub(crate) object: &'a str,
    /// Bytes that it moves, for the deadlines.
    pub(crate) bytes: u64,
}

/// What an error of a client means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) kind: StoreErrorKind,
    /// One line that says what to do.
    pub(crate) reason: String,
    /// Whether nothing answers at that address.
    pub(crate) unreachable: bool,
}

impl<'a> Call<'a> {
    /// An operation that moves few bytes. `operation` starts its errors: `cannot read`, `cannot write`, …
    pub(crate) const fn new(uri: &'a StoreUri, operation: &'static str, object: &'a str) -> Self {
        Self { uri, operation, object, bytes: 0 }
    }

    /// The same operation, moving `bytes`.
    pub(crate) const fn moving(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    /// Attempts and all of them together may take so long.
    pub(crate) fn budget(self, deadlines: &Deadlines) -> Budget {
        let (call, attempt) = (deadlines.call_for(self.bytes), deadlines.attempt_for(self.bytes));
        Budget { call, attempt, unreachable: deadlines.unreachable }
    }

    pub(crate) fn error(self, kind: StoreErrorKind, reason: impl Into<String>) -> StoreError {
        StoreError { kind, operation: self.operation, location: self.uri.join(self.object), reason: reason.into() }
    }

    pub(crate) fn unread(self, error: &io::Error) -> StoreError {
        StoreError::unread(self.uri.join(self.object), error)
    }

    pub(crate) fn too_large(self, size: u64, limit: u64) -> StoreError {
        StoreError::too_large(self.uri.join(self.object), size, limit)
    }

    pub(crate) fn no_answer(self, time: Duration) -> StoreError {
        self.error(StoreErrorKind::Transient, format!("no answer within {:.0} s", time.as_secs_f64()))
    }

    /// The attempt that `client` made ended as `verdict` says.
    pub(crate) fn failed(self, verdict: Verdict) -> Failure {
        Failure { error: self.error(verdict.kind, verdict.reason), unreachable: verdict.unreachable }
    }

    /// The attempt came to no end. `panicked` is the kind of a panic of `client`.
    pub(crate) fn interrupted(self, interrupted: &Interrupted, client: &str, panicked: StoreErrorKind) -> StoreError {
        match interrupted {
            Interrupted::Elapsed(time) => self.no_answer(*time),
            Interrupted::Panicked(message) => self.error(panicked, format!("the {client} client failed: {message}")),
            Interrupted::NoRuntime(error) => {
                self.error(StoreErrorKind::Other, format!("cannot start threads: {error}"))
            }
        }
    }
}
