//! What the replicas of one server share: how many they are, how many are ejected or fail, and the server's own breaker.
//!
//! A server whose every replica fails is shut: its requests are refused at once, and one at a time may try whether it is
//! back. The rules are `regatta_policy::eject`'s. Never reads a clock.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_policy::Micros;
use regatta_policy::eject::{Decision, Door, Ejection, Fleet, Outcome, RULE, SERVER_FLEET, SERVER_RULE};
use regatta_policy::snapshot::Breaker;

use super::budget::Budget;

/// The replicas of one server, together.
#[derive(Default)]
pub(super) struct Flock {
    /// But draining ones.
    pub(super) replicas: AtomicUsize,
    ejected: AtomicUsize,
    failing: AtomicUsize,
    /// Failures in a row, of all of them together: what an ejected replica did last says little of now.
    in_a_row: AtomicUsize,
    /// Whether the breaker is not closed; read on every request.
    is_shut: AtomicBool,
    /// The operator wants none.
    is_unarmed: AtomicBool,
    breaker: Mutex<Ejection>,
    pub(super) budget: Arc<Budget>,
}

/// Whether a server takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// It does.
    Open,
    /// It does: this one tries for all others.
    Probe,
    /// Every replica fails.
    Shut,
}

impl Flock {
    /// Whether the server is shut at all when every replica fails.
    pub(super) fn arm(&self, breaker: Breaker) {
        let is_unarmed = breaker == Breaker::Off;
        self.is_unarmed.store(is_unarmed, Ordering::Relaxed);
        if is_unarmed && self.is_shut.load(Ordering::Relaxed) {
            self.open();
        }
    }

    /// A replica's state changed.
    pub(super) fn change(&self, before: Ejection, after: Ejection) {
        let step = |count: &AtomicUsize, before: bool, after: bool| match (before, after) {
            (false, true) => _ = count.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = count.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => {}
        };
        step(&self.ejected, before.is_ejected(), after.is_ejected());
        step(&self.failing, before.is_failing(RULE), after.is_failing(RULE));
    }

    pub(super) fn fleet(&self) -> Fleet {
        Fleet {
            replicas: self.replicas.load(Ordering::Relaxed),
            ejected: self.ejected.load(Ordering::Relaxed),
        }
    }

    /// A request to one of the replicas ended, and that replica's state was changed already.
    pub(super) fn record(&self, outcome: Outcome, now: Micros) {
        let replicas = self.replicas.load(Ordering::Relaxed);
        let in_a_row = self.count(outcome);
        let all_fail = replicas > 0
            && self.failing.load(Ordering::Relaxed) >= replicas
            && in_a_row >= replicas * RULE.failures_max as usize;
        let is_shut = self.is_shut.load(Ordering::Relaxed);
        let is_unarmed = self.is_unarmed.load(Ordering::Relaxed);
        let shuts = all_fail && outcome.is_failure();
        if is_unarmed || !(is_shut || shuts) {
            return;
        }
        let mut breaker = self.breaker();
        let (next, decision) = breaker.record(SERVER_RULE, outcome, SERVER_FLEET, now);
        *breaker = next;
        self.is_shut.store(next.is_ejected(), Ordering::Relaxed);
        match decision {
            Decision::Ejected { until } => {
                tracing::warn!(
                    ms = until.since(now).as_millis() as u64,
                    "every replica of a server fails: shut"
                );
            }
            Decision::Returned => tracing::info!("a server that was shut is back"),
            Decision::Spared | Decision::Stays => {}
        }
    }

    /// Failures in a row, this outcome included.
    fn count(&self, outcome: Outcome) -> usize {
        match outcome {
            Outcome::Success => {
                // Mostly it is zero, and then nobody else's cache is disturbed.
                if self.in_a_row.load(Ordering::Relaxed) > 0 {
                    self.in_a_row.store(0, Ordering::Relaxed);
                }
                0
            }
            Outcome::Overloaded => self.in_a_row.load(Ordering::Relaxed),
            Outcome::ConnectFailed | Outcome::Reset | Outcome::TimedOut | Outcome::Status5xx => {
                self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1
            }
        }
    }

    /// Whether a request may be sent; of those that come while a probe is due, one is the probe.
    pub(super) fn knock(&self, now: impl FnOnce() -> Micros) -> Knock {
        if !self.is_shut.load(Ordering::Relaxed) {
            return Knock::Open;
        }
        let now = now();
        let mut breaker = self.breaker();
        if breaker.door(SERVER_RULE, now) == Door::Open {
            return Knock::Open;
        }
        match breaker.probe(SERVER_RULE, now) {
            Some(next) => {
                *breaker = next;
                Knock::Probe
            }
            None => Knock::Shut,
        }
    }

    /// Probes of our own say that a replica is up again.
    pub(super) fn open(&self) {
        *self.breaker() = Ejection::default();
        self.in_a_row.store(0, Ordering::Relaxed);
        self.is_shut.store(false, Ordering::Relaxed);
    }

    fn breaker(&self) -> MutexGuard<'_, Ejection> {
        // The rules under it do not panic.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Micros {
        Micros(ms * 1_000)
    }

    /// A replica after so many failures.
    fn failed(times: u32) -> Ejection {
        let one = |state: Ejection, _| state.record(RULE, Outcome::Reset, SERVER_FLEET, ms(0)).0;
        (0..times).fold(Ejection::default(), one)
    }

    fn fail(flock: &Flock, times: usize, outcome: Outcome) {
        (0..times).for_each(|_| flock.record(outcome, ms(2)));
    }

    #[test]
    fn a_server_is_shut_when_the_last_replica_fails_and_one_request_at_a_time_tries_it() {
        let flock = Flock::default();
        flock.replicas.store(2, Ordering::Relaxed);
        flock.change(Ejection::default(), failed(5));
        fail(&flock, 20, Outcome::Reset);
        assert_eq!(flock.knock(|| ms(1)), Knock::Open, "the other one serves");
        flock.change(Ejection::default(), failed(5));
        fail(&flock, 1, Outcome::TimedOut);
        assert_eq!(flock.knock(|| ms(3)), Knock::Shut);
        assert_eq!([flock.knock(|| ms(502)), flock.knock(|| ms(502))], [Knock::Probe, Knock::Shut]);
        flock.record(Outcome::Status5xx, ms(503));
        assert_eq!(flock.knock(|| ms(1_500)), Knock::Shut, "the second time is longer");
        assert_eq!(flock.knock(|| ms(1_503)), Knock::Probe);
        flock.record(Outcome::Success, ms(1_510));
        assert_eq!(flock.knock(|| ms(1_511)), Knock::Open);
    }

    #[test]
    fn replicas_that_are_ejected_and_answer_keep_the_server_open() {
        let flock = Flock::default();
        flock.replicas.store(2, Ordering::Relaxed);
        (0..2).for_each(|_| flock.change(Ejection::default(), failed(5)));
        for _ in 0..10 {
            fail(&flock, 9, Outcome::ConnectFailed);
            flock.record(Outcome::Success, ms(2));
            assert_eq!(flock.knock(|| ms(3)), Knock::Open);
        }
    }

    #[test]
    fn probes_of_our_own_open_it_again() {
        let flock = Flock::default();
        flock.replicas.store(1, Ordering::Relaxed);
        flock.change(Ejection::default(), failed(5));
        fail(&flock, 5, Outcome::ConnectFailed);
        assert_eq!(flock.knock(|| ms(3)), Knock::Shut);
        flock.open();
        assert_eq!(flock.knock(|| ms(3)), Knock::Open);
    }
}
