//! The sealing keys of the fleet: learned from the store, given back to it when it lost them.
//!
//! Whoever comes first makes one, all others open with it. Which one seals, and which one nobody needs any more, are
//! `regatta_policy::keys`'s rules, the same as the gateways'. A key is never dropped because the store lacks it. An unknown
//! key is looked for once for all who wait, and then known to be nobody's for a moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regatta_policy::keys::{Published, outlived, sealing};
use regatta_seal::{Fingerprint, KEYS_MAX, KeyRing, MasterKey, Purpose, claimed_key};
use regatta_store::{Store, StoreError, StoredKey};
use tokio::time::Instant;

use crate::session::LIFETIME_MAX;

/// A key seals when everybody has had the time to learn it, as at the gateways.
const RIPE_AFTER: Duration = Duration::from_secs(60);
/// Between two looks for unknown keys, whoever makes them up.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// How long a key that was looked for in vain counts as nobody's, and how many such keys are remembered.
const NOBODYS_FOR: Duration = Duration::from_secs(3);
const NOBODYS_MAX: usize = 1024;

/// The keys.
pub(crate) struct Sealing {
    known: Mutex<Vec<StoredKey>>,
    ring: RwLock<KeyRing>,
    look: tokio::sync::Mutex<Looks>,
    nobodys: Mutex<HashMap<Fingerprint, Instant>>,
}

/// When unknown keys were looked for.
#[derive(Default)]
struct Looks {
    tried: Option<Instant>,
    /// The beginning of the last look that saw the store's keys.
    seen: Option<Instant>,
}

/// Why a text does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is none of ours.
    Foreign,
    /// Its key may be in the store, which cannot be asked now.
    StoreAway,
}

impl Sealing {
    /// The keys of `store`; a fresh one, published, if there are none.
    pub(crate) async fn learn(store: &dyn Store) -> Result<Sealing, StoreError> {
        let mut stored = store.keys().await?;
        if !stored.iter().any(is_clear) {
            let fresh = MasterKey::random();
            let secret = *fresh.secret_bytes();
            let key = StoredKey { fingerprint: fresh.fingerprint().0, secret, published_s: now_s() };
            store.put_key(key).await?;
            // Another node may have been as quick: with the same keys all choose the same one.
            stored = store.keys().await?;
        }
        let known = merged(Vec::new(), &stored);
        let ring = ring_of(&known).ok_or_else(|| StoreError::Away("it lost the key just kept".to_owned()))?;
        let (look, nobodys) = Default::default();
        Ok(Sealing { known: Mutex::new(known), ring: RwLock::new(ring), look, nobodys })
    }

    /// Seals for the fleet.
    pub(crate) fn seal(&self, associated: &[&[u8]], plain: &[u8]) -> String {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).seal(Purpose::Session, associated, plain)
    }

    /// Opens what any node of the fleet sealed.
    pub(crate) async fn open(
        &self,
        store: &dyn Store,
        associated: &[&[u8]],
        text: &str,
    ) -> Result<Vec<u8>, Closed> {
        let key = claimed_key(text).ok_or(Closed::Foreign)?;
        if !self.knows(key) {
            self.look_for(store, key).await.map_err(|_| Closed::StoreAway)?;
        }
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.open(Purpose::Session, associated, text).map(|opened| opened.plain).map_err(|_| Closed::Foreign)
    }

    /// Reads the store's keys, and publishes those that it lacks: a store that was wiped ends no session.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        let stored = store.keys().await?;
        let lost = {
            let mut known = self.known();
            *known = merged(std::mem::take(&mut known), &stored);
            if let Some(ring) = ring_of(&known) {
                *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
            }
            let is_lost =
                |known: &&StoredKey| stored.iter().all(|stored| stored.fingerprint != known.fingerprint);
            known.iter().filter(is_lost).cloned().collect::<Vec<_>>()
        };
        for key in lost {
            store.put_key(key).await?;
        }
        Ok(())
    }

    /// One look for all who ask at the same time.
    async fn look_for(&self, store: &dyn Store, key: Fingerprint) -> Result<(), StoreError> {
        let asked = Instant::now();
        if self.nobodys().get(&key).is_some_and(|since| asked < *since + NOBODYS_FOR) {
            return Ok(());
        }
        let mut look = self.look.lock().await;
        // Only a look that began after we asked, and that saw the store, can have missed nothing.
        if look.seen.is_none_or(|began| began < asked) {
            if let Some(tried) = look.tried {
                tokio::time::sleep_until(tried + LOOK_GAP).await;
            }
            let began = Instant::now();
            look.tried = Some(began);
            self.refresh(store).await?;
            look.seen = Some(began);
        }
        drop(look);
        if !self.knows(key) {
            let mut nobodys = self.nobodys();
            if nobodys.len() >= NOBODYS_MAX {
                nobodys.clear();
            }
            nobodys.insert(key, Instant::now());
        }
        Ok(())
    }

    fn knows(&self, key: Fingerprint) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).knows(key)
    }

    fn known(&self) -> MutexGuard<'_, Vec<StoredKey>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nobodys(&self) -> MutexGuard<'_, HashMap<Fingerprint, Instant>> {
        self.nobodys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known after a look at the store: all that was, what is new and readable, without what nobody needs.
fn merged(mut known: Vec<StoredKey>, stored: &[StoredKey]) -> Vec<StoredKey> {
    // What a gateway wrapped with a key of its config is not readable here, and its name says so.
    for key in stored.iter().filter(|key| is_clear(key)) {
        if known.len() < KEYS_MAX && known.iter().all(|known| known.fingerprint != key.fingerprint) {
            known.push(key.clone());
        }
    }
    let all: Vec<Published> = known.iter().map(published).collect();
    let over: Vec<Published> = outlived(&all, now_s(), RIPE_AFTER, LIFETIME_MAX).collect();
    known.retain(|key| !over.contains(&published(key)));
    known
}

fn ring_of(known: &[StoredKey]) -> Option<KeyRing> {
    let all: Vec<Published> = known.iter().map(published).collect();
    let current = sealing(&all, now_s(), RIPE_AFTER)?;
    let current = known.iter().find(|key| published(key) == current)?;
    let others = known.iter().map(|key| MasterKey::new(key.secret));
    Some(others.fold(KeyRing::new(&MasterKey::new(current.secret)), |ring, key| ring.add(&key)))
}

fn published(key: &StoredKey) -> Published {
    Published { at_s: key.published_s, fingerprint: key.fingerprint }
}

fn is_clear(key: &StoredKey) -> bool {
    MasterKey::new(key.secret).fingerprint().0 == key.fingerprint
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use regatta_store::{Bounds, Embedded, Keys as _, embedded};

    use super::*;

    fn empty() -> Embedded {
        embedded::open(None, Bounds::default()).unwrap()
    }

    #[tokio::test]
    async fn a_store_that_was_wiped_gets_the_keys_back_and_no_token_is_lost() {
        let (before, wiped) = (empty(), empty());
        let node = Sealing::learn(&before).await.unwrap();
        let token = node.seal(&[b"a"], b"plain");
        // Another node started on the empty store, with a key of its own.
        let newcomer = Sealing::learn(&wiped).await.unwrap();
        let foreign = newcomer.seal(&[b"a"], b"other");
        node.refresh(&wiped).await.unwrap();
        assert_eq!(wiped.keys().await.unwrap().len(), 2);
        assert_eq!(node.open(&wiped, &[b"a"], &token).await.unwrap(), b"plain");
        assert_eq!(node.open(&wiped, &[b"a"], &foreign).await.unwrap(), b"other");
        assert_eq!(newcomer.open(&wiped, &[b"a"], &token).await.unwrap(), b"plain");
    }

    #[tokio::test]
    async fn a_key_that_nobody_has_is_looked_for_once_in_a_while() {
        let (store, elsewhere) = (empty(), empty());
        let node = Sealing::learn(&store).await.unwrap();
        let foreign = Sealing::learn(&elsewhere).await.unwrap().seal(&[], b"x");
        assert_eq!(node.open(&store, &[], &foreign).await, Err(Closed::Foreign));
        let looked = node.look.lock().await.seen;
        assert!(looked.is_some());
        assert_eq!(node.open(&store, &[], &foreign).await, Err(Closed::Foreign));
        assert_eq!(node.look.lock().await.seen, looked);
    }
}
