//! What one account has in line, and what it has asked for of late, refused or not.
//!
//! Pure. The past second tells who asks for more than their part of what can be served: a moment in which the line stands
//! still makes everybody's calls pile up, those of the modest too.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::ids::Micros;

/// The distance between two turns of an account with weight one.
const STEP: u64 = 1 << 20;
/// Microseconds after which what was asked for counts a third.
pub(super) const MEMORY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// The turn after its last request.
    pub next: u64,
    /// Between two of its turns.
    pub step: u64,
    pub waiting: usize,
    /// Whether it asked for no more than its share, when it last did.
    pub is_modest: bool,
    asked: f64,
    at: Micros,
}

impl Account {
    /// One request more, of one who weighs so much; `part` is what an account of weight one may ask for in a second.
    pub fn ask(&mut self, weight: NonZeroU32, part: f64, now: Micros) {
        self.asked = self.lately(now) + 1.0;
        self.at = now;
        self.step = step(weight);
        self.is_modest = self.asked <= (part * f64::from(weight.get())).max(1.0);
    }

    /// Requests of the last second.
    pub fn lately(&self, now: Micros) -> f64 {
        self.asked * (-now.since(self.at).div_duration_f64(MEMORY)).exp()
    }

    /// How greedy it is with so many `more` in line.
    pub fn greed(&self, more: usize) -> Greed {
        let asks_for_more = !self.is_modest;
        Greed { asks_for_more, in_line: (self.waiting + more) as u64 * self.step }
    }
}

/// Who makes room for whom: whoever asks for more than their share, and of those, and of the others, whoever has most in
/// line for it, which is how long their last would have to wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Greed {
    asks_for_more: bool,
    in_line: u64,
}

/// Between two turns of who weighs so much.
fn step(weight: NonZeroU32) -> u64 {
    STEP / u64::from(weight.get()).clamp(1, STEP)
}
