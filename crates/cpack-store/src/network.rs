//! The bridge from the stores' plain calls to the asynchronous clients: one small runtime and a deadline on every wait. A
//! panic of a client ends the call that caused it and nothing else.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

#[cfg(feature = "hdfs")]
use tokio::runtime::Handle;
use tokio::runtime::{Builder, Runtime};

/// More threads than this do not wait faster.
const MOST_THREADS: usize = 4;

/// Threads for blocking calls, mostly name resolution.
const BLOCKING_THREADS: usize = 4;

/// Why a future has no result.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// This deadline passed.
    Elapsed(Duration),
    /// The client panicked with this message.
    Panicked(String),
    /// Out of threads or descriptors.
    NoRuntime(io::Error),
}

/// A runtime that starts with the first call.
#[derive(Debug, Default)]
pub(super) struct Network {
    threads: Option<usize>,
    runtime: OnceLock<Runtime>,
}

impl Network {
    /// `threads` limits the runtime's threads.
    pub(super) const fn new(threads: Option<usize>) -> Self {
        Self { threads, runtime: OnceLock::new() }
    }

    /// Runs `future` on the calling thread until it is done or `deadline` has passed.
    pub(super) fn wait<F: Future>(&self, deadline: Duration, future: F) -> Result<F::Output, Interrupted> {
        let runtime = self.runtime()?;
        let bounded = async { tokio::time::timeout(deadline, future).await };
        match catch_unwind(AssertUnwindSafe(|| runtime.block_on(bounded))) {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(Interrupted::Elapsed(deadline)),
            Err(panic) => Err(Interrupted::Panicked(message(panic.as_ref()))),
        }
    }

    /// Runs a synchronous call that may panic, inside the runtime.
    #[cfg(feature = "hdfs")]
    pub(super) fn guard<T>(&self, call: impl FnOnce(&Handle) -> T) -> Result<T, Interrupted> {
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        catch_unwind(AssertUnwindSafe(|| call(runtime.handle())))
            .map_err(|panic| Interrupted::Panicked(message(panic.as_ref())))
    }

    fn runtime(&self) -> Result<&Runtime, Interrupted> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.unwrap_or(cores).clamp(1, MOST_THREADS);
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("cpack-network")
            .enable_all()
            .build()
            .map_err(Interrupted::NoRuntime)?;
        Ok(self.runtime.get_or_init(|| runtime))
    }
}

impl Drop for Network {
    /// Does not wait for a thread that still waits for a resolver.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_deadlines_and_panics_come_back() {
        let network = Network::new(Some(1));
        let long = Duration::from_secs(60);
        assert_eq!(network.wait(long, async { 1 }).ok(), Some(1));
        let late = network.wait(Duration::from_millis(1), std::future::pending::<()>());
        assert!(matches!(late, Err(Interrupted::Elapsed(_))), "{late:?}");
        let panicked = network.wait(long, async { panic!("no {}", "way") });
        assert!(matches!(&panicked, Err(Interrupted::Panicked(m)) if m == "no way"), "{panicked:?}");
        assert_eq!(network.wait(long, async { 2 }).ok(), Some(2));
    }
}
