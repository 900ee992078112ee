//! The second tier: results, fetches and purges that the gateways of a fleet share, behind one seam.
//!
//! Whatever goes wrong with it (away, slow, wiped, corrupt) only ever costs a fetch. A fetch is claimed for a short
//! lease that its leader renews, so that a gateway which dies while it fetches is taken over. Purges are numbered by the
//! store; every gateway follows the numbers, and trusts nothing that it could not compare with them.

mod numbers;
mod over_store;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use regatta_policy::Micros;
use regatta_policy::cache::{Life, Worth};
use regatta_seal::KeyRing;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::cache::{About, Lead, OnShelf};
use crate::flight::Patience;
use crate::form::Form;
use crate::kept::Kept;
use crate::key::Key;
use crate::purges::{Belongs, Purge, Purges};
use crate::stored::{self, Content};

pub use over_store::OverStore;

/// How long the store may take; then this fetch goes on without it.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// How long a claim lasts, and how often its leader renews it.
const LEASE: Duration = Duration::from_secs(2);
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// How often a waiter looks whether another gateway's fetch has landed: at first, and at most.
const LOOK_FIRST: Duration = Duration::from_millis(3);
const LOOK_MAX: Duration = Duration::from_millis(60);
/// The numbers of purges are trusted for so long after they were last compared.
pub(crate) const TRUSTED_FOR: Duration = Duration::from_secs(2);
/// How often the purges of other gateways are looked for: a purge is heard of everywhere within 100 ms.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(40);
/// So many times as seldom where only lists and reads are kept.
const LISTS_FOLLOWED_EVERY: u64 = 10;
/// Results on their way to the store at one time; more are not shared.
const WRITES_MAX: u64 = 256;

/// A boxed future, so that the store can be chosen when the process starts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The store did not do it: it is away, too slow, or full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// Names one leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub [u8; 16]);

/// A value, and how long ago it was put there by the store's own clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// As it was put.
    pub bytes: Bytes,
    /// Since then.
    pub age: Duration,
}

/// Whose fetch it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The asker's, until its lease ends.
    Yours,
    /// Another leader's.
    Others,
}

/// The purges of one shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeLog {
    /// Changes when the store lost its numbers.
    pub epoch: u64,
    /// The newest number.
    pub newest: u64,
    /// What was purged, with the newest number of each and whose purge that was.
    pub things: Vec<(Bytes, u64, Holder)>,
}

/// What a fleet shares. Every future may be dropped at any time.
pub trait Fleet: Send + Sync + 'static {
    /// The value under `key`.
    fn find(&self, key: &Key) -> BoxFuture<'_, Result<Option<Stored>, Away>>;

    /// Claims the fetch of `key` for `lease`, or renews `holder`'s claim.
    fn claim(&self, key: &Key, holder: Holder, lease: Duration) -> BoxFuture<'_, Result<Claimed, Away>>;

    /// Puts a value for `life` and gives up `holder`'s claim, in one step.
    fn put(&self, key: &Key, holder: Holder, bytes: Bytes, life: Duration)
    -> BoxFuture<'_, Result<(), Away>>;

    /// Gives up `holder`'s claim.
    fn give_up(&self, key: &Key, holder: Holder) -> BoxFuture<'_, Result<(), Away>>;

    /// Numbers a purge; gives epoch and number.
    fn purge(&self, shelf: &[u8; 16], thing: Bytes, by: Holder) -> BoxFuture<'_, Result<(u64, u64), Away>>;

    /// The purges, unless they are still those of `epoch` and `newest`: then, in the same step, it is noted for so long
    /// that `heed` knows them.
    fn purges(
        &self,
        shelf: &[u8; 16],
        epoch: u64,
        newest: u64,
        heed: Option<(Holder, Duration)>,
    ) -> BoxFuture<'_, Result<Option<PurgeLog>, Away>>;

    /// How many others than `by` are noted, but do not know the purge of `number` yet.
    fn unheeded(&self, shelf: &[u8; 16], number: u64, by: Holder) -> BoxFuture<'_, Result<u64, Away>>;
}

/// The fleet's sealing keys as of now.
pub type Rings = Arc<dyn Fn() -> Arc<KeyRing> + Send + Sync>;

/// What is kept of a server, and so how soon a purge elsewhere has to be heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Interest {
    /// Lists and reads alone, if anybody asks for any.
    Lists,
    /// Results of tools, which writing tools make old.
    Results,
}

/// What a fleet shares of one server.
pub struct Shelf {
    fleet: Arc<dyn Fleet>,
    /// Seal and open what the store keeps.
    rings: Rings,
    name: [u8; 16],
    /// This process.
    own: Holder,
    /// The purges of this process, which strike what it keeps itself.
    local: Arc<Purges>,
    /// The fleet's purges by the store's numbers, which strike what the store keeps.
    shared: Purges,
    epoch: AtomicU64,
    start: Instant,
    /// When the numbers were compared last, in microseconds since `start`; zero: not since they were lost.
    compared: AtomicU64,
    /// How often there was a reason not to trust them, and up to which of those they were compared since.
    doubts: AtomicU64,
    settled: AtomicU64,
    /// When this process gave its word last, alike.
    heeded: AtomicU64,
    /// Purges of this process that the store could not number.
    unsent: Mutex<Vec<Purge>>,
    /// Purges of this process that are not numbered yet: until then nothing of the store's counts.
    pending: AtomicU64,
    writes: AtomicU64,
    /// Whether the operator was told that the store is away.
    is_away: AtomicBool,
    interest: AtomicU8,
    is_used: AtomicBool,
}

/// What another gateway fetched.
#[derive(Debug)]
pub(crate) struct Found {
    pub form: Form,
    pub life: Life,
    pub cost: Duration,
    /// Since its fetch began.
    pub age: Duration,
}

/// What seeking gave.
pub enum Sought {
    /// The fleet has it; it has landed here too.
    Kept(Arc<Kept>),
    /// This process fetches.
    Lead(Box<Lead>),
    /// Another gateway fetches and took longer than the patience.
    Late,
}

/// This process's claim of one fetch, renewed until it is dropped.
pub(crate) struct Claim {
    shelf: Arc<Shelf>,
    key: Key,
    holder: Holder,
    /// The fleet's newest purge when the fetch began.
    epoch: u64,
    since: u64,
    renewing: AbortHandle,
    is_kept: bool,
}

impl Shelf {
    /// What `fleet` shares, under the keys of `rings`, of the server that all call `name`; `local` are this process's own
    /// purges of it.
    pub fn new(
        (fleet, rings): (Arc<dyn Fleet>, Rings),
        name: [u8; 16],
        own: Holder,
        local: Arc<Purges>,
    ) -> Arc<Shelf> {
        Arc::new(Shelf {
            fleet,
            rings,
            name,
            own,
            local,
            shared: Purges::default(),
            epoch: AtomicU64::new(0),
            start: Instant::now(),
            compared: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            heeded: AtomicU64::new(0),
            unsent: Mutex::default(),
            pending: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            is_away: AtomicBool::new(false),
            interest: AtomicU8::new(Interest::Results as u8),
            is_used: AtomicBool::new(false),
        })
    }

    /// Whether what the store keeps can be compared with what was purged.
    pub fn is_trusted(&self) -> bool {
        let compared = self.compared.load(Ordering::Acquire);
        let is_recent = compared != 0 && self.micros() - compared < TRUSTED_FOR.as_micros() as u64;
        let is_settled = self.settled.load(Ordering::Acquire) == self.doubts.load(Ordering::Acquire);
        is_recent && is_settled && self.pending.load(Ordering::Acquire) == 0
    }

    /// Since the start, and never zero.
    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Somebody asks for what is shared: from now on it is worth following the purges.
    pub fn note_use(&self) {
        self.is_used.store(true, Ordering::Relaxed);
    }

    /// What is kept of the server from now on.
    pub fn set_interest(&self, interest: Interest) {
        self.interest.store(interest as u8, Ordering::Relaxed);
    }

    /// Whether the purges are to be followed at the beat of this number, of which one comes each [`FOLLOW_EVERY`].
    pub fn is_due(&self, beat: u64) -> bool {
        let is_of_lists = self.interest.load(Ordering::Relaxed) == Interest::Lists as u8;
        // Until somebody asked, nothing is kept here that a purge could make old.
        let is_used = || self.is_used.load(Ordering::Relaxed);
        !is_of_lists || (is_used() && beat.is_multiple_of(LISTS_FOLLOWED_EVERY))
    }

    /// Whether the store has just gone away, or come back: said once each.
    pub fn turned(&self) -> Option<bool> {
        let is_away = !self.is_trusted();
        (self.is_away.swap(is_away, Ordering::Relaxed) != is_away).then_some(is_away)
    }

    /// What the store keeps under `key`, if it is worth something now.
    async fn find(&self, key: &Key, about: &About) -> Result<Option<Found>, Away> {
        let found = answer(self.fleet.find(key)).await?;
        // A purge of this process that is not numbered yet strikes nothing of the store's, and struck here before.
        let Some(found) = found.filter(|_| self.is_trusted()) else { return Ok(None) };
        let Some(content) = stored::read(&(self.rings)(), key, found.bytes) else {
            about.tally.refuse();
            return Ok(None);
        };
        let Content { form, life, cost, epoch, since } = content;
        let belongs = Belongs { tool: &about.tool, principal: about.principal.as_ref(), call: &about.call };
        let is_struck = epoch != self.epoch.load(Ordering::Acquire) || self.shared.strikes(belongs, since);
        let age = found.age.saturating_add(cost);
        let is_fresh = matches!(life.worth(age, cost, u64::MAX), Worth::Fresh);
        Ok((!is_struck && is_fresh).then_some(Found { form, life, cost, age }))
    }

    async fn claim(self: &Arc<Self>, key: Key) -> Result<Option<Claim>, Away> {
        let holder = Holder(regatta_seal::random16());
        let (epoch, since) = (self.epoch.load(Ordering::Acquire), self.shared.newest());
        match answer(self.fleet.claim(&key, holder, LEASE)).await? {
            Claimed::Others => Ok(None),
            Claimed::Yours => {
                let shelf = self.clone();
                let renewing = tokio::spawn(async move {
                    loop {
                        sleep(RENEW_EVERY).await;
                        // One that fails is made up for by the next.
                        let _ = answer(shelf.fleet.claim(&key, holder, LEASE)).await;
                    }
                });
                let (shelf, renewing) = (self.clone(), renewing.abort_handle());
                Ok(Some(Claim { shelf, key, holder, epoch, since, renewing, is_kept: false }))
            }
        }
    }
}

/// Finds out whether another gateway has what is to be fetched, or is fetching it. `clock` gives the time of `Kept`.
pub async fn seek(mut lead: Box<Lead>, patience: Patience, clock: impl Fn() -> Micros) -> Sought {
    let about = lead.about().clone();
    let Some(OnShelf { shelf, key }) = about.shared.clone().filter(|at| at.shelf.is_trusted()) else {
        return Sought::Lead(lead);
    };
    let began = Instant::now();
    let mut wait = LOOK_FIRST;
    loop {
        let since = about.purges.newest();
        match shelf.find(&key, &about).await {
            Err(Away) => return Sought::Lead(lead),
            Ok(Some(found)) if lead.is_served_by(found.age, clock()) => {
                return Sought::Kept(lead.adopt(found, since, clock()));
            }
            Ok(Some(_) | None) => {}
        }
        match shelf.claim(key).await {
            Err(Away) => return Sought::Lead(lead),
            Ok(Some(claim)) => {
                // It may have been put between the look and the claim.
                if let Ok(Some(found)) = shelf.find(&key, &about).await
                    && lead.is_served_by(found.age, clock())
                {
                    return Sought::Kept(lead.adopt(found, since, clock()));
                }
                lead.claimed(claim);
                return Sought::Lead(lead);
            }
            Ok(None) if began.elapsed() >= patience.whole => return Sought::Late,
            Ok(None) => {
                // Somebody renews the claim, so the fetch is alive: those who wait here may go on waiting.
                lead.heard();
                sleep(wait).await;
                wait = (wait * 3 / 2).min(LOOK_MAX);
            }
        }
    }
}

impl Claim {
    /// Puts the result and gives up the claim, in a task of its own: nobody waits for the store.
    pub(crate) fn keep(self, kept: &Kept) {
        let content = Content {
            form: kept.form.clone(),
            life: kept.life,
            cost: kept.cost,
            epoch: self.epoch,
            since: self.since,
        };
        let shelf = self.shelf.clone();
        if shelf.writes.fetch_add(1, Ordering::Relaxed) >= WRITES_MAX {
            shelf.writes.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (key, holder, life) = (self.key, self.holder, kept.life.whole());
        tokio::spawn(async move {
            // Held to the end of the write, so that the claim is renewed until the result is there.
            let mut claim = self;
            // A store that is full keeps no result, and nobody must wait for it.
            claim.is_kept = match stored::write(&(shelf.rings)(), &key, &content) {
                Some(bytes) => answer(shelf.fleet.put(&key, holder, bytes, life)).await.is_ok(),
                None => false,
            };
            shelf.writes.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.renewing.abort();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_kept {
            return;
        }
        let (shelf, key, holder) = (self.shelf.clone(), self.key, self.holder);
        runtime.spawn(async move { _ = answer(shelf.fleet.give_up(&key, holder)).await });
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").field("newest", &self.shared.newest()).finish_non_exhaustive()
    }
}

async fn answer<T>(asked: BoxFuture<'_, Result<T, Away>>) -> Result<T, Away> {
    timeout(ANSWER_MAX, asked).await.unwrap_or(Err(Away))
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
