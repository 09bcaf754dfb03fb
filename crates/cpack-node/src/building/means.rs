//! What building needs beside a cache.

use std::time::Duration;

use cpack_extract::Limits;
use cpack_store::Store;

use super::BuildError;
use crate::stop::Stop;

/// Ranges of a store on the network that are fetched at once. With ranges of up to 8 MiB this fills a fast network at
/// a latency of tens of milliseconds; memory is bounded by the budget for bytes that are fetched and not yet decoded.
pub const FETCHES: usize = 8;

/// What building needs beside a cache.
#[derive(Debug)]
pub struct Means<'a> {
    /// Where archives come from.
    pub store: &'a dyn Store,
    /// Threads that fetch, decode, write and link.
    pub threads: usize,
    /// Ranges that are fetched at once from a store on the network, [`FETCHES`] where nothing else needs it.
    pub fetches: usize,
    /// How long another process may do nothing before this one does its work.
    pub stall_timeout: Duration,
    /// Whether to stop.
    pub stop: &'a Stop,
}

impl Means<'_> {
    /// Limits of what is extracted from local files.
    pub fn local_limits(&self) -> Limits {
        Limits { threads: self.threads, mapped_by: Some("cpack-boot"), ..Limits::default() }
    }

    /// Limits of what is extracted from the store. Threads of their own fetch where that is no directory.
    pub(super) fn limits(&self) -> Limits {
        let fetches = if self.store.uri().as_directory().is_some() { 0 } else { self.fetches };
        Limits { fetches, ..self.local_limits() }
    }

    /// Fails if the start should end.
    pub fn check_stop(&self) -> Result<(), BuildError> {
        if self.stop.is_set() { Err(self.stopped()) } else { Ok(()) }
    }

    pub(super) fn stopped(&self) -> BuildError {
        BuildError::Stopped(self.stop.reason())
    }
}
