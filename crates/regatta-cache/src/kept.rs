//! One kept result, and how heavy it is.
//!
//! It carries its own end and the number of the purges it has seen, because the table it stands in knows no time. Its
//! weight is what it costs in memory, so that the bound in bytes is one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use regatta_policy::Micros;
use regatta_policy::cache::{Life, Worth};

use crate::cache::About;
use crate::form::{Form, Status};
use crate::key::LocalKey;

/// What an entry costs besides its text: itself, its keys, its place in the table, and the allocator's rounding.
const OVERHEAD: usize = 420;

/// A result that is kept.
#[derive(Debug)]
pub struct Kept {
    /// Its text.
    pub form: Form,
    /// When its fetch began.
    pub made: Micros,
    /// How long the fetch took.
    pub cost: Duration,
    /// How long it lives.
    pub life: Life,
    /// What it belongs to.
    pub(crate) about: About,
    /// The newest purge when its fetch began.
    pub(crate) since: u64,
    weight: u64,
}

/// What a result brings with it.
pub(crate) struct Made {
    pub form: Form,
    pub made: Micros,
    pub cost: Duration,
    pub life: Life,
    pub since: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct ByBytes;

impl Kept {
    pub(crate) fn new(about: About, made: Made) -> Kept {
        let Made { form, made, cost, life, since } = made;
        let weight = (form.len() + about.tool.len() + OVERHEAD) as u64;
        about.tally.hold(i64::try_from(weight).unwrap_or(i64::MAX));
        Kept { form, made, cost, life, about, since, weight }
    }

    /// How old it is.
    pub fn age(&self, now: Micros) -> Duration {
        now.since(self.made)
    }

    /// What it is worth now; nothing if it was purged.
    pub(crate) fn worth(&self, now: Micros, dice: u64) -> Worth {
        match self.about.is_struck(self.since) {
            true => Worth::Spent,
            false => self.life.worth(self.age(now), self.cost, dice),
        }
    }

    /// It as the response to the request `id` (raw JSON).
    pub fn response(&self, id: &[u8], status: Status, now: Micros) -> Bytes {
        let age = self.age(now);
        self.form.response(id, status, age, self.life.ttl.saturating_sub(age))
    }

    /// Counts that it is given out.
    pub fn tell(&self, status: Status) {
        match status {
            Status::Hit => self.about.tally.hit(self.form.len(), self.cost),
            Status::Stale => self.about.tally.stale(self.form.len(), self.cost),
            Status::Miss => self.about.tally.miss(),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.about.tally.hold(-i64::try_from(self.weight).unwrap_or(i64::MAX));
    }
}

impl Weighter<LocalKey, Arc<Kept>> for ByBytes {
    fn weight(&self, _: &LocalKey, kept: &Arc<Kept>) -> u64 {
        kept.weight
    }
}
