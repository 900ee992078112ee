//! Connection budgets: what all nodes together may open to a database, an API or another server.
//!
//! Without a store each node gets a fixed part, [`Budget::pool_size`]. With one, the nodes that live share the whole: each
//! holds units on lease, asks for more when it needs them and gives back what it does not, and a node that dies gives back
//! when its lease ends.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use regatta_seal::{digest16, random16};
use regatta_store::{Allowance, Alone, BudgetHolder, BudgetName, Holding, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::node;
use crate::settings::Settings;

/// How long units are kept for a node, and how often it renews them.
const TERM: Duration = Duration::from_secs(6);
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// Units are asked for at once when they are short, but no more often than this.
const RENEW_AGAIN: Duration = Duration::from_millis(100);

/// A limit for all nodes together.
///
/// ```
/// use regatta_node::Budget;
///
/// // A database that bears 100 connections, and never more than ten nodes.
/// assert_eq!(Budget::new(100).over(10).map(|budget| budget.pool_size()), Ok(10));
/// // Three nodes cannot have one of two each.
/// assert!(Budget::new(2).over(3).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    limit: u32,
    nodes_max: u32,
}

/// A budget that cannot be shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    limit: u32,
    nodes_max: u32,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooSmall { limit, nodes_max } = self;
        write!(
            f,
            "a budget of {limit} does not give each of {nodes_max} nodes one: allow more, or fewer nodes"
        )
    }
}

impl std::error::Error for TooSmall {}

/// Nothing was free in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The budget's name.
    pub name: Arc<str>,
    /// How long was waited.
    pub waited: Duration,
    /// Units of this node, all in use.
    pub units: u32,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exhausted { name, waited, units } = self;
        write!(f, "no unit of the budget {name:?} was free within {waited:?}: this node's {units} are in use")
    }
}

impl std::error::Error for Exhausted {}

impl Budget {
    /// At most `limit` units (connections, licences) at one time, by all nodes together.
    pub fn new(limit: u32) -> Budget {
        Budget { limit, nodes_max: 1 }
    }

    /// The most nodes there will ever be at one time; 1 unless it is said.
    ///
    /// # Errors
    /// [`TooSmall`] if not every one of them would get one.
    pub fn over(self, nodes_max: u32) -> Result<Budget, TooSmall> {
        if nodes_max == 0 || nodes_max > self.limit {
            return Err(TooSmall { limit: self.limit, nodes_max });
        }
        Ok(Budget { nodes_max, ..self })
    }

    /// What each node may open by itself: `pool_size × nodes ≤ limit`.
    pub fn pool_size(&self) -> u32 {
        self.limit / self.nodes_max
    }

    /// Shares the budget called `name` with the other nodes on the store of `settings`. Needs a tokio runtime with time.
    /// Without a store all of it is this process's.
    ///
    /// A node that cannot reach the store keeps what it has to the end of its lease, and then has its even part among the
    /// nodes that used the budget last, at most [`pool_size`](Self::pool_size) and at least one. By so much may the limit be exceeded for each node that is cut off from a store that the others reach. A node that
    /// was stopped past its lease, and wakes, takes nothing new before it has asked; what it has in use it keeps.
    ///
    /// # Errors
    /// What is wrong with the store's address, for a person. A store that is away is no error.
    ///
    /// # Panics
    /// Outside a tokio runtime: call it in the closure that is given to [`Node::run`](crate::Node::run), not before.
    pub fn share(self, name: &str, settings: &Settings) -> Result<Share, String> {
        Ok(self.share_on(node::open(settings)?, name))
    }

    fn share_on(self, store: Arc<dyn Store>, name: &str) -> Share {
        let (holder, key) = (BudgetHolder(random16()), BudgetName(digest16(&[b"budget", name.as_bytes()])));
        let inner = Arc::new(Inner {
            budget: self,
            name: name.into(),
            units: Arc::new(Semaphore::new(0)),
            held: Mutex::new(Held { allowance: Allowance::NOTHING, units: 0, owed: 0 }),
            waiting: AtomicU32::new(0),
        });
        let renewal = tokio::spawn(renew(Arc::downgrade(&inner), store, key, holder));
        Share { inner, renewal }
    }
}

/// This node's part of a shared budget. Dropped, it gives everything back.
pub struct Share {
    inner: Arc<Inner>,
    renewal: tokio::task::JoinHandle<()>,
}

struct Inner {
    budget: Budget,
    name: Arc<str>,
    /// Units that are free.
    units: Arc<Semaphore>,
    held: Mutex<Held>,
    waiting: AtomicU32,
}

struct Held {
    allowance: Allowance,
    /// Of this node, free or in use: what was allowed when it was looked at last.
    units: u32,
    /// In use, and to be given up as they are let go.
    owed: u32,
}

/// The right to one unit, until it is dropped.
pub struct Unit {
    inner: Arc<Inner>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// One unit; waits for it at most `patience`.
    ///
    /// # Errors
    /// [`Exhausted`] after that.
    pub async fn acquire(&self, patience: Duration) -> Result<Unit, Exhausted> {
        let inner = &self.inner;
        inner.held().look(&inner.units);
        let permit = match inner.units.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let _waits = Waits::begin(&inner.waiting);
                timeout(patience, inner.units.clone().acquire_owned()).await.ok().and_then(Result::ok)
            }
        };
        if permit.is_none() {
            return Err(Exhausted { name: inner.name.clone(), waited: patience, units: self.units() });
        }
        Ok(Unit { inner: inner.clone(), permit })
    }

    /// Units of this node as of now, free or in use: the size its pool may have.
    pub fn units(&self) -> u32 {
        self.inner.held().units
    }

    /// Gives everything back as soon as no unit is in use, and waits until the store knows or cannot be reached.
    pub async fn leave(self) {
        let Share { inner, renewal } = self;
        drop(inner);
        let _ = renewal.await;
    }
}

/// Counts who waits.
struct Waits<'a>(&'a AtomicU32);

impl Waits<'_> {
    fn begin(waiting: &AtomicU32) -> Waits<'_> {
        waiting.fetch_add(1, Relaxed);
        Waits(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let mut held = self.inner.held();
        held.look(&self.inner.units);
        if held.owed > 0
            && let Some(permit) = self.permit.take()
        {
            held.owed -= 1;
            permit.forget();
        }
    }
}

impl Inner {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self) -> u32 {
        let free = u32::try_from(self.units.available_permits()).unwrap_or(u32::MAX);
        let used = self.held().most().saturating_sub(free) + self.waiting.load(Relaxed);
        // One ahead, so that the next does not wait for the store; none where nothing is used, so that others can.
        (used + u32::from(used > 0)).min(self.budget.limit)
    }

    /// From now on so many units are allowed; gives the most that can be in use.
    fn set(&self, allowance: Allowance) -> u32 {
        let mut held = self.held();
        held.allowance = allowance;
        held.look(&self.units);
        held.most()
    }
}

impl Held {
    /// Units that can be in use.
    fn most(&self) -> u32 {
        self.units + self.owed
    }

    /// Makes the free units as many as are allowed now. What is in use beyond that is given up as it is let go.
    fn look(&mut self, free: &Semaphore) {
        let units = self.allowance.at(Instant::now());
        if units >= self.units {
            let more = units - self.units;
            let forgiven = more.min(self.owed);
            self.owed -= forgiven;
            free.add_permits((more - forgiven) as usize);
        } else {
            let fewer = self.units - units;
            let forgotten = free.forget_permits(fewer as usize);
            self.owed += fewer - u32::try_from(forgotten).unwrap_or(fewer);
        }
        self.units = units;
    }
}

/// Renews a node's units until its [`Share`] and all its [`Unit`]s are gone.
async fn renew(inner: Weak<Inner>, store: Arc<dyn Store>, budget: BudgetName, holder: BudgetHolder) {
    let mut holding: Option<Holding> = None;
    while let Some(share) = inner.upgrade() {
        let (asked, limit, want) = (Instant::now(), share.budget.limit, share.want());
        let pool_size = share.budget.pool_size();
        let alone = Alone { stranger: pool_size, most: pool_size };
        let holding = holding.get_or_insert_with(|| Holding::new(budget, holder, TERM, alone));
        let most = share.set(holding.begin(want, asked));
        let allowance = match store.hold_budget(holding.ask(limit, most, want)).await {
            Ok(given) => holding.granted(given, asked),
            Err(why) => {
                let alone = holding.refused(limit);
                if !alone.is_leased(Instant::now()) {
                    tracing::warn!(budget = %share.name, units = alone.at(Instant::now()), %why, "the store gives no units");
                }
                alone
            }
        };
        share.set(allowance);
        drop(share);
        rest(&inner).await;
    }
    let _ = store.leave_budget(budget, holder).await;
}

/// Until the next renewal is due, or units are short.
async fn rest(inner: &Weak<Inner>) {
    tokio::time::sleep(RENEW_AGAIN).await;
    let end = Instant::now() + RENEW_EVERY - RENEW_AGAIN;
    while Instant::now() < end {
        let Some(share) = inner.upgrade() else { return };
        let is_short = share.waiting.load(Relaxed) > 0;
        drop(share);
        if is_short {
            return;
        }
        tokio::time::sleep(RENEW_AGAIN).await;
    }
}

#[cfg(test)]
mod tests;
