//! Whether programs wait for the store, told to other processes: what fills leaves the network to them.

use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::time::{ClockId, clock_gettime};

/// A program that read a moment ago will read again: it is waited for so long after its last fetch.
const QUIET: Duration = Duration::from_millis(30);

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(3);

/// The fetches that programs wait for.
#[derive(Debug)]
#[repr(C)]
pub struct Demand {
    waiting: AtomicU32,
    /// When the last one began or ended, in milliseconds of the monotonic clock.
    last: AtomicU64,
}

impl Demand {
    /// In memory that this process and those it forks from now on share, until the last of them ends.
    #[expect(unsafe_code, reason = "memory that processes share has no safe wrapper")]
    pub fn shared() -> io::Result<&'static Self> {
        const SIZE: NonZeroUsize = NonZeroUsize::new(size_of::<Demand>()).expect("not empty");
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping overlaps no other memory.
        let page: NonNull<c_void> = unsafe { mmap_anonymous(None, SIZE, access, flags) }?;
        // SAFETY: a page is aligned for everything, is zero, which atomics may be, and is never unmapped.
        Ok(unsafe { page.cast::<Self>().as_ref() })
    }

    /// Does `work`, which fetches something that a program waits for.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.last.store(now(), Ordering::Relaxed);
        let done = work();
        self.last.store(now(), Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        done
    }

    /// Waits until no program waits for the store, and none did a moment ago. At most `most`.
    pub fn wait_for_quiet(&self, most: Duration) {
        let mut waited = Duration::ZERO;
        while waited < most && self.is_there() {
            std::thread::sleep(INTERVAL);
            waited += INTERVAL;
        }
    }

    fn is_there(&self) -> bool {
        let since = now().saturating_sub(self.last.load(Ordering::Relaxed));
        self.waiting.load(Ordering::Relaxed) > 0 || u128::from(since) < QUIET.as_millis()
    }
}

/// Milliseconds of the clock that all processes share.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn demand_is_waited_for_and_for_no_longer_than_is_said() {
        let demand = Demand::shared().expect("memory");
        assert!(!demand.is_there());
        demand.during(|| assert!(demand.is_there()));
        let began = Instant::now();
        demand.wait_for_quiet(Duration::from_secs(60));
        assert!(!demand.is_there() && began.elapsed() < Duration::from_secs(30));
        demand.during(|| demand.wait_for_quiet(Duration::from_millis(1)));
    }
}
