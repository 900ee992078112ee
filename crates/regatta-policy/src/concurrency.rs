//! How many calls a server gets at once, found from how it answers: as many as it works on, and a few that wait there.
//!
//! Pure: latencies and `now` in, the next limit out. Each tool has a baseline of its own (how long it takes where nothing
//! waits), so that a slow tool does not look like a slow server. What calls take beyond their baselines they spent in a queue
//! at the server, and of those in flight so large a part stands there (Little's law); the limit goes to where that is a few (after
//! TCP Vegas, Brakmo and Peterson 1995). Whoever waits there waits behind whoever came before, so fairness ends at this queue.

use std::collections::BTreeMap;

use crate::ids::Micros;

mod probe;

use probe::Probe;

/// Tools whose baseline is remembered; the others share one.
pub const BASELINES_MAX: usize = 64;
/// The limit never falls below, but for a look at how fast the server answers then.
pub const LIMIT_MIN: usize = 4;

/// Samples of one look.
const SAMPLES: u32 = 20;
/// How many microseconds a look takes at most, if there are a few samples.
const LOOK: u64 = 250_000;
/// How much of a new target the limit takes at once.
const SMOOTHING: f64 = 0.2;
/// How many looks may change the limit by, at most half and at most to one and a half.
const GRADIENTS: (f64, f64) = (0.5, 1.5);
/// How many latencies make a mean; what is older counts less and less.
const REMEMBERED: u32 = 128;
/// By so much what a probe finds differs from what was believed, for this to be the server as it was no more.
const OTHER: f64 = 1.5;
/// How many wait at the server, as a part of the square root of the limit.
const HEADROOM: f64 = 0.75;
/// Means of so many differ by more than this if they are of different things.
const CHANCE: f64 = 0.8;

/// The limit of one server.
#[derive(Clone, Debug)]
pub struct Adaptive {
    limit: f64,
    baselines: BTreeMap<u64, Baseline>,
    look: Look,
    /// The most calls in flight in the look before.
    peak_before: usize,
    probe: Probe,
    shrunk: bool,
}

/// How long a tool takes, in microseconds.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    /// Where nothing waits at the server.
    undisturbed: f64,
    /// Of late, whatever waits.
    lately: f64,
    /// How many make up each.
    quiet: u32,
    samples: u32,
}

/// What was seen since it began.
#[derive(Clone, Copy, Debug)]
struct Look {
    began: Micros,
    samples: u32,
    /// Sum of latencies, microseconds.
    took: f64,
    /// What they would have come to by their baselines.
    undisturbed: f64,
    /// The most calls in flight.
    peak: usize,
}

impl Adaptive {
    /// Begins at `start`.
    pub fn new(start: usize, now: Micros) -> Adaptive {
        Adaptive {
            limit: start as f64,
            baselines: BTreeMap::new(),
            look: Look::new(now),
            peak_before: 0,
            probe: Probe::new(now),
            shrunk: false,
        }
    }

    /// Calls that may be in flight.
    pub fn limit(&self) -> usize {
        let limit = (self.limit as usize).max(LIMIT_MIN);
        if self.probe.is_on() { Probe::limit(limit) } else { limit }
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
        if self.probe.begins_to_look(now) {
            if !self.probe.was_once() {
                self.forget();
            }
            self.look = Look::new(now);
        }
        if self.probe.is_on() && !self.probe.looks() {
            return None;
        }
        let latency = latency_us.max(1) as f64;
        self.look.peak = self.look.peak.max(in_flight);
        self.look.undisturbed += self.baseline(tool, latency);
        self.look.took += latency;
        self.look.samples += 1;
        self.look.is_over(now).then(|| self.decide(max, now)).flatten()
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

    /// The baseline of `tool`, which has just taken `latency`.
    fn baseline(&mut self, tool: u64, latency: f64) -> f64 {
        let tool = match self.baselines.len() < BASELINES_MAX || self.baselines.contains_key(&tool) {
            true => tool,
            false => 0,
        };
        let is_quiet = self.probe.is_on() || self.look.peak.max(self.peak_before) * 2 <= self.limit();
        let new = Baseline { undisturbed: latency, lately: latency, quiet: 0, samples: 0 };
        let baseline = self.baselines.entry(tool).or_insert(new);
        baseline.take(latency, is_quiet);
        baseline.undisturbed
    }

    /// The end of a look.
    fn decide(&mut self, max: usize, now: Micros) -> Option<usize> {
        let before = self.limit();
        let look = std::mem::replace(&mut self.look, Look::new(now));
        self.shrunk = false;
        self.peak_before = look.peak;
        if self.probe.is_on() {
            let found = look.took / look.undisturbed;
            self.probe.end(found, now);
            if !(1.0 / OTHER..OTHER).contains(&found) {
                self.forget();
            }
        } else {
            if self.probe.was_once() {
                self.follow(look, max);
            }
            // Who does not use the limit has no queue to be looked behind.
            if self.uses_limit(look) {
                self.probe.begin_if_due(look.took / f64::from(look.samples), now);
            }
        }
        (self.limit() != before).then(|| self.limit())
    }

    /// To where a few of the calls in flight wait at the server.
    fn follow(&mut self, look: Look, max: usize) {
        let gradient = (look.undisturbed / look.took).clamp(GRADIENTS.0, GRADIENTS.1);
        let few = self.limit.sqrt() * HEADROOM;
        let next = self.limit + (self.limit * gradient + few - self.limit) * SMOOTHING;
        // Whoever does not use the limit learns nothing about a higher one; nor, far below it, about a lower one.
        let is_learnt =
            if next < self.limit { self.limit <= 2.0 * look.peak as f64 } else { self.uses_limit(look) };
        if is_learnt {
            self.limit = next;
        }
        self.limit = self.limit.clamp(LIMIT_MIN as f64, (max as f64).max(LIMIT_MIN as f64));
    }

    /// What is seen from now on makes up the baselines.
    fn forget(&mut self) {
        self.baselines.values_mut().for_each(|baseline| baseline.quiet = 0);
    }

    fn uses_limit(&self, look: Look) -> bool {
        self.limit * 0.8 <= look.peak as f64
    }
}

impl Baseline {
    /// One more latency. The first few are taken as undisturbed: there is nothing else to begin with.
    fn take(&mut self, latency: f64, is_quiet: bool) {
        mean(&mut self.lately, &mut self.samples, latency);
        if is_quiet || self.samples <= SAMPLES {
            mean(&mut self.undisturbed, &mut self.quiet, latency);
        }
        // Nothing takes longer undisturbed than disturbed, but for chance.
        if self.samples == REMEMBERED && self.lately < CHANCE * self.undisturbed {
            (self.undisturbed, self.quiet) = (self.lately, 0);
        }
    }
}

/// Takes `latency` into a mean of so many.
fn mean(mean: &mut f64, count: &mut u32, latency: f64) {
    *count = (*count + 1).min(REMEMBERED);
    *mean += (latency - *mean) / f64::from(*count);
}

impl Look {
    fn new(began: Micros) -> Look {
        Look { began, samples: 0, took: 0.0, undisturbed: 0.0, peak: 0 }
    }

    /// Enough was seen, and for as long as a call takes: what the limit did before shows by then.
    fn is_over(&self, now: Micros) -> bool {
        let passed = now.0.saturating_sub(self.began.0);
        let mean = self.took / f64::from(self.samples);
        let is_enough = self.samples >= SAMPLES || (passed >= LOOK && self.samples >= 4);
        is_enough && mean <= passed as f64
    }
}

#[cfg(test)]
mod tests;
