//! What each caller holds: open streams and detached calls.
//!
//! One entry per caller that holds something; an empty one is removed at once, so memory follows the live callers and
//! not all that ever were. What callers *use up* is in quotas.rs.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_policy::budget::{Bounds, Held, Verdict, judge};
use regatta_policy::snapshot::Limits;

use crate::handover::Account;

/// Counts by caller.
#[derive(Default)]
pub(crate) struct Callers {
    streams: Arc<Tally<Account>>,
    detached: Arc<Tally<Account>>,
}

/// A place among a caller's open streams.
pub(crate) type StreamPlace = TallyPlace<Account>;
/// A place among a caller's detached calls.
pub(crate) type DetachedPlace = TallyPlace<Account>;

impl Callers {
    /// One more open stream of `account`.
    pub fn stream(&self, account: Account, limits: &Limits) -> Result<StreamPlace, Verdict> {
        let bounds = Bounds { own_max: limits.streams_per_principal_max, all_max: limits.streams_max };
        self.streams.take(account, bounds)
    }

    /// One more call of `account` without a connection.
    pub fn detach(&self, account: Account, limits: &Limits) -> Option<DetachedPlace> {
        let bounds = Bounds { own_max: limits.detached_per_principal_max, all_max: limits.detached_max };
        self.detached.take(account, bounds).ok()
    }

    /// Open streams in all, for metrics.
    pub fn streams_open(&self) -> usize {
        lock(&self.streams.inner).all
    }
}

/// How many of one thing each caller holds.
pub(crate) struct Tally<K> {
    inner: Mutex<Counts<K>>,
}

struct Counts<K> {
    own: HashMap<K, usize>,
    all: usize,
}

/// One of a caller's places, until it is dropped.
pub(crate) struct TallyPlace<K: Eq + Hash + Copy> {
    tally: Arc<Tally<K>>,
    key: K,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Tally { inner: Mutex::new(Counts { own: HashMap::new(), all: 0 }) }
    }
}

impl<K: Eq + Hash + Copy> Tally<K> {
    fn take(self: &Arc<Self>, key: K, bounds: Bounds) -> Result<TallyPlace<K>, Verdict> {
        let mut counts = lock(&self.inner);
        let held = Held { own: counts.own.get(&key).copied().unwrap_or(0), all: counts.all };
        match judge(held, bounds) {
            Verdict::Granted => {
                *counts.own.entry(key).or_insert(0) += 1;
                counts.all += 1;
                Ok(TallyPlace { tally: self.clone(), key })
            }
            refused @ (Verdict::Limited | Verdict::Shed) => Err(refused),
        }
    }
}

impl<K: Eq + Hash + Copy> Drop for TallyPlace<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.tally.inner);
        counts.all -= 1;
        if let Some(own) = counts.own.get_mut(&self.key) {
            *own -= 1;
            if *own == 0 {
                counts.own.remove(&self.key);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is a single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
