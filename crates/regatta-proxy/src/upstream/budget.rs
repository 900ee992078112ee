//! How many connections this gateway may have to all replicas of one server, and how many it has.
//!
//! Most servers have no such bound. Where one has, this gateway's part of it comes from outside (`budgets.rs`) and changes;
//! what is in use beyond a smaller part is closed as it becomes idle. Never opens a connection, nor waits for one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use super::replica::Upstream;

/// The part of one gateway.
pub struct Budget {
    units: AtomicUsize,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    pub(super) freed: Notify,
    /// Where idle connections can be closed for the sake of others.
    replicas: Mutex<Vec<Weak<Upstream>>>,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            units: AtomicUsize::new(usize::MAX),
            taken: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            replicas: Mutex::default(),
        }
    }
}

/// What is known of a budget at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Connections, idle ones included.
    pub taken: usize,
    /// Of these, idle.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

impl Budget {
    /// From now on there may be `units` connections; `usize::MAX`: any number.
    pub fn set(&self, units: usize) {
        self.units.store(units, Ordering::SeqCst);
        while self.is_over() && self.close_idle() {}
        self.freed.notify_waiters();
    }

    /// Whether there is a bound at all. Where there is one, nothing is allowed before a part is.
    pub(super) fn bound(&self, is_bounded: bool) {
        let is_set = self.units() != usize::MAX;
        match (is_bounded, is_set) {
            (true, false) => self.set(0),
            (false, true) => self.set(usize::MAX),
            (true, true) | (false, false) => {}
        }
    }

    /// Connections that there may be.
    pub fn units(&self) -> usize {
        self.units.load(Ordering::SeqCst)
    }

    /// How it is used now.
    pub fn used(&self) -> Use {
        let idle = self.replicas().iter().filter_map(Weak::upgrade).map(|one| one.pool.idle_count()).sum();
        let (taken, waiting) = (self.taken.load(Ordering::SeqCst), self.waiting.load(Ordering::SeqCst));
        Use { taken, idle, waiting }
    }

    pub(super) fn serve(&self, replicas: Vec<Weak<Upstream>>) {
        *self.replicas() = replicas;
    }

    /// One more connection, if there may be one, or an idle one elsewhere can be closed for it.
    pub(super) fn take(&self) -> bool {
        self.take_free() || (self.close_idle() && self.take_free())
    }

    fn take_free(&self) -> bool {
        let units = self.units();
        let more = |taken: usize| (taken < units).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        let was_wanted = self.is_wanted();
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if was_wanted {
            self.freed.notify_one();
        }
    }

    /// Whether a connection that becomes idle is better closed: there are too many, or somebody waits for the right to one.
    pub(super) fn is_short(&self) -> bool {
        self.is_over() || self.is_wanted()
    }

    fn is_over(&self) -> bool {
        self.taken.load(Ordering::SeqCst) > self.units()
    }

    /// Whether somebody waits, and for the right rather than for a connection to one replica.
    fn is_wanted(&self) -> bool {
        let is_full = self.taken.load(Ordering::SeqCst) >= self.units();
        is_full && self.waiting.load(Ordering::SeqCst) > 0
    }

    pub(super) fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Closes one idle connection; false if there is none.
    fn close_idle(&self) -> bool {
        let replicas: Vec<_> = self.replicas().iter().filter_map(Weak::upgrade).collect();
        replicas.iter().any(|replica| replica.pool.close_oldest())
    }

    fn replicas(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Upstream>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
