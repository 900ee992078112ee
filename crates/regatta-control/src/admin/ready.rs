//! Whether the gateway wants new clients: starting, serving or draining, and what is worse than it should be.
//!
//! A degraded gateway is ready all the same: pulling the whole fleet because one shared thing is away turns a small
//! trouble into an outage (RELIABILITY 0.9).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not serving yet.
    Starting,
    /// Serving.
    Serving,
    /// Finishing what it has.
    Draining,
}

/// The gateway's readiness, set by the wiring and shown at `/ready`.
#[derive(Debug, Default)]
pub struct Readiness {
    phase: AtomicU8,
    degraded: Mutex<Vec<String>>,
}

impl Readiness {
    /// Moves to `phase`; seen by the next `/ready`.
    pub fn enter(&self, phase: Phase) {
        let code = match phase {
            Phase::Starting => 0,
            Phase::Serving => 1,
            Phase::Draining => 2,
        };
        self.phase.store(code, Ordering::Release);
    }

    /// Where the process is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Says what is worse than it should be, in fixed words without ids; replaces what was said before.
    pub fn degrade(&self, reasons: Vec<String>) {
        *self.degraded.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = reasons;
    }

    /// Whether new clients are wanted, and the body of `/ready`.
    pub fn answer(&self, more: &[String]) -> (bool, Value) {
        let phase = self.phase();
        let mut reasons = self.degraded.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        reasons.extend_from_slice(more);
        let (ready, word) = match phase {
            Phase::Starting => (false, "starting"),
            Phase::Serving => (true, "serving"),
            Phase::Draining => (false, "draining"),
        };
        (ready, json!({ "ready": ready, "phase": word, "degraded": !reasons.is_empty(), "reasons": reasons }))
    }
}
