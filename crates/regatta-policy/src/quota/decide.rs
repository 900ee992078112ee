//! One decision over all rules of a request: all of them grant, or none is charged.
//!
//! Pure. A request that one rule refuses uses nothing up at the others, so a client that runs into a narrow rule does
//! not lose its wide one. Where the counters live is the caller's: [`Book`].

use std::num::NonZeroU32;

use super::counter::{Counter, Look, Quota, Standing};
use crate::ids::Micros;

/// What a request asks of one rule.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the rule allows.
    pub quota: &'a Quota,
    /// How many units the request takes.
    pub cost: NonZeroU32,
}

/// The counters of a request's rules, each under its own key; no two the same.
pub trait Book {
    /// The counter of rule number `at`, made if it is not there.
    fn counter(&mut self, at: usize) -> &mut Counter;
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every rule granted it, and every one is charged.
    Granted,
    /// None is charged.
    Limited {
        /// The number of the rule that keeps it waiting longest.
        by: usize,
        /// How long; the largest number if for ever.
        retry_after: Micros,
    },
}

/// Decides `asked`, whose counters are in `book`, and notes in `standings` how each key stands afterwards.
pub fn decide(
    asked: &[Asked<'_>],
    book: &mut impl Book,
    now: Micros,
    standings: &mut Vec<Standing>,
) -> Decision {
    let mut decision = Decision::Granted;
    for (at, Asked { quota, cost }) in asked.iter().enumerate() {
        let counter = book.counter(at);
        let wait = match counter.look(quota, *cost, now) {
            Look::Fits => continue,
            Look::Over { retry_after } => counter.breach(quota, retry_after, now),
            Look::Blocked { retry_after } => retry_after,
        };
        decision = match decision {
            Decision::Limited { retry_after, .. } if wait <= retry_after => decision,
            Decision::Limited { .. } | Decision::Granted => Decision::Limited { by: at, retry_after: wait },
        };
    }
    standings.clear();
    for (at, Asked { quota, cost }) in asked.iter().enumerate() {
        let counter = book.counter(at);
        if decision == Decision::Granted {
            counter.charge(quota, *cost, now);
        }
        standings.push(counter.standing(quota, now));
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::counter::{Algorithm, Breach};
    use crate::quota::window::Allowance;
    use proptest::prelude::*;
    use std::time::Duration;

    struct Shelf(Vec<Counter>);

    impl Book for Shelf {
        fn counter(&mut self, at: usize) -> &mut Counter {
            &mut self.0[at]
        }
    }

    fn quota(allow: u32, seconds: u64, breach: Breach) -> Quota {
        let allow = NonZeroU32::new(allow).expect("positive");
        let allowance = Allowance::new(allow, Duration::from_secs(seconds));
        Quota { algorithm: Algorithm::SlidingWindow(allowance), breach }
    }

    fn ask(quotas: &[Quota], shelf: &mut Shelf, now: u64) -> (Decision, Vec<u32>) {
        let asked: Vec<Asked<'_>> =
            quotas.iter().map(|quota| Asked { quota, cost: NonZeroU32::MIN }).collect();
        let mut standings = Vec::new();
        let decision = decide(&asked, shelf, Micros(now * 1_000_000), &mut standings);
        (decision, standings.iter().map(|standing| standing.remaining).collect())
    }

    #[test]
    fn a_request_refused_by_one_rule_charges_none() {
        let quotas = [quota(3, 60, Breach::Refused), quota(1, 10, Breach::Refused)];
        let mut shelf = Shelf(quotas.iter().map(Counter::new).collect());
        assert_eq!(ask(&quotas, &mut shelf, 0), (Decision::Granted, vec![2, 0]));
        let limited = Decision::Limited { by: 1, retry_after: Micros(9_000_000) };
        assert_eq!(ask(&quotas, &mut shelf, 1), (limited, vec![2, 0]));
        assert_eq!(ask(&quotas, &mut shelf, 10), (Decision::Granted, vec![1, 0]));
    }

    #[test]
    fn the_rule_that_keeps_it_waiting_longest_is_named() {
        let quotas = [
            quota(1, 5, Breach::Refused),
            quota(1, 60, Breach::Blocked(Duration::from_secs(90))),
            quota(1, 30, Breach::Refused),
        ];
        let mut shelf = Shelf(quotas.iter().map(Counter::new).collect());
        assert_eq!(ask(&quotas, &mut shelf, 0).0, Decision::Granted);
        let by = |seconds: u64| Decision::Limited { by: 1, retry_after: Micros(seconds * 1_000_000) };
        assert_eq!(ask(&quotas, &mut shelf, 1).0, by(90));
        assert_eq!(ask(&quotas, &mut shelf, 2).0, by(89), "a block does not grow");
    }

    #[test]
    fn a_request_without_rules_is_granted() {
        assert_eq!(ask(&[], &mut Shelf(Vec::new()), 0), (Decision::Granted, vec![]));
    }

    proptest! {
        /// Whatever comes, each rule's own windows hold, and a grant is one unit at every rule.
        #[test]
        fn together_they_grant_what_the_narrowest_of_the_moment_grants(
            rules in prop::collection::vec((1u32..9, 1u64..20), 1..5),
            gaps in prop::collection::vec(0u64..4, 1..200),
        ) {
            let quotas: Vec<Quota> = rules.iter().map(|&(allow, within)| quota(allow, within, Breach::Refused)).collect();
            let mut shelf = Shelf(quotas.iter().map(Counter::new).collect());
            let (mut now, mut granted) = (0, Vec::<u64>::new());
            for gap in gaps {
                now += gap;
                let fits = rules.iter().all(|&(allow, within)| {
                    granted.iter().filter(|at| now - **at < within).count() < allow as usize
                });
                let (decision, _) = ask(&quotas, &mut shelf, now);
                prop_assert_eq!(decision == Decision::Granted, fits);
                if fits {
                    granted.push(now);
                }
            }
        }
    }
}
