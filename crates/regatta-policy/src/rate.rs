//! GCRA: a rate per key, kept as one number (the theoretical arrival time, TAT).
//!
//! Pure: takes the stored TAT and `now`, gives a verdict. Never reads a clock, never touches the store;
//! the store runs the same sum as one atomic step, and its suite proves that both agree.
//! (ITU-T I.371, *generic cell rate algorithm*, virtual scheduling.)

use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

/// One call per `interval`, of which `slack` may be spent ahead of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    interval: Micros,
    slack: Micros,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, and store this TAT.
    Granted {
        /// The new theoretical arrival time; a stored one in the past may be dropped.
        tat: Micros,
    },
    /// Refuse; the stored TAT stays.
    Limited {
        /// After this long, counted from `now`, the same call would be granted.
        retry_after: Micros,
    },
}

impl Quota {
    /// `count` calls per `within`, of which up to `burst` may come at once.
    ///
    /// The interval is rounded up to whole microseconds, so rounding never admits too much.
    pub fn new(count: NonZeroU32, within: Duration, burst: NonZeroU32) -> Quota {
        let within = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let interval = within.div_ceil(u64::from(count.get())).max(1);
        let slack = interval.saturating_mul(u64::from(burst.get() - 1));
        Quota { interval: Micros(interval), slack: Micros(slack) }
    }

    /// The time between two calls at the even rate.
    pub fn interval(self) -> Micros {
        self.interval
    }

    /// How far calls may run ahead of the even rate.
    pub fn slack(self) -> Micros {
        self.slack
    }
}

/// Whether a call at `now` is within `quota`; `stored` is the TAT of the last granted call under the same key.
pub fn judge(stored: Option<Micros>, quota: Quota, now: Micros) -> Verdict {
    // A TAT in the past earns nothing: unused time is not saved up beyond the slack.
    let tat = stored.map_or(now, |tat| tat.max(now));
    let ahead = tat.0 - now.0;
    if quota.slack.0 < ahead {
        return Verdict::Limited { retry_after: Micros(ahead - quota.slack.0) };
    }
    Verdict::Granted { tat: Micros(tat.0.saturating_add(quota.interval.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quota(count: u32, within: Duration, burst: u32) -> Quota {
        let positive = |number| NonZeroU32::new(number).expect("positive");
        Quota::new(positive(count), within, positive(burst))
    }

    #[test]
    fn grants_the_burst_then_the_rate() {
        let quota = quota(60, Duration::from_secs(60), 3);
        let mut tat = None;
        for _ in 0..3 {
            let Verdict::Granted { tat: next } = judge(tat, quota, Micros(5)) else {
                panic!("within the burst")
            };
            tat = Some(next);
        }
        assert_eq!(judge(tat, quota, Micros(5)), Verdict::Limited { retry_after: Micros(1_000_000) });
        assert!(matches!(judge(tat, quota, Micros(1_000_005)), Verdict::Granted { .. }));
    }

    #[test]
    fn a_rate_above_one_per_microsecond_is_one_per_microsecond() {
        assert_eq!(quota(u32::MAX, Duration::from_micros(1), 1).interval(), Micros(1));
        assert_eq!(quota(7, Duration::ZERO, 1).interval(), Micros(1));
    }

    #[test]
    fn huge_quotas_do_not_overflow() {
        let quota = quota(1, Duration::MAX, u32::MAX);
        let Verdict::Granted { tat } = judge(None, quota, Micros(9)) else { panic!("the first is granted") };
        assert_eq!(tat, Micros(u64::MAX));
    }

    proptest! {
        /// The naive model: remember every granted call, count those in any window.
        #[test]
        fn no_window_admits_more_than_the_burst_and_the_rate(
            count in 1u32..50, within_us in 1u64..100_000, burst in 1u32..20,
            gaps in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let quota = quota(count, Duration::from_micros(within_us), burst);
            let (mut now, mut tat, mut granted) = (Micros(0), None, Vec::new());
            for gap in gaps {
                now = Micros(now.0 + gap);
                if let Verdict::Granted { tat: next } = judge(tat, quota, now) {
                    tat = Some(next);
                    granted.push(now.0);
                }
            }
            for (first, start) in granted.iter().enumerate() {
                for (last, end) in granted.iter().enumerate().skip(first) {
                    let allowed = u64::from(burst) + (end - start) / quota.interval().0;
                    prop_assert!((last - first + 1) as u64 <= allowed, "{} in {} us", last - first + 1, end - start);
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_a_microsecond_less_is_not(
            count in 1u32..50, within_us in 1u64..1_000_000, burst in 1u32..20, ahead in 0u64..10_000_000,
        ) {
            let quota = quota(count, Duration::from_micros(within_us), burst);
            let (now, tat) = (Micros(1_000), Some(Micros(1_000 + ahead)));
            if let Verdict::Limited { retry_after } = judge(tat, quota, now) {
                let granted = judge(tat, quota, Micros(now.0 + retry_after.0));
                let too_early = judge(tat, quota, Micros(now.0 + retry_after.0 - 1));
                prop_assert!(matches!(granted, Verdict::Granted { .. }), "{granted:?}");
                prop_assert!(matches!(too_early, Verdict::Limited { .. }), "{too_early:?}");
            }
        }
    }
}
