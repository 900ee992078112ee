//! GCRA: a rate per key, kept as one number (the theoretical arrival time, TAT).
//!
//! Pure: takes the stored TAT, a cost and `now`, gives a verdict. Never reads a clock, never touches the store;
//! the store runs the same sum as one atomic step, and its suite proves that both agree.
//! (ITU-T I.371, *generic cell rate algorithm*, virtual scheduling.)

use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

/// One unit per `interval`, of which `slack` may be spent ahead of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Micros,
    slack: Micros,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, and store this TAT.
    Granted {
        /// The new theoretical arrival time; a stored one in the past may be dropped.
        tat: Micros,
    },
    /// Refuse; the stored TAT stays.
    Limited {
        /// After this long, counted from `now`, the same request would be granted; the largest number if never.
        retry_after: Micros,
    },
}

impl Rate {
    /// `count` units per `within`, of which up to `burst` may come at once.
    ///
    /// The interval is rounded up to whole microseconds, so rounding never admits too much.
    pub fn new(count: NonZeroU32, within: Duration, burst: NonZeroU32) -> Rate {
        let within = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let interval = within.div_ceil(u64::from(count.get())).max(1);
        let slack = interval.saturating_mul(u64::from(burst.get() - 1));
        Rate { interval: Micros(interval), slack: Micros(slack) }
    }

    /// The time between two units at the even rate.
    pub fn interval(self) -> Micros {
        self.interval
    }

    /// How far units may run ahead of the even rate.
    pub fn slack(self) -> Micros {
        self.slack
    }

    /// How many units would be granted at `now`.
    pub fn room(self, stored: Option<Micros>, now: Micros) -> u32 {
        let ahead = ahead(stored, now);
        match self.slack.0.checked_sub(ahead) {
            Some(slack) => u32::try_from(slack / self.interval.0 + 1).unwrap_or(u32::MAX),
            None => 0,
        }
    }
}

/// How far the TAT lies ahead of `now`: after so long the whole burst is there again.
pub fn ahead(stored: Option<Micros>, now: Micros) -> u64 {
    // A TAT in the past earns nothing: unused time is not saved up beyond the slack.
    stored.map_or(0, |tat| tat.0.saturating_sub(now.0))
}

/// Whether `cost` units at `now` are within `rate`; `stored` is the TAT after the last grant under the same key.
pub fn judge(stored: Option<Micros>, rate: Rate, cost: NonZeroU32, now: Micros) -> Verdict {
    let ahead = ahead(stored, now);
    let more = rate.interval.0.saturating_mul(u64::from(cost.get() - 1));
    let Some(slack) = rate.slack.0.checked_sub(more) else {
        // More than the burst at once: no wait helps.
        return Verdict::Limited { retry_after: Micros(u64::MAX) };
    };
    if slack < ahead {
        return Verdict::Limited { retry_after: Micros(ahead - slack) };
    }
    let tat = now.0.saturating_add(ahead).saturating_add(more).saturating_add(rate.interval.0);
    Verdict::Granted { tat: Micros(tat) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positive(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("positive")
    }

    fn rate(count: u32, within: Duration, burst: u32) -> Rate {
        Rate::new(positive(count), within, positive(burst))
    }

    #[test]
    fn grants_the_burst_then_the_rate() {
        let rate = rate(60, Duration::from_secs(60), 3);
        let mut tat = None;
        for left in [3, 2, 1] {
            assert_eq!(rate.room(tat, Micros(5)), left);
            let Verdict::Granted { tat: next } = judge(tat, rate, positive(1), Micros(5)) else {
                panic!("within the burst")
            };
            tat = Some(next);
        }
        assert_eq!(rate.room(tat, Micros(5)), 0);
        assert_eq!(
            judge(tat, rate, positive(1), Micros(5)),
            Verdict::Limited { retry_after: Micros(1_000_000) }
        );
        assert!(matches!(judge(tat, rate, positive(1), Micros(1_000_005)), Verdict::Granted { .. }));
    }

    #[test]
    fn more_than_the_burst_at_once_is_never_granted() {
        let rate = rate(60, Duration::from_secs(60), 3);
        assert!(matches!(judge(None, rate, positive(3), Micros(0)), Verdict::Granted { .. }));
        assert_eq!(
            judge(None, rate, positive(4), Micros(0)),
            Verdict::Limited { retry_after: Micros(u64::MAX) }
        );
    }

    #[test]
    fn a_rate_above_one_per_microsecond_is_one_per_microsecond() {
        assert_eq!(rate(u32::MAX, Duration::from_micros(1), 1).interval(), Micros(1));
        assert_eq!(rate(7, Duration::ZERO, 1).interval(), Micros(1));
    }

    #[test]
    fn huge_quotas_do_not_overflow() {
        let rate = rate(1, Duration::MAX, u32::MAX);
        let Verdict::Granted { tat } = judge(None, rate, positive(1), Micros(9)) else {
            panic!("the first is granted")
        };
        assert_eq!(tat, Micros(u64::MAX));
    }

    /// The oracle: a bucket of `burst` tokens that is counted in whole microseconds of refilling, from its birth on.
    struct Bucket {
        /// Microseconds of refilling that are missing.
        missing: u128,
        at: u64,
    }

    impl Bucket {
        fn take(&mut self, interval: u64, burst: u32, cost: u32, now: u64) -> bool {
            self.missing = self.missing.saturating_sub(u128::from(now - self.at));
            self.at = now;
            let whole = u128::from(interval) * u128::from(burst);
            let price = u128::from(interval) * u128::from(cost);
            let fits = self.missing + price <= whole;
            if fits {
                self.missing += price;
            }
            fits
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_token_bucket(
            count in 1u32..50, within_us in 1u64..100_000, burst in 1u32..20,
            asks in prop::collection::vec((0u64..5_000, 1u32..6), 1..300),
        ) {
            let rate = rate(count, Duration::from_micros(within_us), burst);
            let (mut now, mut tat) = (Micros(0), None);
            let mut bucket = Bucket { missing: 0, at: 0 };
            for (gap, cost) in asks {
                now = Micros(now.0 + gap);
                let oracle = bucket.take(rate.interval().0, burst, cost, now.0);
                match judge(tat, rate, positive(cost), now) {
                    Verdict::Granted { tat: next } => {
                        prop_assert!(oracle, "granted {cost} at {now:?}");
                        tat = Some(next);
                    }
                    Verdict::Limited { .. } => prop_assert!(!oracle, "refused {cost} at {now:?}"),
                }
            }
        }

        /// The naive model: remember every granted call, count those in any window.
        #[test]
        fn no_window_admits_more_than_the_burst_and_the_rate(
            count in 1u32..50, within_us in 1u64..100_000, burst in 1u32..20,
            gaps in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let rate = rate(count, Duration::from_micros(within_us), burst);
            let (mut now, mut tat, mut granted) = (Micros(0), None, Vec::new());
            for gap in gaps {
                now = Micros(now.0 + gap);
                if let Verdict::Granted { tat: next } = judge(tat, rate, positive(1), now) {
                    tat = Some(next);
                    granted.push(now.0);
                }
            }
            for (first, start) in granted.iter().enumerate() {
                for (last, end) in granted.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (end - start) / rate.interval().0;
                    prop_assert!((last - first + 1) as u64 <= allowed, "{} in {} us", last - first + 1, end - start);
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_a_microsecond_less_is_not(
            count in 1u32..50, within_us in 1u64..1_000_000, burst in 1u32..20, ahead in 0u64..10_000_000,
            cost in 1u32..20,
        ) {
            let rate = rate(count, Duration::from_micros(within_us), burst);
            let (now, tat, cost) = (Micros(1_000), Some(Micros(1_000 + ahead)), positive(cost.min(burst)));
            if let Verdict::Limited { retry_after } = judge(tat, rate, cost, now) {
                let granted = judge(tat, rate, cost, Micros(now.0 + retry_after.0));
                let too_early = judge(tat, rate, cost, Micros(now.0 + retry_after.0 - 1));
                prop_assert!(matches!(granted, Verdict::Granted { .. }), "{granted:?}");
                prop_assert!(matches!(too_early, Verdict::Limited { .. }), "{too_early:?}");
            }
        }
    }
}
