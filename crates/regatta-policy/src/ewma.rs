//! Latency of a replica as one number: an average that rises at once and falls with time.
//!
//! Peak-sensitive (Finagle's *Peak EWMA*): a slower answer replaces the average, a faster one only pulls it down
//! as old answers fade. Read without new answers it fades towards zero, so that a replica that was slow once is
//! tried again. Fed with whole completed answers only: a quick failure is not a quick replica. Reads no clock.

use std::time::Duration;

use crate::ids::Micros;

/// How fast the past fades: after this long, an observation weighs 1/e.
pub const DECAY: Duration = Duration::from_secs(10);

/// The average, as of the last completed answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ewma {
    /// Average in microseconds.
    value_us: f64,
    /// When the last answer completed.
    last: Micros,
}

/// The average after an answer that took `latency` completed at `now`; `before` is `None` for the first.
pub fn observe(before: Option<Ewma>, latency: Duration, now: Micros) -> Ewma {
    let sample = latency.as_micros() as f64;
    let value_us = match before {
        Some(before) if sample < before.value_us => {
            let kept = weight(before.last, now);
            before.value_us * kept + sample * (1.0 - kept)
        }
        Some(_) | None => sample,
    };
    // Answers complete on many threads: a late observation must not turn the clock back.
    let last = before.map_or(now, |before| before.last.max(now));
    Ewma { value_us, last }
}

impl Ewma {
    /// The average in microseconds as of `now`, at least 1: zero stands for "unknown" in [`crate::balance`].
    pub fn read_us(self, now: Micros) -> u64 {
        ((self.value_us * weight(self.last, now)) as u64).max(1)
    }
}

/// What is left at `now` of the weight of something seen at `last`: 1 down to 0.
fn weight(last: Micros, now: Micros) -> f64 {
    (-now.since(last).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    #[test]
    fn a_slower_answer_counts_at_once() {
        let calm = observe(None, MS, at(0));
        assert_eq!(observe(Some(calm), 50 * MS, at(1)).read_us(at(1)), 50_000);
    }

    #[test]
    fn a_faster_answer_pulls_down_as_time_passes() {
        let peak = observe(None, 100 * MS, at(0));
        let soon = observe(Some(peak), MS, Micros(1000)).read_us(Micros(1000));
        let later = observe(Some(peak), MS, at(30)).read_us(at(30));
        assert!(soon > 99_000, "{soon}");
        assert!(later < 7_000, "{later}");
    }

    #[test]
    fn silence_fades_towards_the_unknown_but_never_reaches_it() {
        let slow = observe(None, 1000 * MS, at(0));
        assert!(slow.read_us(at(20)) < 140_000);
        assert_eq!(slow.read_us(at(100_000)), 1);
    }

    #[test]
    fn a_late_observation_does_not_turn_the_clock_back() {
        let now = observe(None, 2 * MS, at(10));
        let late = observe(Some(now), MS, at(9));
        assert_eq!(late, now);
    }
}
