//! When a server gets half as much for a moment, to see how fast it answers when nothing waits there.
//!
//! Pure. In an overload that never ends there is no other time to learn it (BBR, Cardwell et al. 2016, probes the round
//! trip time of a path in the same way). Often while each probe finds something new, and seldom then.

use crate::ids::Micros;

/// Microseconds from the end of one to the next, at the least and at the most.
const EVERY: (u64, u64) = (1_000_000, 16_000_000);
/// By so much what was found differs from what was believed, for it to be new.
const NEW: f64 = 0.25;

/// Now and then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    stage: Stage,
    due: Micros,
    every: u64,
    was_once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Off,
    /// The queue at the server goes away, until then.
    Settles(Micros),
    Looks,
}

impl Probe {
    /// The first is due as soon as the limit is used.
    pub fn new(now: Micros) -> Probe {
        Probe { stage: Stage::Off, due: now, every: EVERY.0, was_once: false }
    }

    /// Whether there has been one.
    pub fn was_once(&self) -> bool {
        self.was_once
    }

    /// Whether the limit is lowered.
    pub fn is_on(&self) -> bool {
        self.stage != Stage::Off
    }

    /// Whether what is answered now waited for nothing at the server.
    pub fn looks(&self) -> bool {
        self.stage == Stage::Looks
    }

    /// What is left of `limit` meanwhile; one at least.
    pub fn limit(limit: usize) -> usize {
        (limit / 2).max(1)
    }

    /// Begins, if it is time; calls take `mean` microseconds. Not those that were sent from now on count, of which the
    /// short ones would be answered first, but those that are answered once the others are.
    pub fn begin_if_due(&mut self, mean: f64, now: Micros) {
        if self.due <= now {
            self.stage = Stage::Settles(Micros(now.0 + 2 * mean as u64));
        }
    }

    /// Time goes on to `now`. Whether it begins to look.
    pub fn begins_to_look(&mut self, now: Micros) -> bool {
        let begins = matches!(self.stage, Stage::Settles(until) if until <= now);
        if begins {
            self.stage = Stage::Looks;
        }
        begins
    }

    /// Ends; latencies were `found` times what was believed.
    pub fn end(&mut self, found: f64, now: Micros) {
        self.every = if (found - 1.0).abs() < NEW { (self.every * 2).min(EVERY.1) } else { EVERY.0 };
        *self =
            Probe { stage: Stage::Off, due: Micros(now.0 + self.every), every: self.every, was_once: true };
    }
}
