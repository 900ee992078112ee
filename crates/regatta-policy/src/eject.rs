//! Passive outlier ejection: a replica that keeps failing is put aside, and comes back through one probe.
//!
//! Pure: a small state per replica, the outcome of a request and `now` in; the next state and a decision out.
//! Never probes by itself and never re-homes a session (only *gone* does, see [`crate::gone`]).
//! `isError` results, 4xx and cancellations say nothing against a replica: their callers report `Success` or nothing.

use std::time::Duration;

use crate::ids::Micros;

/// When to eject, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Failures in a row that eject.
    pub failures_max: u32,
    /// Length of the first ejection; the n-th in a row takes n times as long.
    pub base: Duration,
    /// The longest ejection.
    pub longest: Duration,
    /// Good time that takes one ejection off the count.
    pub forgive_after: Duration,
    /// How long a probe may stay without outcome before another request may probe.
    pub probe_max: Duration,
}

/// The rule of the gateway: Envoy's figures for outlier detection, with half of the replicas as cap instead of a tenth.
pub const RULE: Rule = Rule {
    failures_max: 5,
    base: Duration::from_secs(30),
    longest: Duration::from_secs(300),
    forgive_after: Duration::from_secs(60),
    probe_max: Duration::from_secs(10),
};

/// The rule of a server whose every replica fails: shut at once, for half a second at first, and probed by one request. Short,
/// because nobody else serves meanwhile: one request in five seconds buries nothing.
pub const SERVER_RULE: Rule = Rule {
    failures_max: 1,
    base: Duration::from_millis(500),
    longest: Duration::from_secs(5),
    forgive_after: Duration::from_secs(60),
    probe_max: Duration::from_secs(2),
};

/// A server has no neighbour that could take its load: nothing spares it.
pub const SERVER_FLEET: Fleet = Fleet { replicas: 2, ejected: 0 };

/// How a request to a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any answer that shows a working server: 2xx, 4xx, `isError`.
    Success,
    /// No connection.
    ConnectFailed,
    /// The connection broke before the answer was whole.
    Reset,
    /// Silence for `request_timeout`.
    TimedOut,
    /// 500–599 but 503.
    Status5xx,
    /// 503: it lives and is full. Neither good nor bad; ejecting it would push its load onto its neighbours.
    Overloaded,
}

/// What is remembered of one replica; starts closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    failures: u32,
    /// Ejections not yet forgiven.
    times: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes requests, since then.
    Closed { since: Micros },
    /// Put aside until then.
    Open { until: Micros },
    /// One request probes, since then.
    Probing { since: Micros },
}

impl Default for Phase {
    fn default() -> Self {
        Phase::Closed { since: Micros(0) }
    }
}

/// Whether a replica takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// It does.
    Open,
    /// One request may be sent there: it stands as good in the choice, and who is about to send calls
    /// [`Ejection::probe`] first; with `None` from there, choose again.
    ProbeDue,
    /// It is ejected.
    Shut,
}

/// How many replicas the server has, and how many of them are ejected now (this one included, if it is).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Replicas in all, but draining ones.
    pub replicas: usize,
    /// Of these, ejected.
    pub ejected: usize,
}

/// What an outcome changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Stays,
    /// Ejected, or ejected again after a failed probe.
    Ejected {
        /// Until when.
        until: Micros,
    },
    /// It would be ejected, were not too many ejected already: the metric of the cap.
    Spared,
    /// The probe succeeded.
    Returned,
}

impl Fleet {
    /// How many may be ejected at once: half, at least one, never the last one.
    pub fn ejected_max(self) -> usize {
        (self.replicas / 2).max(1).min(self.replicas.saturating_sub(1))
    }
}

impl Ejection {
    /// Whether requests may be sent there at `now`.
    pub fn door(self, rule: Rule, now: Micros) -> Door {
        match self.phase {
            Phase::Closed { .. } => Door::Open,
            Phase::Open { until } if now < until => Door::Shut,
            Phase::Open { .. } => Door::ProbeDue,
            // A probe whose caller went away reports nothing: after a while another one may try.
            Phase::Probing { since } if now.since(since) < rule.probe_max => Door::Shut,
            Phase::Probing { .. } => Door::ProbeDue,
        }
    }

    /// Whether it counts as ejected: until a probe has succeeded.
    pub fn is_ejected(self) -> bool {
        match self.phase {
            Phase::Closed { .. } => false,
            Phase::Open { .. } | Phase::Probing { .. } => true,
        }
    }

    /// Whether it failed as often as ejects, ejected or spared.
    pub fn is_failing(self, rule: Rule) -> bool {
        self.is_ejected() || self.failures >= rule.failures_max
    }

    /// A request is about to be sent there as the probe; of two that ask at once, one gets a state, the other `None`.
    pub fn probe(self, rule: Rule, now: Micros) -> Option<Ejection> {
        match self.door(rule, now) {
            Door::ProbeDue => Some(Ejection { phase: Phase::Probing { since: now }, ..self }),
            Door::Open | Door::Shut => None,
        }
    }

    /// The state after a request ended with `outcome` at `now`, and what that changed.
    pub fn record(self, rule: Rule, outcome: Outcome, fleet: Fleet, now: Micros) -> (Ejection, Decision) {
        match (self.phase, outcome) {
            // Late outcomes of requests from before the ejection prove nothing about now.
            (Phase::Open { .. }, _) => (self, Decision::Stays),
            (Phase::Closed { .. }, Outcome::Success) => (Ejection { failures: 0, ..self }, Decision::Stays),
            (Phase::Closed { .. }, Outcome::Overloaded) => (self, Decision::Stays),
            (Phase::Probing { .. }, Outcome::Success) => {
                (Ejection { failures: 0, phase: Phase::Closed { since: now }, ..self }, Decision::Returned)
            }
            // Alive but full: no return yet, and the next request may probe.
            (Phase::Probing { .. }, Outcome::Overloaded) => {
                (Ejection { phase: Phase::Open { until: now }, ..self }, Decision::Stays)
            }
            (Phase::Closed { since }, _failure) => self.failed(rule, fleet, since, now),
            (Phase::Probing { .. }, _failure) => self.ejected(rule, self.times, now),
        }
    }

    /// The state of a replica that active probes found down, and up again at `now`: most likely another process, so failures
    /// of the old one say nothing, and a first ejection is over. From the second one on it waits its time out: who crashes in
    /// a loop is up after every crash.
    pub fn restarted(self, rule: Rule, now: Micros) -> Ejection {
        let closed = Phase::Closed { since: now };
        match self.phase {
            Phase::Closed { since } => {
                Ejection { failures: 0, times: self.unforgiven(rule, since, now), phase: closed }
            }
            Phase::Open { .. } | Phase::Probing { .. } if self.times <= 1 => {
                Ejection { failures: 0, phase: closed, ..self }
            }
            Phase::Open { .. } | Phase::Probing { .. } => self,
        }
    }

    /// Ejections that good time since `since` has not taken off the count.
    fn unforgiven(self, rule: Rule, since: Micros, now: Micros) -> u32 {
        let forgiven = now.since(since).as_micros() / rule.forgive_after.as_micros().max(1);
        self.times.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX))
    }

    /// One more failure in a row of a replica that was closed since `since`.
    fn failed(self, rule: Rule, fleet: Fleet, since: Micros, now: Micros) -> (Ejection, Decision) {
        let failures = self.failures.saturating_add(1);
        if failures < rule.failures_max {
            return (Ejection { failures, ..self }, Decision::Stays);
        }
        if fleet.ejected >= fleet.ejected_max() {
            return (Ejection { failures, ..self }, Decision::Spared);
        }
        self.ejected(rule, self.unforgiven(rule, since, now), now)
    }

    /// Ejected for the time after `times` ejections.
    fn ejected(self, rule: Rule, times: u32, now: Micros) -> (Ejection, Decision) {
        let times = times.saturating_add(1);
        let until = now.after(rule.base.saturating_mul(times).min(rule.longest));
        (Ejection { failures: 0, times, phase: Phase::Open { until } }, Decision::Ejected { until })
    }
}

impl Outcome {
    /// Whether it speaks against a replica.
    pub fn is_failure(self) -> bool {
        match self {
            Outcome::ConnectFailed | Outcome::Reset | Outcome::TimedOut | Outcome::Status5xx => true,
            Outcome::Success | Outcome::Overloaded => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: Fleet = Fleet { replicas: 3, ejected: 0 };
    const FAILURES: [Outcome; 4] =
        [Outcome::ConnectFailed, Outcome::Reset, Outcome::TimedOut, Outcome::Status5xx];

    fn at(seconds: u64) -> Micros {
        Micros(seconds * 1_000_000)
    }

    /// Fails until something happens; the moment is the same for all.
    fn fail(mut state: Ejection, now: Micros) -> (Ejection, Decision) {
        for _ in 0..RULE.failures_max {
            let (next, decision) = state.record(RULE, Outcome::Reset, FLEET, now);
            if decision != Decision::Stays {
                return (next, decision);
            }
            state = next;
        }
        (state, Decision::Stays)
    }

    #[test]
    fn five_failures_in_a_row_eject_whatever_their_kind() {
        for kind in FAILURES {
            let mut state = Ejection::default();
            for n in 1..=5 {
                let (next, decision) = state.record(RULE, kind, FLEET, at(1));
                state = next;
                let expected = if n < 5 { Decision::Stays } else { Decision::Ejected { until: at(31) } };
                assert_eq!(decision, expected, "{kind:?} {n}");
            }
            assert_eq!(state.door(RULE, at(30)), Door::Shut);
            assert!(state.is_ejected());
        }
    }

    #[test]
    fn a_success_between_starts_the_count_again_and_a_503_does_not_count() {
        let mut state = Ejection::default();
        for round in 0..40 {
            let outcome = if round % 5 == 4 { Outcome::Success } else { Outcome::Status5xx };
            let (next, decision) = state.record(RULE, outcome, FLEET, at(round));
            assert_eq!(decision, Decision::Stays);
            state = next;
        }
        for round in 0..100 {
            let (next, decision) = state.record(RULE, Outcome::Overloaded, FLEET, at(40 + round));
            assert_eq!((next, decision), (state, Decision::Stays));
        }
    }

    #[test]
    fn after_its_time_exactly_one_probe_goes_through() {
        let (state, _) = fail(Ejection::default(), at(0));
        assert_eq!(state.probe(RULE, at(29)), None);
        assert_eq!(state.door(RULE, at(30)), Door::ProbeDue);
        let probing = state.probe(RULE, at(30)).expect("due");
        assert_eq!(probing.probe(RULE, at(31)), None);
        assert_eq!(probing.door(RULE, at(31)), Door::Shut);
        assert_eq!(
            probing.door(RULE, at(40)),
            Door::ProbeDue,
            "a probe without outcome does not block for ever"
        );
        let (closed, decision) = probing.record(RULE, Outcome::Success, FLEET, at(32));
        assert_eq!(decision, Decision::Returned);
        assert_eq!(closed.door(RULE, at(32)), Door::Open);
    }

    #[test]
    fn one_failed_probe_ejects_again_and_longer_up_to_the_cap() {
        let (mut state, _) = fail(Ejection::default(), at(0));
        let mut now = at(30);
        let mut lengths = Vec::new();
        for _ in 0..11 {
            let probing = state.probe(RULE, now).expect("due");
            let (next, decision) = probing.record(RULE, Outcome::ConnectFailed, FLEET, now);
            let Decision::Ejected { until } = decision else { panic!("{decision:?}") };
            lengths.push(until.since(now).as_secs());
            (state, now) = (next, until);
        }
        assert_eq!(lengths, [60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
    }

    #[test]
    fn good_time_is_forgiven_an_ejection_a_minute() {
        let (state, _) = fail(Ejection::default(), at(0));
        let probing = state.probe(RULE, at(30)).expect("due");
        let (closed, _) = probing.record(RULE, Outcome::Success, FLEET, at(30));
        let (_, soon) = fail(closed, at(60));
        let (_, late) = fail(closed, at(90));
        assert_eq!(soon, Decision::Ejected { until: at(60 + 60) });
        assert_eq!(late, Decision::Ejected { until: at(90 + 30) });
    }

    #[test]
    fn a_replica_that_was_restarted_is_taken_back_once_and_waits_when_it_crashes_in_a_loop() {
        let (ejected, _) = fail(Ejection::default(), at(0));
        let back = ejected.restarted(RULE, at(2));
        assert_eq!(back.door(RULE, at(2)), Door::Open);
        let (again, decision) = fail(back, at(3));
        assert_eq!(decision, Decision::Ejected { until: at(3 + 60) }, "it grows");
        assert_eq!(again.restarted(RULE, at(4)), again);
        assert_eq!(again.door(RULE, at(62)), Door::Shut);
        let calm = back.restarted(RULE, at(62));
        assert_eq!(
            fail(calm, at(63)).1,
            Decision::Ejected { until: at(63 + 30) },
            "a good minute is forgiven"
        );
    }

    #[test]
    fn a_full_replica_neither_returns_nor_is_punished_by_its_probe() {
        let (state, _) = fail(Ejection::default(), at(0));
        let probing = state.probe(RULE, at(30)).expect("due");
        let (again, decision) = probing.record(RULE, Outcome::Overloaded, FLEET, at(31));
        assert_eq!(decision, Decision::Stays);
        assert_eq!(again.door(RULE, at(31)), Door::ProbeDue);
    }

    #[test]
    fn late_outcomes_do_not_touch_an_ejection() {
        let (state, _) = fail(Ejection::default(), at(0));
        for outcome in FAILURES.into_iter().chain([Outcome::Success, Outcome::Overloaded]) {
            assert_eq!(state.record(RULE, outcome, FLEET, at(40)), (state, Decision::Stays));
        }
    }

    #[test]
    fn the_cap_spares_half_and_always_the_last_one() {
        for (replicas, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (10, 5)] {
            assert_eq!(Fleet { replicas, ejected: 0 }.ejected_max(), most, "{replicas} replicas");
        }
        let mut state = Ejection::default();
        for _ in 0..4 {
            (state, _) = state.record(RULE, Outcome::Reset, FLEET, at(0));
        }
        let full = Fleet { replicas: 3, ejected: 1 };
        let (spared, decision) = state.record(RULE, Outcome::Reset, full, at(0));
        assert_eq!(decision, Decision::Spared);
        let (_, decision) = spared.record(RULE, Outcome::Reset, FLEET, at(1));
        assert_eq!(decision, Decision::Ejected { until: at(31) }, "as soon as the cap allows");
    }
}
