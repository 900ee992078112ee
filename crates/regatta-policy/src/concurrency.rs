//! How many calls a server gets at once, found from how it answers: a gradient of latencies.
//!
//! Pure: latencies and `now` in, the next limit out. Each tool has a baseline of its own (how fast it answers undisturbed), so
//! that a slow tool does not look like a slow server. While calls take longer than their baseline, the limit shrinks by
//! that gradient; while they do not, it grows by its square root (after Netflix' concurrency-limits, *Gradient2*).

use std::collections::BTreeMap;

use crate::ids::Micros;

/// Tools whose baseline is remembered; the others share one.
pub const BASELINES_MAX: usize = 64;
/// The limit never falls below.
pub const LIMIT_MIN: usize = 4;

/// Samples of one look.
const SAMPLES: u32 = 20;
/// How long a look takes at most, if there are a few samples.
const LOOK: u64 = 250_000;
/// Latency may grow by this factor before it counts.
const TOLERANCE: f64 = 1.5;
/// Microseconds after which a higher latency is the new baseline, by about two thirds.
const BELIEVED_AFTER: f64 = 60e6;
/// How much of a new target the limit takes at once.
const SMOOTHING: f64 = 0.2;

/// The limit of one server.
#[derive(Clone, Debug)]
pub struct Adaptive {
    limit: f64,
    /// How fast each tool answers undisturbed, and when it last did.
    baselines: BTreeMap<u64, (f64, Micros)>,
    /// Sum of `baseline / latency` of this look, each at most one.
    ratios: f64,
    samples: u32,
    began: Micros,
    /// The most calls in flight in this look.
    peak: usize,
    shrunk: bool,
}

impl Adaptive {
    /// Begins at `start`.
    pub fn new(start: usize, now: Micros) -> Adaptive {
        Adaptive {
            limit: start as f64,
            baselines: BTreeMap::new(),
            ratios: 0.0,
            samples: 0,
            began: now,
            peak: 0,
            shrunk: false,
        }
    }

    /// Calls that may be in flight.
    pub fn limit(&self) -> usize {
        (self.limit as usize).max(LIMIT_MIN)
    }

    /// A call of `tool` was answered after `latency_us`, while `in_flight` were under way, itself included. Gives the limit
    /// if that changed; it stays within `max`.
    pub fn answered(
        &mut self,
        tool: u64,
        latency_us: u64,
        in_flight: usize,
        max: usize,
        now: Micros,
    ) -> Option<usize> {
        let latency = latency_us.max(1) as f64;
        let baseline = self.baseline(tool, latency, now);
        self.ratios += (baseline / latency).min(1.0);
        self.samples += 1;
        self.peak = self.peak.max(in_flight);
        let passed = now.0.saturating_sub(self.began.0);
        let is_over = self.samples >= SAMPLES || (passed >= LOOK && self.samples >= 4);
        is_over.then(|| self.look(max, now)).flatten()
    }

    /// A call was not answered in time: less, but once a look only.
    pub fn timed_out(&mut self) -> Option<usize> {
        if self.shrunk {
            return None;
        }
        let before = self.limit();
        self.shrunk = true;
        self.limit = (self.limit * 0.9).max(LIMIT_MIN as f64);
        (self.limit() != before).then(|| self.limit())
    }

    /// Low latencies move a baseline quickly, high ones in a minute: a call that ended early by accident does not make all
    /// others look slow, and a server that has become slower for good is believed in the end.
    fn baseline(&mut self, tool: u64, latency: f64, now: Micros) -> f64 {
        let tool = match self.baselines.len() < BASELINES_MAX || self.baselines.contains_key(&tool) {
            true => tool,
            false => 0,
        };
        let (baseline, last) = self.baselines.entry(tool).or_insert((latency, now));
        let part = match latency < *baseline {
            true => 0.125,
            false => (now.0.saturating_sub(last.0) as f64 / BELIEVED_AFTER).min(0.125),
        };
        *baseline += (latency - *baseline) * part;
        *last = now;
        *baseline
    }

    fn look(&mut self, max: usize, now: Micros) -> Option<usize> {
        let before = self.limit();
        let gradient = (TOLERANCE * self.ratios / f64::from(self.samples)).clamp(0.5, 1.0);
        let target = self.limit * gradient + self.limit.sqrt();
        let next = self.limit + (target - self.limit) * SMOOTHING;
        // Whoever does not use the limit learns nothing about a higher one.
        if next < self.limit || self.limit * 0.8 <= self.peak as f64 {
            self.limit = next.clamp(LIMIT_MIN as f64, (max as f64).max(LIMIT_MIN as f64));
        }
        (self.ratios, self.samples, self.began, self.peak, self.shrunk) = (0.0, 0, now, 0, false);
        (self.limit() != before).then(|| self.limit())
    }
}

#[cfg(test)]
mod tests;
