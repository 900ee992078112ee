//! Whether this process was stopped a moment ago (SIGSTOP, a frozen machine): what waits for it then may be stale.
//!
//! Told by a beat that comes once a second and is late. Read with every request, so it costs two loads and no lock; it
//! never reads a clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use regatta_policy::Micros;

/// A beat that is this late was kept from coming.
const LATE: Duration = Duration::from_secs(2);
/// How long after it what arrives may have waited.
const AFTERMATH: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Nap {
    /// The last beat, microseconds of the clock; 0 before the first.
    beat_us: AtomicU64,
    /// The last beat that was late; 0 for none.
    woke_us: AtomicU64,
}

impl Nap {
    /// The beat of each second.
    pub fn beat(&self, now: Micros) {
        let before = Micros(self.beat_us.swap(now.0.max(1), Ordering::Relaxed));
        if before.0 > 0 && now.since(before) > LATE {
            self.woke_us.store(now.0, Ordering::Relaxed);
        }
    }

    /// Whether the beat is late, or was a moment ago.
    pub fn is_fresh(&self, now: Micros) -> bool {
        let beat = Micros(self.beat_us.load(Ordering::Relaxed));
        let woke = Micros(self.woke_us.load(Ordering::Relaxed));
        (beat.0 > 0 && now.since(beat) > LATE) || (woke.0 > 0 && now.since(woke) < AFTERMATH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Micros {
        Micros(ms * 1000)
    }

    #[test]
    fn a_late_beat_tells_of_a_stop_before_it_comes_and_for_a_while_after() {
        let nap = Nap::default();
        assert!(!nap.is_fresh(at(10_000)), "nobody beats yet");
        (1..=5).for_each(|second| nap.beat(at(second * 1000)));
        assert!(!nap.is_fresh(at(6_900)));
        assert!(nap.is_fresh(at(60_000)), "the first who runs knows");
        nap.beat(at(60_001));
        nap.beat(at(60_002));
        assert!(nap.is_fresh(at(61_500)));
        nap.beat(at(61_600));
        assert!(!nap.is_fresh(at(62_100)));
    }
}
