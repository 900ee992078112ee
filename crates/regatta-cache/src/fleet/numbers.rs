//! The numbers of purges: made here, followed from elsewhere, and a word given that they are heeded.
//!
//! Every gateway tells the store up to which number it gives out nothing that was purged, and trusts the numbers for less
//! long than its word counts. So who purges knows when nobody gives out the old any more, whether the others hear of
//! it or are gone; and what could not be numbered while the store was away is numbered when it is back.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Away, PurgeLog, Shelf, TRUSTED_FOR, answer};
use crate::purges::Purge;

/// A gateway's word that it heeds the purges: how often it is given, and how long it counts, which is longer than anybody
/// trusts the numbers after giving it.
const HEED_EVERY: Duration = Duration::from_millis(500);
const HEED_LIFE: Duration = Duration::from_secs(3);
const _: () = assert!(HEED_EVERY.as_millis() + TRUSTED_FOR.as_millis() < HEED_LIFE.as_millis());
/// Looks in a row whether the numbers have changed again, until a word is given.
const FOLLOWS_MAX: usize = 4;
/// How often is looked whether all heed a purge: at first, and at most.
const HEEDED_FIRST: Duration = Duration::from_millis(1);
const HEEDED_MAX: Duration = Duration::from_millis(20);
/// Purges that wait for the store to be back; beyond it, all of the server is purged then.
const UNSENT_MAX: usize = 1024;

impl Shelf {
    /// Follows the fleet's purges. Call it often: a purge elsewhere is heard of here by this.
    pub async fn follow(&self) -> Result<(), Away> {
        self.send_again().await?;
        for _ in 0..FOLLOWS_MAX {
            let (epoch, newest) = (self.epoch.load(Ordering::Acquire), self.shared.newest());
            let (asked, heeded) = (self.micros(), self.heeded.load(Ordering::Acquire));
            let doubts = self.doubts.load(Ordering::Acquire);
            let is_due = heeded == 0 || asked - heeded >= HEED_EVERY.as_micros() as u64;
            let heed = is_due.then_some((self.own, HEED_LIFE));
            match answer(self.fleet.purges(&self.name, epoch, newest, heed)).await? {
                // Nobody who purges may wait for the old word: the next look gives a new one.
                Some(log) => {
                    self.take(epoch, newest, log);
                    self.heeded.store(0, Ordering::Release);
                }
                None => {
                    if is_due {
                        self.heeded.store(asked, Ordering::Release);
                    }
                    self.compared.store(asked, Ordering::Release);
                    self.settled.store(doubts, Ordering::Release);
                    return Ok(());
                }
            }
        }
        // Purges come faster than they can be followed.
        Err(Away)
    }

    /// Numbers what could not be numbered while the store was away.
    async fn send_again(&self) -> Result<(), Away> {
        loop {
            let Some(purge) = self.unsent().first().cloned() else { return Ok(()) };
            answer(self.fleet.purge(&self.name, purge.to_bytes(), self.own)).await?;
            self.local.purge(&purge);
            // Purged again meanwhile, it waits once more.
            let mut unsent = self.unsent();
            if unsent.first() == Some(&purge) {
                unsent.remove(0);
            }
        }
    }

    fn unsent(&self) -> MutexGuard<'_, Vec<Purge>> {
        // Every change under this lock is a single step.
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_unsent(&self, purge: &Purge) {
        let mut unsent = self.unsent();
        if unsent.len() >= UNSENT_MAX {
            *unsent = vec![Purge::Server];
        } else if !unsent.contains(purge) {
            unsent.push(purge.clone());
        }
    }

    fn take(&self, epoch: u64, newest: u64, log: PurgeLog) {
        if log.epoch != epoch || log.newest < newest {
            // Other numbers: nobody knows what was purged under the old ones.
            self.restart(log.epoch, log.newest);
        }
        for (thing, number, by) in log.things {
            let purge = Purge::from_bytes(&thing);
            if number > newest && by != self.own {
                self.local.purge(&purge);
            }
            self.shared.note(&purge, number);
        }
        // A number that no thing carries any more: it was struck together with everything.
        if self.shared.newest() < log.newest {
            self.local.purge(&Purge::Server);
            self.shared.restart(log.newest);
        }
    }

    fn restart(&self, epoch: u64, newest: u64) {
        // In this order: a fetch that begins meanwhile must not carry an old number under the new epoch.
        self.shared.restart(newest);
        self.epoch.store(epoch, Ordering::Release);
        self.local.purge(&Purge::Server);
    }

    /// Makes `what` old in the whole fleet. Here it is old at once, whatever becomes of the store; when this returns well,
    /// no gateway that compares numbers gives it out any more.
    ///
    /// # Errors
    /// The store could not be told. It is, once it is back.
    pub async fn purge(&self, what: &Purge) -> Result<(), Away> {
        self.note_use();
        let number = self.number(what).await?;
        self.until_heeded(number).await
    }

    /// Until no other gateway gives out what the purge of `number` strikes.
    async fn until_heeded(&self, number: u64) -> Result<(), Away> {
        let (began, mut wait) = (Instant::now(), HEEDED_FIRST);
        // A gateway that died has not taken its word back; that ends by itself.
        while began.elapsed() < HEED_LIFE {
            if answer(self.fleet.unheeded(&self.name, number, self.own)).await? == 0 {
                return Ok(());
            }
            sleep(wait).await;
            wait = (wait * 3 / 2).min(HEEDED_MAX);
        }
        Ok(())
    }

    pub(super) async fn number(&self, what: &Purge) -> Result<u64, Away> {
        let _pending = Pending::of(self);
        self.local.purge(what);
        let numbered = answer(self.fleet.purge(&self.name, what.to_bytes(), self.own)).await;
        // Once more: what was begun here meanwhile may have read what another gateway has purged before this.
        self.local.purge(what);
        let (epoch, number) = numbered.inspect_err(|_| {
            self.keep_unsent(what);
            self.distrust();
        })?;
        // The own word was given for a lower number, and nothing new will be seen that renews it.
        self.heeded.store(0, Ordering::Release);
        let is_counted_alike = epoch == self.epoch.load(Ordering::Acquire);
        match number.checked_sub(self.shared.newest()) {
            Some(1) if is_counted_alike => self.shared.note(what, number),
            // It was followed already, with all others.
            Some(0) | None if is_counted_alike => {}
            // Noted out of turn, it would hide the purges of others before it.
            _ => self.distrust(),
        }
        Ok(number)
    }

    /// The same by a task: old here when this returns, and in the fleet soon.
    pub fn purge_soon(self: &Arc<Self>, what: Vec<Purge>) -> JoinHandle<()> {
        self.note_use();
        what.iter().for_each(|purge| self.local.purge(purge));
        let shelf = self.clone();
        self.pending.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(async move {
            let mut last = None;
            for purge in &what {
                last = shelf.number(purge).await.ok().or(last);
            }
            shelf.pending.fetch_sub(1, Ordering::AcqRel);
            if let Some(last) = last {
                let _ = shelf.until_heeded(last).await;
            }
        })
    }

    /// Nothing of the store's counts until the numbers were compared again, by a look that begins after this.
    fn distrust(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
    }
}

/// A purge that is not numbered yet, for as long as it lives.
struct Pending<'a>(&'a Shelf);

impl Pending<'_> {
    fn of(shelf: &Shelf) -> Pending<'_> {
        shelf.pending.fetch_add(1, Ordering::AcqRel);
        Pending(shelf)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}
