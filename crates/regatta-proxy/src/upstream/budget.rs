//! How many connections this gateway may have to all replicas of one server, and how many it has.
//!
//! Most servers have no such bound. Where one has, this gateway's part of it comes from outside (`budgets.rs`), changes, and
//! has an end; what is in use beyond a smaller part is closed as it becomes idle. Never opens a connection, nor waits for
//! one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use regatta_store::Allowance;
use tokio::sync::Notify;

use super::replica::Upstream;

/// The part of one gateway.
#[derive(Default)]
pub struct Budget {
    /// Whether `counts` has a bound; looked at after every request.
    is_bounded: AtomicBool,
    /// Held for sums only, never while a connection is closed: that gives back, and takes it again.
    counts: Mutex<Counts>,
    pub(super) freed: Notify,
    /// Where idle connections can be closed for the sake of others.
    replicas: Mutex<Vec<Weak<Upstream>>>,
}

#[derive(Default)]
struct Counts {
    /// `None`: any number.
    allowance: Option<Allowance>,
    taken: usize,
    waiting: usize,
}

/// What is known of a budget at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Connections that there may be.
    pub allowed: usize,
    /// Connections, idle ones included.
    pub taken: usize,
    /// Requests that wait for the right to one.
    pub waiting: usize,
}

impl Counts {
    fn allowed(&self) -> usize {
        self.allowance.map_or(usize::MAX, |allowance| allowance.at(Instant::now()) as usize)
    }
}

impl Budget {
    /// From now on there may be so many connections, if there is a bound at all.
    pub fn set(&self, allowance: Allowance) {
        if let Some(bound) = &mut self.counts().allowance {
            *bound = allowance;
        }
        self.adapt();
    }

    /// Whether there is a bound at all. Where there is one, nothing is allowed before a part is.
    pub(super) fn bound(&self, is_bounded: bool) {
        if is_bounded != self.is_bounded.swap(is_bounded, Ordering::SeqCst) {
            self.counts().allowance = is_bounded.then_some(Allowance::NOTHING);
            self.adapt();
        }
    }

    fn adapt(&self) {
        while self.is_over() && self.close_idle() {}
        self.freed.notify_waiters();
    }

    /// How it is used now.
    pub fn used(&self) -> Use {
        let counts = self.counts();
        Use { allowed: counts.allowed(), taken: counts.taken, waiting: counts.waiting }
    }

    pub(super) fn serve(&self, replicas: Vec<Weak<Upstream>>) {
        *self.replicas() = replicas;
    }

    /// One more connection, if there may be one, or an idle one elsewhere can be closed for it.
    pub(super) fn take(&self) -> bool {
        self.take_free() || (self.close_idle() && self.take_free())
    }

    fn take_free(&self) -> bool {
        let mut counts = self.counts();
        let is_free = counts.taken < counts.allowed();
        counts.taken += usize::from(is_free);
        is_free
    }

    pub(super) fn give_back(&self) {
        self.counts().taken -= 1;
        self.wake();
    }

    /// Wakes one who waits, if one more is allowed.
    fn wake(&self) {
        let is_wanted = {
            let counts = self.counts();
            counts.waiting > 0 && counts.taken < counts.allowed()
        };
        if is_wanted {
            self.freed.notify_one();
        }
    }

    /// Whether a connection that becomes idle is better closed: there are too many, or all there may be and more wait for
    /// the right to one than the `here` that could use this very one.
    pub(super) fn is_short(&self, here: usize) -> bool {
        if !self.is_bounded.load(Ordering::Relaxed) {
            return false;
        }
        let counts = self.counts();
        let allowed = counts.allowed();
        counts.taken > allowed || (counts.taken == allowed && counts.waiting > here)
    }

    fn is_over(&self) -> bool {
        let counts = self.counts();
        counts.taken > counts.allowed()
    }

    pub(super) fn begin_waiting(&self) {
        self.counts().waiting += 1;
    }

    /// Whoever waits no longer may have been woken in vain, and says so to the next.
    pub(super) fn end_waiting(&self) {
        self.counts().waiting -= 1;
        self.wake();
    }

    /// Closes one idle connection; false if there is none.
    fn close_idle(&self) -> bool {
        let replicas: Vec<_> = self.replicas().iter().filter_map(Weak::upgrade).collect();
        replicas.iter().any(|replica| replica.pool.close_oldest())
    }

    fn replicas(&self) -> MutexGuard<'_, Vec<Weak<Upstream>>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Sums, whole after each step.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
