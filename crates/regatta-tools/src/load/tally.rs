//! What has been counted so far in one run; shared by all connections of one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Plan;
use super::answer::Verdict;
use super::message::ID_FIRST;

/// Counts of one run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies in nanoseconds, of answers after the warm-up only.
    pub latency_ns: Histogram<u64>,
    /// The same of answers that are errors, in JSON-RPC or by their HTTP status.
    pub refusal_ns: Histogram<u64>,
    /// Right answers.
    pub right: u64,
    /// Answers with another id, other content or another kind of body.
    pub wrong: u64,
    /// JSON-RPC errors by code.
    pub faults: BTreeMap<i64, u64>,
    /// Answers that were neither, by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections refused, reset or closed instead of an answer.
    pub broken: u64,
    /// Events received.
    pub events: u64,
    /// Sessions or streams opened.
    pub opened: u64,
    /// Standing streams that ended before their time.
    pub cut: u64,
}

impl Default for Tally {
    fn default() -> Self {
        // Three digits from 1 ns to 100 s are within the type's limits, whatever the run does.
        let histogram =
            || Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("constant bounds are valid");
        Tally {
            latency_ns: histogram(),
            refusal_ns: histogram(),
            right: 0,
            wrong: 0,
            faults: BTreeMap::new(),
            statuses: BTreeMap::new(),
            broken: 0,
            events: 0,
            opened: 0,
            cut: 0,
        }
    }
}

impl Tally {
    /// Counts one answer; `latency` is `None` during the warm-up.
    pub fn count(&mut self, verdict: Verdict, latency: Option<Duration>) {
        match verdict {
            Verdict::Right => self.right += 1,
            Verdict::Wrong => self.wrong += 1,
            Verdict::Fault(code) => *self.faults.entry(code).or_default() += 1,
            Verdict::Status(status) => *self.statuses.entry(status).or_default() += 1,
        }
        let ns = |latency: Duration| u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        match (verdict, latency) {
            (Verdict::Right, Some(latency)) => self.latency_ns.saturating_record(ns(latency)),
            (Verdict::Fault(_) | Verdict::Status(_), Some(latency)) => {
                self.refusal_ns.saturating_record(ns(latency));
            }
            (Verdict::Wrong, _) | (_, None) => {}
        }
    }

    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Tally) {
        self.latency_ns += &other.latency_ns;
        self.refusal_ns += &other.refusal_ns;
        self.right += other.right;
        self.wrong += other.wrong;
        self.broken += other.broken;
        self.events += other.events;
        self.opened += other.opened;
        self.cut += other.cut;
        other.faults.iter().for_each(|(code, count)| *self.faults.entry(*code).or_default() += count);
        other.statuses.iter().for_each(|(status, count)| *self.statuses.entry(*status).or_default() += count);
    }
}

/// One run as its tasks see it: the clock, the ids left, the counts.
pub struct Run {
    /// The plan.
    pub plan: Plan,
    /// When the first call was sent.
    pub began: Instant,
    /// The counts.
    pub tally: RefCell<Tally>,
    next_id: Cell<u64>,
    left: Cell<u64>,
}

impl Run {
    /// A run that begins now.
    pub fn new(plan: Plan) -> Run {
        let left = Cell::new(plan.count.unwrap_or(u64::MAX));
        Run { plan, began: Instant::now(), tally: RefCell::default(), next_id: Cell::new(ID_FIRST), left }
    }

    /// An id for a message that is not counted, such as `initialize`.
    pub fn id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    /// The id of the next call, unless time or count is used up.
    pub fn next_call(&self) -> Option<u64> {
        if self.left.get() == 0 || self.began.elapsed() > self.plan.warm_up + self.plan.seconds {
            return None;
        }
        self.left.set(self.left.get() - 1);
        Some(self.id())
    }

    /// The latency of a call sent at `sent`, if it counts.
    pub fn latency(&self, sent: Instant) -> Option<Duration> {
        (sent.duration_since(self.began) >= self.plan.warm_up).then(|| sent.elapsed())
    }
}
