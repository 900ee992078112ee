//! The exact sliding window: in no time span of `within` are more than `allow` units granted.
//!
//! Pure. It remembers when units were granted, as *runs*. Up to [`RUNS_MAX`] units each has a run of its own; beyond,
//! units that come close together share one, which is counted until its *last* unit has left the window. So memory is
//! bounded and rounding only ever refuses: a unit counts at most a 128th of the window too long, never too short.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

/// Runs that one window remembers, give or take two.
pub const RUNS_MAX: u32 = 128;

/// How much in how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    allow: u32,
    within: Micros,
    /// Units less than this apart share a run.
    grain: Micros,
}

/// What was granted under one key and still counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    runs: VecDeque<Run>,
    /// The units of all runs.
    used: u64,
    /// When the youngest run began.
    began: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The moment of its last unit.
    last: Micros,
    units: u32,
}

impl Allowance {
    /// `allow` units in any `within`.
    pub fn new(allow: NonZeroU32, within: Duration) -> Allowance {
        let within = u64::try_from(within.as_micros()).unwrap_or(u64::MAX).max(1);
        let grain = if allow.get() <= RUNS_MAX { 0 } else { within.div_ceil(u64::from(RUNS_MAX)) };
        Allowance { allow: allow.get(), within: Micros(within), grain: Micros(grain) }
    }

    /// The units in any window.
    pub fn allow(self) -> u32 {
        self.allow
    }

    /// The length of the window.
    pub fn within(self) -> Micros {
        self.within
    }

    fn end_of(self, run: &Run) -> u64 {
        run.last.0.saturating_add(self.within.0)
    }
}

impl Window {
    /// Drops what has left the window that ends at `now`; to be called before anything is asked.
    pub fn forget(&mut self, allowance: Allowance, now: Micros) {
        while let Some(run) = self.runs.front().filter(|run| allowance.end_of(run) <= now.0) {
            self.used -= u64::from(run.units);
            self.runs.pop_front();
        }
    }

    /// Units that would be granted now.
    pub fn room(&self, allowance: Allowance) -> u32 {
        u64::from(allowance.allow).saturating_sub(self.used) as u32
    }

    /// Counts `cost` units at `now`. Two threads may come with moments that are not in order: the later one counts.
    pub fn charge(&mut self, allowance: Allowance, cost: NonZeroU32, now: Micros) {
        self.used += u64::from(cost.get());
        if let Some(run) = self.runs.back_mut() {
            let now = now.max(run.last);
            if now.0 - self.began.0.min(now.0) < allowance.grain.0 || now == run.last {
                *run = Run { last: now, units: run.units.saturating_add(cost.get()) };
                return;
            }
        }
        self.began = now;
        self.runs.push_back(Run { last: now, units: cost.get() });
    }

    /// How long until `cost` units fit, if nothing is granted meanwhile; the largest number if they never do.
    pub fn wait(&self, allowance: Allowance, cost: NonZeroU32, now: Micros) -> Micros {
        if allowance.allow < cost.get() {
            return Micros(u64::MAX);
        }
        let mut over = (self.used + u64::from(cost.get())).saturating_sub(u64::from(allowance.allow));
        for run in &self.runs {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(u64::from(run.units));
            if over == 0 {
                return Micros(allowance.end_of(run).saturating_sub(now.0));
            }
        }
        Micros(0)
    }

    /// When nothing counts any more.
    pub fn empty_at(&self, allowance: Allowance) -> Micros {
        Micros(self.runs.back().map_or(0, |run| allowance.end_of(run)))
    }

    /// Runs that are remembered, for bounds.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positive(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).expect("positive")
    }

    fn take(window: &mut Window, allowance: Allowance, cost: u32, now: u64) -> bool {
        window.forget(allowance, Micros(now));
        let fits = cost <= window.room(allowance);
        if fits {
            window.charge(allowance, positive(cost), Micros(now));
        }
        fits
    }

    #[test]
    fn a_unit_counts_until_the_window_has_passed_and_not_a_microsecond_longer() {
        let allowance = Allowance::new(positive(2), Duration::from_micros(100));
        let mut window = Window::default();
        assert!(take(&mut window, allowance, 1, 0));
        assert!(take(&mut window, allowance, 1, 50));
        assert!(!take(&mut window, allowance, 1, 99));
        assert_eq!(window.wait(allowance, positive(1), Micros(99)), Micros(1));
        assert_eq!(window.wait(allowance, positive(2), Micros(99)), Micros(51));
        assert_eq!(window.wait(allowance, positive(3), Micros(99)), Micros(u64::MAX));
        assert!(take(&mut window, allowance, 1, 100));
        assert_eq!(window.empty_at(allowance), Micros(200));
    }

    #[test]
    fn moments_out_of_order_count_as_the_later_one() {
        let allowance = Allowance::new(positive(5), Duration::from_micros(100));
        let mut window = Window::default();
        assert!(take(&mut window, allowance, 1, 60));
        assert!(take(&mut window, allowance, 1, 40));
        window.forget(allowance, Micros(159));
        assert_eq!(window.room(allowance), 3);
        window.forget(allowance, Micros(160));
        assert_eq!(window.room(allowance), 5);
    }

    #[test]
    fn a_large_allowance_keeps_few_runs_and_still_lets_almost_all_of_it_through() {
        let allowance = Allowance::new(positive(100_000), Duration::from_secs(1));
        let mut window = Window::default();
        let (mut granted, mut longest) = (0u64, 0);
        for now in (0..20_000_000u64).step_by(5) {
            granted += u64::from(take(&mut window, allowance, 1, now));
            longest = longest.max(window.runs());
        }
        assert!(longest <= RUNS_MAX as usize + 2, "{longest} runs");
        assert!(granted >= 20 * 100_000 * 99 / 100, "{granted} in 20 s");
    }

    proptest! {
        #[test]
        fn never_grants_more_than_the_allowance_in_any_window(
            allow in prop_oneof![1u32..40, 120u32..400], within in 1u64..20_000,
            asks in prop::collection::vec((0u64..300, 1u32..5), 1..600),
        ) {
            let allowance = Allowance::new(positive(allow), Duration::from_micros(within));
            let (mut window, mut now, mut granted) = (Window::default(), 0, Vec::new());
            for (gap, cost) in asks {
                now += gap;
                if take(&mut window, allowance, cost, now) {
                    granted.push((now, u64::from(cost)));
                }
                prop_assert!(window.runs() <= RUNS_MAX as usize + 2);
            }
            for (first, (start, _)) in granted.iter().enumerate() {
                let inside = granted[first..].iter().take_while(|(at, _)| at - start < within);
                let sum: u64 = inside.map(|(_, cost)| cost).sum();
                prop_assert!(sum <= u64::from(allow), "{sum} from {start} on");
            }
        }

        /// The oracle remembers every unit: up to `RUNS_MAX` both say the same.
        #[test]
        fn a_small_allowance_is_exact(
            allow in 1u32..=RUNS_MAX, within in 1u64..20_000,
            asks in prop::collection::vec((0u64..300, 1u32..5), 1..400),
        ) {
            let allowance = Allowance::new(positive(allow), Duration::from_micros(within));
            let (mut window, mut now, mut log) = (Window::default(), 0, Vec::<(u64, u32)>::new());
            for (gap, cost) in asks {
                now += gap;
                log.retain(|(at, _)| now - at < within);
                let used: u32 = log.iter().map(|(_, cost)| cost).sum();
                let fits = used + cost <= allow;
                prop_assert_eq!(take(&mut window, allowance, cost, now), fits);
                if fits {
                    log.push((now, cost));
                }
            }
        }

        #[test]
        fn waiting_as_told_is_enough_and_a_microsecond_less_is_not(
            allow in 1u32..200, within in 1u64..20_000, cost in 1u32..5,
            asks in prop::collection::vec(0u64..300, 1..200),
        ) {
            let allowance = Allowance::new(positive(allow), Duration::from_micros(within));
            let (mut window, mut now) = (Window::default(), 0);
            for gap in asks {
                now += gap;
                take(&mut window, allowance, 1, now);
            }
            let (cost, wait) = (positive(cost.min(allow)), window.wait(allowance, positive(cost.min(allow)), Micros(now)));
            if wait.0 > 0 {
                prop_assert!(!take(&mut window.clone(), allowance, cost.get(), now + wait.0 - 1));
            }
            prop_assert!(take(&mut window, allowance, cost.get(), now + wait.0));
        }
    }
}
