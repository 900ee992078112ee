//! What requests have shown of one replica: latency, ejection, whether it is gone. The rules are `regatta_policy`'s.
//!
//! One short mutex a replica, taken once when a request ends and once when it is a candidate. Never reads a clock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::eject::{Decision, Door, Ejection, Outcome, RULE};
use regatta_policy::ewma::{self, Ewma};
use regatta_policy::gone::{self, Attempt, Verdict, Watch};
use regatta_policy::snapshot::{CallBounds, Health};

use super::flock::{Flock, Knock};

/// What is known of one replica.
pub(super) struct Vitals {
    flock: Arc<Flock>,
    seen: Mutex<Seen>,
}

/// The state behind the mutex.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) latency: Option<Ewma>,
    ejection: Ejection,
    /// The end of the last ejection; in the past if it is over.
    pub(super) ejected_until: Micros,
    /// Since when it serves, or serves again.
    pub(super) since: Micros,
    watch: Watch,
    /// What probes said of it last.
    health: Health,
    /// It left the config: it is not counted in the flock any more.
    left: bool,
}

impl Vitals {
    pub(super) fn new(flock: Arc<Flock>, now: Micros) -> Vitals {
        let seen = Seen {
            latency: None,
            ejection: Ejection::default(),
            ejected_until: Micros(0),
            since: now,
            watch: Watch::default(),
            health: Health::Unknown,
            left: false,
        };
        Vitals { flock, seen: Mutex::new(seen) }
    }

    /// A copy of what is known.
    pub(super) fn look(&self) -> Seen {
        *self.seen()
    }

    /// A request ended with `outcome`; `latency` only if its answer was whole and no stream.
    pub(super) fn record(&self, outcome: Outcome, latency: Option<Duration>, now: Micros) -> Decision {
        let mut seen = self.seen();
        if let Some(latency) = latency {
            seen.latency = Some(ewma::observe(seen.latency, latency, now));
        }
        let (next, decision) = seen.ejection.record(RULE, outcome, self.flock.fleet(), now);
        self.change(&mut seen, next);
        self.flock.record(outcome, now);
        match decision {
            Decision::Ejected { until } => seen.ejected_until = until,
            Decision::Returned => (seen.since, seen.ejected_until) = (now, now),
            Decision::Stays | Decision::Spared => {}
        }
        decision
    }

    /// A request is about to be sent: if a probe is due, it is the probe.
    pub(super) fn begin(&self, now: Micros) {
        let mut seen = self.seen();
        if let Some(next) = seen.ejection.probe(RULE, now) {
            self.change(&mut seen, next);
        }
    }

    /// Whether a bound session may leave, after `attempt`.
    pub(super) fn judge_gone(&self, attempt: Attempt, bounds: &CallBounds, now: Micros) -> Verdict {
        let mut seen = self.seen();
        let (watch, verdict) = gone::judge(seen.watch, attempt, bounds, now);
        seen.watch = watch;
        verdict
    }

    /// Probes say `health`. A replica that was down and is up again is a new one: what was held against the old one is
    /// forgotten, unless that is a loop, and its share grows as a new one's does.
    pub(super) fn hear(&self, health: Health, now: Micros) {
        let mut seen = self.seen();
        let was_down = matches!(seen.health, Health::Unhealthy | Health::Unreachable);
        seen.health = health;
        if was_down && health == Health::Healthy {
            let next = seen.ejection.restarted(RULE, now);
            self.change(&mut seen, next);
            self.flock.open();
            seen.watch = Watch::default();
            if !next.is_ejected() {
                (seen.since, seen.ejected_until) = (now, now);
            }
        }
    }

    /// The replica left the config.
    pub(super) fn leave(&self) {
        let mut seen = self.seen();
        if !seen.left {
            self.flock.change(seen.ejection, Ejection::default());
        }
        seen.left = true;
    }

    fn change(&self, seen: &mut Seen, next: Ejection) {
        if !seen.left {
            self.flock.change(seen.ejection, next);
        }
        seen.ejection = next;
    }

    /// Whether its server takes a request: all replicas of a server give the same answer.
    pub(super) fn knock(&self, now: impl FnOnce() -> Micros) -> Knock {
        self.flock.knock(now)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // The rules behind it do not panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether it is put aside at `now`. One whose probe is due is not: whoever chooses it probes.
    pub(super) fn is_shut(&self, now: Micros) -> bool {
        match self.ejection.door(RULE, now) {
            Door::Open | Door::ProbeDue => false,
            Door::Shut => true,
        }
    }

    /// Whether it is ejected, a probe under way or due included.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejection.is_ejected()
    }

    /// Average latency in microseconds, 0 while unknown.
    pub(super) fn latency_us(&self, now: Micros) -> u64 {
        self.latency.map_or(0, |latency| latency.read_us(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_replica_that_was_down_and_is_up_again_starts_with_a_clean_slate() {
        let flock = Arc::new(Flock::default());
        flock.replicas.store(3, Ordering::Relaxed);
        let vitals = Vitals::new(flock.clone(), Micros(0));
        for at in 1..=5 {
            vitals.record(Outcome::ConnectFailed, None, Micros(at));
        }
        assert!(vitals.look().is_shut(Micros(10)), "five failures eject");
        vitals.hear(Health::Healthy, Micros(11));
        assert!(vitals.look().is_shut(Micros(12)), "probes that never failed say nothing new");
        vitals.hear(Health::Unreachable, Micros(13));
        vitals.hear(Health::Healthy, Micros(14));
        assert!(!vitals.look().is_shut(Micros(15)));
        assert_eq!(vitals.look().since, Micros(14), "slow start, as for a new one");
        assert_eq!(flock.fleet().ejected, 0);
    }
}
