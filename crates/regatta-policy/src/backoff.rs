//! How long to wait before the next try: exponential, with full jitter.
//!
//! Pure: the attempt and a roll of dice in, a duration out. Never sleeps. Full jitter (AWS, *Exponential
//! Backoff and Jitter*) spreads a herd better than a jittered remainder, at the price of a rare short wait.

use std::time::Duration;

use crate::dice;

/// The shape of a back-off: the ceiling starts at `first`, doubles with every attempt and ends at `longest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Ceiling of the wait before the first repeat.
    pub first: Duration,
    /// Ceiling of any wait.
    pub longest: Duration,
}

impl Backoff {
    /// The longest wait before repeat number `attempt`, counted from zero.
    pub fn ceiling(self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.longest)
    }

    /// The wait before repeat number `attempt`, counted from zero: even in zero to the ceiling, both included.
    pub fn wait(self, attempt: u32, dice: u64) -> Duration {
        let ceiling = u64::try_from(self.ceiling(attempt).as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(dice::below(dice, u64::from(attempt), ceiling.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

    #[test]
    fn the_ceiling_doubles_until_the_cap() {
        let ceilings: Vec<u128> = (0..8).map(|attempt| BACKOFF.ceiling(attempt).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), BACKOFF.longest);
    }

    #[test]
    fn waits_fill_the_whole_range_and_nothing_beyond() {
        let waits: Vec<Duration> = (0..1000).map(|dice| BACKOFF.wait(3, dice)).collect();
        assert!(waits.iter().all(|wait| *wait <= Duration::from_millis(800)));
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(80)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(720)));
    }
}
