//! The sealing keys of the fleet, learned from the store: whoever comes first makes one, all others open with it.
//!
//! Which one seals is `regatta_policy::keys`'s rule, the same as the gateways'. An unknown key is looked for at most ten
//! times a second, whoever makes them up.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use regatta_policy::keys::{Published, sealing};
use regatta_seal::{Fingerprint, KeyRing, MasterKey, Purpose, claimed_key};
use regatta_store::{Store, StoreError, StoredKey};

/// A key seals when everybody has had the time to learn it, as at the gateways.
const RIPE_AFTER: Duration = Duration::from_secs(60);
const LOOK_GAP: Duration = Duration::from_millis(100);

/// The keys.
pub(crate) struct Sealing {
    ring: RwLock<KeyRing>,
    looked: Mutex<Option<Instant>>,
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
        let ring =
            ring_of(&stored).ok_or_else(|| StoreError::Away("it lost the key just kept".to_owned()))?;
        Ok(Sealing { ring: RwLock::new(ring), looked: Mutex::new(None) })
    }

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
        if !self.knows(key) && self.may_look() {
            self.refresh(store).await.map_err(|_| Closed::StoreAway)?;
        }
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.open(Purpose::Session, associated, text).map(|opened| opened.plain).map_err(|_| Closed::Foreign)
    }

    /// Reads the store's keys: new ones are learned, and may seal by now.
    pub(crate) async fn refresh(&self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(ring) = ring_of(&store.keys().await?) {
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        Ok(())
    }

    fn knows(&self, key: Fingerprint) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).knows(key)
    }

    fn may_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let may = looked.is_none_or(|at| at.elapsed() >= LOOK_GAP);
        if may {
            *looked = Some(Instant::now());
        }
        may
    }
}

fn ring_of(stored: &[StoredKey]) -> Option<KeyRing> {
    let published = |key: &StoredKey| Published { at_s: key.published_s, fingerprint: key.fingerprint };
    // What a gateway wrapped with a key of its config is not readable here, and its name says so.
    let stored: Vec<&StoredKey> = stored.iter().filter(|key| is_clear(key)).collect();
    let all: Vec<Published> = stored.iter().map(|key| published(key)).collect();
    let current = sealing(&all, now_s(), RIPE_AFTER)?;
    let current = stored.iter().find(|key| published(key) == current)?;
    let others = stored.iter().map(|key| MasterKey::new(key.secret));
    Some(others.fold(KeyRing::new(&MasterKey::new(current.secret)), |ring, key| ring.add(&key)))
}

fn is_clear(key: &StoredKey) -> bool {
    MasterKey::new(key.secret).fingerprint().0 == key.fingerprint
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
