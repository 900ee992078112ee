//! The connections to one replica: idle ones on a stack, the number of all, and who waits for one.
//!
//! The stack is last in, first out, so the connections that a lull makes superfluous grow old together and are swept. Its
//! mutex is held for a push or a pop, never over an await. Never opens a connection by itself.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_policy::Micros;
use tokio::sync::Notify;

use super::budget::Budget;
use super::link::Link;

/// Shorter than the five seconds after which Node.js and uvicorn close: we close first, so that no request meets a
/// connection that is just being closed (RELIABILITY F26).
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Idle connections that are kept, whatever the bound of all connections is.
const IDLE_MAX: usize = 1024;

/// A connection that came back this lately: the replica has traffic.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// All connections to one replica.
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    places: Arc<Places>,
    /// The replica left: nothing is kept any more.
    closed: AtomicBool,
    /// Connections taken from the stack.
    pub(super) reused: AtomicU64,
}

struct Idle {
    link: Box<Link>,
    since: Micros,
}

/// How many connections there are; outlives the pool in the connections that are busy.
struct Places {
    /// Of all replicas of the server.
    budget: Arc<Budget>,
    taken: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

/// The right to one connection, until dropped.
pub(super) struct Slot {
    places: Arc<Places>,
}

/// What a request that needs a connection gets.
pub(super) enum Turn {
    /// One that was used before.
    Kept(Box<Link>),
    /// The right to open one.
    Open(Slot),
}

/// Why there is no right to open a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    /// As many to this replica as there may be.
    Replica,
    /// As many to all replicas as there may be.
    Server,
}

/// Counts one waiter while it waits.
struct Waiting<'a> {
    places: &'a Places,
    /// Whether what it lacks is the right to one more connection to the server; else more of that would not help it.
    lacks: Full,
}

impl Pool {
    /// No connections yet; those to come count against `budget`, too.
    pub(super) fn new(budget: Arc<Budget>) -> Pool {
        let (taken, waiting, freed) = (AtomicUsize::new(0), AtomicUsize::new(0), Notify::new());
        Pool {
            idle: Mutex::default(),
            places: Arc::new(Places { budget, taken, waiting, freed }),
            closed: AtomicBool::new(false),
            reused: AtomicU64::new(0),
        }
    }

    /// A kept connection or the right to open one; waits at most `patience` if all `max` are busy.
    pub(super) async fn turn(&self, max: usize, patience: Duration, now: Micros) -> Option<Turn> {
        match self.turn_now(max, now) {
            Ok(turn) => Some(turn),
            // Boxed: requests that find a connection should not carry what waiting needs.
            Err(lacks) => Box::pin(self.wait(lacks, max, patience, now)).await,
        }
    }

    async fn wait(&self, lacks: Full, max: usize, patience: Duration, now: Micros) -> Option<Turn> {
        let mut waiting = Waiting::new(&self.places, lacks);
        let freed = async {
            loop {
                let mut freed = pin!(self.places.freed.notified());
                let mut allowed = Box::pin(self.places.budget.freed.notified());
                // Registered before the look, or what is freed in between is missed.
                freed.as_mut().enable();
                allowed.as_mut().enable();
                match self.turn_now(max, now) {
                    Ok(turn) => return turn,
                    Err(full) => waiting.lack(full),
                }
                match waiting.lacks {
                    // Dropped, so that what is freed wakes somebody who can use it.
                    Full::Replica => {
                        drop(allowed);
                        freed.await;
                    }
                    Full::Server => tokio::select! {
                        () = freed => {}
                        () = allowed => {}
                    },
                }
            }
        };
        tokio::time::timeout(patience, freed).await.ok()
    }

    fn turn_now(&self, max: usize, now: Micros) -> Result<Turn, Full> {
        match self.take(now) {
            Some(link) => Ok(Turn::Kept(link)),
            None => Slot::take(&self.places, max).map(Turn::Open),
        }
    }

    /// The youngest idle connection that is still open.
    fn take(&self, now: Micros) -> Option<Box<Link>> {
        loop {
            let Idle { mut link, since } = self.idle().pop()?;
            if now.since(since) < IDLE_TIMEOUT && link.is_idle() {
                self.reused.fetch_add(1, Ordering::Relaxed);
                return Some(link);
            }
        }
    }

    /// Keeps a connection that is fit for another request, unless there are enough.
    pub(super) fn keep(&self, link: Box<Link>, now: Micros) {
        if self.places.budget.is_short(self.places.waiting.load(Ordering::SeqCst)) {
            return;
        }
        {
            let mut idle = self.idle();
            if self.closed.load(Ordering::Relaxed) || idle.len() >= IDLE_MAX {
                drop(idle);
                return;
            }
            idle.push(Idle { link, since: now });
        }
        self.places.ring();
    }

    /// Closes what was idle for too long, or was closed by the replica.
    pub(super) fn sweep(&self, now: Micros) {
        let mut older = {
            let mut idle = self.idle();
            // In use, the upper half is left where requests find it; they look for themselves.
            let busy = idle.last().is_some_and(|youngest| now.since(youngest.since) < BUSY_WITHIN);
            let cut = if busy { idle.len() / 2 } else { idle.len() };
            idle.drain(..cut).collect::<Vec<_>>()
        };
        older.retain_mut(|idle| now.since(idle.since) < IDLE_TIMEOUT && idle.link.is_idle());
        self.idle().splice(0..0, older);
        self.places.ring();
    }

    /// Closes the connection that was idle for longest; false if none is idle.
    pub(super) fn close_oldest(&self) -> bool {
        let oldest = {
            let mut idle = self.idle();
            (!idle.is_empty()).then(|| idle.remove(0))
        };
        oldest.is_some()
    }

    /// Closes all idle connections, and the busy ones as they become idle.
    pub(super) fn close(&self) {
        let idle = {
            let mut idle = self.idle();
            self.closed.store(true, Ordering::Relaxed);
            std::mem::take(&mut *idle)
        };
        drop(idle);
    }

    /// Connections in all.
    pub(super) fn connections(&self) -> usize {
        self.places.taken.load(Ordering::Relaxed)
    }

    /// Of these, idle.
    pub(super) fn idle_count(&self) -> usize {
        self.idle().len()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing can panic while it is held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Wakes one waiter, if any: one load when there is none.
    fn ring(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_one();
        }
    }
}

impl Slot {
    fn take(places: &Arc<Places>, max: usize) -> Result<Slot, Full> {
        if places.taken.load(Ordering::SeqCst) >= max {
            return Err(Full::Replica);
        }
        if !places.budget.take() {
            return Err(Full::Server);
        }
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        match places.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more) {
            Ok(_) => Ok(Slot { places: Arc::clone(places) }),
            Err(_) => {
                places.budget.give_back();
                Err(Full::Replica)
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::SeqCst);
        // Who has waited longest for the right to one, at whatever replica, comes before who waits at this one.
        self.places.budget.give_back();
        self.places.ring();
    }
}

impl<'a> Waiting<'a> {
    fn new(places: &'a Places, lacks: Full) -> Self {
        places.waiting.fetch_add(1, Ordering::SeqCst);
        if lacks == Full::Server {
            places.budget.begin_waiting();
        }
        Waiting { places, lacks }
    }

    fn lack(&mut self, now: Full) {
        match (self.lacks, now) {
            (Full::Replica, Full::Server) => self.places.budget.begin_waiting(),
            (Full::Server, Full::Replica) => self.places.budget.end_waiting(),
            (Full::Replica, Full::Replica) | (Full::Server, Full::Server) => {}
        }
        self.lacks = now;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.places.waiting.fetch_sub(1, Ordering::SeqCst);
        self.lack(Full::Replica);
    }
}
