//! What a run found, as a table for people and as JSON for scripts.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::tally::{Run, Tally};
use super::{Era, Kind, Plan};

/// Latencies in microseconds; all zero when nothing was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50_us: f64,
    /// 90 of 100 were faster.
    pub p90_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
    /// 999 of 1000 were faster.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
}

/// The result of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was done.
    pub kind: Kind,
    /// The era that was spoken.
    pub era: Era,
    /// Connections, streams or sessions at once.
    pub connections: usize,
    /// How long it took, warm-up included.
    pub seconds: f64,
    /// Answers of every kind.
    pub answers: u64,
    /// Right answers a second.
    pub per_second: f64,
    /// Right answers.
    pub right: u64,
    /// Answers with another id, other content or another kind of body.
    pub wrong: u64,
    /// JSON-RPC errors by code.
    pub faults: BTreeMap<i64, u64>,
    /// Other answers by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections refused, reset or closed instead of an answer.
    pub broken: u64,
    /// Events received.
    pub events: u64,
    /// Sessions or streams opened.
    pub opened: u64,
    /// Standing streams that ended before their time.
    pub cut: u64,
    /// Of right answers after the warm-up.
    pub latency: Latency,
    /// Of errors, in JSON-RPC or by their HTTP status, after the warm-up.
    pub refusals: Latency,
}

impl Report {
    pub(super) fn of(run: &Run) -> Report {
        Report::new(&run.plan, run.began.elapsed(), &run.tally.borrow())
    }

    pub(super) fn new(plan: &Plan, took: Duration, tally: &Tally) -> Report {
        let seconds = took.as_secs_f64();
        let others = tally.faults.values().sum::<u64>() + tally.statuses.values().sum::<u64>();
        Report {
            kind: plan.kind,
            era: plan.era,
            connections: plan.connections,
            seconds,
            answers: tally.right + tally.wrong + others,
            per_second: tally.right as f64 / seconds.max(f64::MIN_POSITIVE),
            right: tally.right,
            wrong: tally.wrong,
            faults: tally.faults.clone(),
            statuses: tally.statuses.clone(),
            broken: tally.broken,
            events: tally.events,
            opened: tally.opened,
            cut: tally.cut,
            latency: Latency::of(&tally.latency_ns),
            refusals: Latency::of(&tally.refusal_ns),
        }
    }

    /// Whether every answer was right and nothing broke.
    pub fn is_clean(&self) -> bool {
        self.answers == self.right && self.broken == 0 && self.cut == 0
    }
}

impl Latency {
    fn of(ns: &Histogram<u64>) -> Latency {
        let at = |quantile: f64| ns.value_at_quantile(quantile) as f64 / 1000.0;
        let max_us = ns.max() as f64 / 1000.0;
        Latency { p50_us: at(0.5), p90_us: at(0.9), p99_us: at(0.99), p999_us: at(0.999), max_us }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, value: String| writeln!(f, "  {name:<12} {value}");
        writeln!(f, "{:?}, {:?}, {} at once, {:.1} s", self.kind, self.era, self.connections, self.seconds)?;
        row(f, "right", format!("{} ({:.0}/s)", self.right, self.per_second))?;
        row(f, "not right", format!("{} wrong, {} broken, {} cut", self.wrong, self.broken, self.cut))?;
        for (code, count) in &self.faults {
            row(f, "fault", format!("{code}: {count}"))?;
        }
        for (status, count) in &self.statuses {
            row(f, "status", format!("{status}: {count}"))?;
        }
        if self.opened > 0 {
            row(f, "opened", self.opened.to_string())?;
        }
        if self.events > 0 {
            row(f, "events", format!("{} ({:.0}/s)", self.events, self.events as f64 / self.seconds))?;
        }
        if self.latency.max_us == 0.0 {
            return Ok(());
        }
        let Latency { p50_us, p90_us, p99_us, p999_us, max_us } = self.latency;
        row(
            f,
            "latency µs",
            format!("p50 {p50_us:.0}  p90 {p90_us:.0}  p99 {p99_us:.0}  p99.9 {p999_us:.0}  max {max_us:.0}"),
        )
    }
}
