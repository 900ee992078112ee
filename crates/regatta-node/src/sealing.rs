//! The sealing keys of the fleet: learned from the store, given back to it when it lost them.
//!
//! Whoever comes first makes one, all others open with it. Which one seals, and which one nobody needs any more, are
//! `regatta_policy::keys`'s rules, and unknown ones are looked for by `regatta_store::KeySearch`, the same as at the gateways.
//! A key is never dropped because the store lacks it.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regatta_policy::keys::{Published, outlived, sealing};
use regatta_seal::{Fingerprint, KEYS_MAX, KeyRing, MasterKey, Purpose, claimed_key};
use regatta_store::{KeyHolder, KeySearch, Store, StoreError, StoredKey};

use crate::session::LIFETIME_MAX;

/// A key seals when everybody has had the time to learn it, as at the gateways.
const RIPE_AFTER: Duration = Duration::from_secs(60);
/// How often the store is asked for keys without a reason.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// Within that, every node gives its keys back to a store that lost them.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(4);

/// The keys.
pub(crate) struct Sealing {
    known: Mutex<Vec<StoredKey>>,
    ring: RwLock<KeyRing>,
    search: KeySearch,
}

/// Who else is on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody: it is in this process.
    Alone,
    /// Other nodes and gateways.
    Many,
}

/// Why a text does not open.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It is none of ours.
    Foreign,
    /// Its key may be in the store, which cannot be asked now, or is given back to it in a moment.
    StoreAway,
}

impl Sealing {
    /// The keys of `store`; a fresh one, published, if there are none: the store is new, or was wiped and other nodes have some.
    pub(crate) async fn learn(store: &dyn Store, company: Company) -> Result<Sealing, StoreError> {
        let search = KeySearch::new(GIVEN_BACK_WITHIN);
        let mut stored = store.keys().await?;
        if !stored.iter().any(is_clear) {
            let fresh = MasterKey::random();
            let secret = *fresh.secret_bytes();
            let key = StoredKey { fingerprint: fresh.fingerprint().0, secret, published_s: now_s() };
            store.put_key(key).await?;
            if company == Company::Many {
                search.lost();
            }
            // Another node may have been as quick: with the same keys all choose the same one.
            stored = store.keys().await?;
        }
        let known = merged(Vec::new(), &stored);
        let ring = ring_of(&known).ok_or_else(|| StoreError::Away("it lost the key just kept".to_owned()))?;
        Ok(Sealing { known: Mutex::new(known), ring: RwLock::new(ring), search })
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
        if !self.knows(key.0) {
            self.search.learn(store, self, key.0).await.map_err(|_| Closed::StoreAway)?;
        }
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.open(Purpose::Session, associated, text).map(|opened| opened.plain).map_err(|_| Closed::Foreign)
    }

    /// Reads the store's keys, and publishes those that it lacks: a store that was wiped ends no session.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        self.search.refresh(store, self).await
    }

    fn known(&self) -> MutexGuard<'_, Vec<StoredKey>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyHolder for Sealing {
    fn knows(&self, fingerprint: [u8; 4]) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).knows(Fingerprint(fingerprint))
    }

    fn adopt(&self, stored: &[StoredKey]) -> Vec<StoredKey> {
        let mut known = self.known();
        *known = merged(std::mem::take(&mut known), stored);
        if let Some(ring) = ring_of(&known) {
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        known.clone()
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
        let node = Sealing::learn(&before, Company::Many).await.unwrap();
        let token = node.seal(&[b"a"], b"plain");
        // Another node started on the empty store, with a key of its own.
        let newcomer = Sealing::learn(&wiped, Company::Many).await.unwrap();
        let foreign = newcomer.seal(&[b"a"], b"other");
        node.refresh(&wiped).await.unwrap();
        assert_eq!(wiped.keys().await.unwrap().len(), 2);
        assert_eq!(node.open(&wiped, &[b"a"], &token).await.unwrap(), b"plain");
        assert_eq!(node.open(&wiped, &[b"a"], &foreign).await.unwrap(), b"other");
        assert_eq!(newcomer.open(&wiped, &[b"a"], &token).await.unwrap(), b"plain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_comes_to_a_wiped_store_gives_no_session_up_before_the_others_gave_their_keys_back() {
        let (before, wiped) = (empty(), empty());
        let node = Sealing::learn(&before, Company::Many).await.unwrap();
        let token = node.seal(&[], b"plain");
        let newcomer = Sealing::learn(&wiped, Company::Many).await.unwrap();
        assert_eq!(newcomer.open(&wiped, &[], &token).await, Err(Closed::StoreAway));
        node.refresh(&wiped).await.unwrap();
        // A look of this very instant would have been the last one.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(newcomer.open(&wiped, &[], &token).await.unwrap(), b"plain");
        let foreign = Sealing::learn(&empty(), Company::Many).await.unwrap().seal(&[], b"x");
        tokio::time::sleep(GIVEN_BACK_WITHIN).await;
        assert_eq!(newcomer.open(&wiped, &[], &foreign).await, Err(Closed::Foreign));
    }
}
