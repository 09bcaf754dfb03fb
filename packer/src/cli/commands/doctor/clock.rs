//! Whether this machine's clock agrees with the store's.

use std::time::{Duration, SystemTime};

use cpack_format::check::Check;
use cpack_format::human::lasting;

/// A smaller difference is not told: stores keep whole seconds, and their answers take time.
const CLOSE: Duration = Duration::from_secs(60);

/// The check of an object that the store dated `written`, between `before` and `after` of this machine's clock.
pub(super) fn clock(written: SystemTime, before: SystemTime, after: SystemTime) -> Check {
    let ahead = before.duration_since(written).unwrap_or_default();
    let behind = written.duration_since(after).unwrap_or_default();
    let (difference, side) = if ahead > behind { (ahead, "ahead of") } else { (behind, "behind") };
    if difference <= CLOSE {
        return Check::good("clock", "agrees with the store's");
    }
    let advice = "set it, by NTP: tokens and signed requests fail, and a prune here may remove what is young";
    Check::note("clock", format!("{} {side} the store's", lasting(difference)), advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_compared_with_the_store_s() {
        let now = SystemTime::now();
        let (after, second) = (now + Duration::from_secs(2), Duration::from_secs(1));
        for (written, found) in [
            (now - second, "agrees"),
            (now + second, "agrees"),
            (now - 600 * second, "10 min ahead of"),
            (after + 7200 * second, "2 h behind"),
        ] {
            let check = clock(written, now, after);
            assert!(check.found.starts_with(found), "{found}: {check:?}");
        }
    }
}
