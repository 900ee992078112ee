//! What requests have shown of one replica: latency, ejection, whether it is gone. The rules are `regatta_policy`'s.
//!
//! One short mutex a replica, taken once when a request ends and once when it is a candidate. Never reads a clock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::eject::{Decision, Door, Ejection, Fleet, Outcome, RULE};
use regatta_policy::ewma::{self, Ewma};
use regatta_policy::gone::{self, Attempt, Verdict, Watch};

/// What the replicas of one server share: how many they are, and how many of them are ejected.
#[derive(Debug, Default)]
pub(super) struct Flock {
    /// But draining ones.
    pub(super) replicas: AtomicUsize,
    ejected: AtomicUsize,
}

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
        let (next, decision) = seen.ejection.record(RULE, outcome, self.fleet(), now);
        self.change(&mut seen, next);
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
    pub(super) fn judge_gone(&self, attempt: Attempt, gone_after: Duration, now: Micros) -> Verdict {
        let mut seen = self.seen();
        let (watch, verdict) = gone::judge(seen.watch, attempt, gone_after, now);
        seen.watch = watch;
        verdict
    }

    /// The replica left the config.
    pub(super) fn leave(&self) {
        let mut seen = self.seen();
        if seen.ejection.is_ejected() && !seen.left {
            self.flock.ejected.fetch_sub(1, Ordering::Relaxed);
        }
        seen.left = true;
    }

    fn change(&self, seen: &mut Seen, next: Ejection) {
        let (before, after) = (seen.ejection.is_ejected(), next.is_ejected());
        seen.ejection = next;
        if seen.left || before == after {
            return;
        }
        if after {
            self.flock.ejected.fetch_add(1, Ordering::Relaxed);
        } else {
            self.flock.ejected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn fleet(&self) -> Fleet {
        Fleet {
            replicas: self.flock.replicas.load(Ordering::Relaxed),
            ejected: self.flock.ejected.load(Ordering::Relaxed),
        }
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
