//! What each caller holds: open streams, detached calls, and its rate of new sessions.
//!
//! One entry per caller that holds something or began a session lately; an empty one is removed at once, a
//! rate entry when its time has passed, so memory follows the live callers and not all that ever were.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::budget::{Bounds, Held, Verdict, judge};
use regatta_policy::quota::gcra;
use regatta_policy::snapshot::Limits;

use crate::handover::Account;

/// Counts by caller.
#[derive(Default)]
pub(crate) struct Callers {
    streams: Arc<Tally<Account>>,
    detached: Arc<Tally<Account>>,
    sessions: Mutex<HashMap<Account, Micros>>,
}

/// A place among a caller's open streams.
pub(crate) type StreamPlace = TallyPlace<Account>;
/// A place among a caller's detached calls.
pub(crate) type DetachedPlace = TallyPlace<Account>;

/// Rate entries kept at most; beyond it the ones that say nothing any more go.
const SESSIONS_KEPT: usize = 65_536;

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

    /// One more `initialize` of `account`; else how long it has to wait.
    pub fn session(&self, account: Account, limits: &Limits, now: Micros) -> Result<(), Duration> {
        let per_minute = NonZeroU32::new(limits.initialize_per_minute_max).unwrap_or(NonZeroU32::MIN);
        let rate = gcra::Rate::new(per_minute, Duration::from_secs(60), per_minute);
        let mut sessions = lock(&self.sessions);
        match gcra::judge(sessions.get(&account).copied(), rate, NonZeroU32::MIN, now) {
            gcra::Verdict::Limited { retry_after } => Err(Duration::from_micros(retry_after.0)),
            gcra::Verdict::Granted { tat } => {
                if sessions.len() >= SESSIONS_KEPT {
                    sessions.retain(|_, tat| *tat > now);
                }
                sessions.insert(account, tat);
                Ok(())
            }
        }
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
