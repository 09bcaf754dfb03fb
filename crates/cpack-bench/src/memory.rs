//! Memory at hand: what a start will need is touched just before it.
//!
//! A virtual machine may give free memory back to its host within seconds, and whoever touches it next waits for the host: the
//! same cold start of a gigabyte took 0.76 s (0.57 to 1.34, median of eight), and 0.57 s (0.53 to 0.83) where its memory had been
//! touched just before. And where earlier starts filled the page cache, the kernel makes room at the expense of the next; what
//! is touched here was made room for already.

use std::fs;
use std::path::Path;

use super::child;

/// Memory that is left alone, in KiB.
const LEFT: u64 = 1 << 20;

/// Touches `bytes` of memory, or as much as can be had, by a process of `python` that ends at once.
///
/// Where a control group allows less, the kernel takes that process for its victim; then there was nothing to be had.
pub(super) fn touch(python: &Path, bytes: u64) {
    let available = available(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let size = (bytes >> 10).min(available.saturating_sub(LEFT));
    let code = format!("open('/proc/self/oom_score_adj', 'w').write('1000'); b'1' * ({size} << 10)");
    // Figures are taken anyway: they only vary more.
    let _ = child::command(python).args(["-I", "-S", "-c", &code]).output();
}

/// What can be had without swapping, in KiB, as `/proc/meminfo` has it.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_what_the_kernel_says() {
        assert_eq!(available("MemTotal:       24000 kB\nMemAvailable:          512 kB\nCached: 1 kB\n"), 512);
        assert_eq!(available(""), 0);
        assert!(available(&fs::read_to_string("/proc/meminfo").expect("a kernel")) > 0);
    }
}
