//! Touches the memory that a start will need just before that start.
//!
//! A virtual machine may give free memory back to its host within seconds, and the next process that touches it waits for the
//! host: the same cold start of a gigabyte took 0.76 s (0.57 to 1.34, median of eight), and 0.57 s (0.53 to 0.83) if its memory
//! had been touched just before. If earlier starts filled the page cache, the kernel evicts pages while the next start runs;
//! touching memory here makes the kernel do that before.

use std::fs;
use std::path::Path;

use crate::child;

/// KiB of memory that are not touched.
const RESERVE: u64 = 1 << 20;

/// Touches `bytes` of memory, or all that is available, in a process of `python` that ends at once.
///
/// If a control group allows less, the kernel kills that process, which raises its own `oom_score_adj` for this.
pub(crate) fn touch(python: &Path, bytes: u64) {
    let available = available(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let size = (bytes >> 10).min(available.saturating_sub(RESERVE));
    let code = format!("open('/proc/self/oom_score_adj', 'w').write('1000'); b'1' * ({size} << 10)");
    // If this fails, the measurements only vary more.
    let _ = child::command(python).args(["-I", "-S", "-c", &code]).output();
}

/// `MemAvailable` of `/proc/meminfo`, in KiB.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(available("MemTotal:       24000 kB\nMemAvailable:          512 kB\nCached: 1 kB\n"), 512);
        assert_eq!(available(""), 0);
        assert!(available(&fs::read_to_string("/proc/meminfo").expect("a kernel")) > 0);
    }
}
