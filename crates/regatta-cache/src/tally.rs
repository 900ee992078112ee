//! What one rule did: counts for metrics and for the word to an operator whose rule helps nobody.
//!
//! One per rule of the config, so bounded by it; plain counters that never wait.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one rule.
#[derive(Debug, Default)]
pub struct Tally {
    hits: AtomicU64,
    stale: AtomicU64,
    misses: AtomicU64,
    shared: AtomicU64,
    passed: AtomicU64,
    refreshed: AtomicU64,
    refused: AtomicU64,
    saved_bytes: AtomicU64,
    saved_micros: AtomicU64,
    held_bytes: AtomicI64,
    warned: AtomicBool,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Answers that came out of the cache while they were fresh.
    pub hits: u64,
    /// Answers that came out of it past their `ttl`.
    pub stale: u64,
    /// Requests that went to the server.
    pub misses: u64,
    /// Answers to those who waited for somebody else's request.
    pub shared: u64,
    /// Results that were not kept.
    pub passed: u64,
    /// Results fetched anew ahead of their end, or behind a stale answer.
    pub refreshed: u64,
    /// Looks into the shared store that found something which no gateway of the fleet had sealed for this place.
    pub refused: u64,
    /// Bytes of results that no server had to send.
    pub saved_bytes: u64,
    /// The time that servers took for them when they were fetched.
    pub saved: Duration,
    /// Bytes that are kept now.
    pub held_bytes: u64,
}

impl Tally {
    /// A fresh result was given out.
    pub fn hit(&self, bytes: usize, cost: Duration) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.save(bytes, cost);
    }

    /// A stale one was.
    pub fn stale(&self, bytes: usize, cost: Duration) {
        self.stale.fetch_add(1, Ordering::Relaxed);
        self.save(bytes, cost);
    }

    /// Somebody else's fetch answered too.
    pub fn shared(&self, bytes: usize, cost: Duration) {
        self.shared.fetch_add(1, Ordering::Relaxed);
        self.save(bytes, cost);
    }

    /// The server was asked.
    pub fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// A result was not kept.
    pub fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// A result is fetched anew in the background.
    pub fn refresh(&self) {
        self.refreshed.fetch_add(1, Ordering::Relaxed);
    }

    /// What the shared store had was not the fleet's own.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// `bytes` more are kept (or, negative, fewer).
    pub(crate) fn hold(&self, bytes: i64) {
        self.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The first caller that is told so has to say it to the operator: the rule was asked often and helped nobody.
    pub fn must_warn(&self) -> bool {
        let now = self.now();
        let hits = now.hits + now.stale + now.shared;
        regatta_policy::cache::is_useless(hits + now.misses, hits)
            && !self.warned.swap(true, Ordering::Relaxed)
    }

    /// The counts now.
    pub fn now(&self) -> Tallied {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Tallied {
            hits: read(&self.hits),
            stale: read(&self.stale),
            misses: read(&self.misses),
            shared: read(&self.shared),
            passed: read(&self.passed),
            refreshed: read(&self.refreshed),
            refused: read(&self.refused),
            saved_bytes: read(&self.saved_bytes),
            saved: Duration::from_micros(read(&self.saved_micros)),
            held_bytes: u64::try_from(self.held_bytes.load(Ordering::Relaxed)).unwrap_or(0),
        }
    }

    fn save(&self, bytes: usize, cost: Duration) {
        self.saved_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let micros = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
        self.saved_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_told_once_that_a_rule_helps_nobody() {
        let tally = Tally::default();
        (0..999).for_each(|_| tally.miss());
        assert!(!tally.must_warn());
        tally.miss();
        assert!(tally.must_warn());
        assert!(!tally.must_warn());
    }
}
