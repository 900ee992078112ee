//! Looking for sealing keys that are not known here; the same for gateways and nodes (SESSIONS 2).
//!
//! One look serves all who wait for one. A key that was looked for in vain is nobody's for a moment, so that made-up names
//! cost the store little. A store that turns out to have lost keys says nothing about a key that it lacks until all who
//! live had the time to give theirs back. Knows no secrets; who holds keys is a [`KeyHolder`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::{Store, StoreError, StoredKey};

/// Between two looks for unknown keys, whoever makes them up.
const LOOK_GAP: Duration = Duration::from_millis(100);
/// How long a key that was looked for in vain counts as nobody's.
const NOBODYS_FOR: Duration = Duration::from_secs(3);
/// Such keys remembered; beyond it all are looked for again.
const NOBODYS_MAX: usize = 1024;

/// Keys in a process's memory, beside those of the store.
pub trait KeyHolder {
    /// Whether it opens what the key of this fingerprint sealed.
    fn knows(&self, fingerprint: [u8; 4]) -> bool;

    /// Takes in the keys of the store, and tells all keys that should be there.
    fn adopt(&self, stored: &[StoredKey]) -> Vec<StoredKey>;
}

/// Whether a key is known, after a look for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It is.
    Known,
    /// Nobody has published it.
    Nobodys,
}

/// The looks of one process.
#[derive(Debug)]
pub struct KeySearch {
    /// Held during a look, so that there is one at a time.
    look: tokio::sync::Mutex<Looks>,
    nobodys: Mutex<HashMap<[u8; 4], Instant>>,
    /// Until when a key that the store lacks may still be somebody's.
    unsure_until: Mutex<Option<Instant>>,
    given_back_within: Duration,
}

/// When unknown keys were looked for.
#[derive(Debug, Default)]
struct Looks {
    /// The last try.
    tried: Option<Instant>,
    /// The beginning of the last look that saw the store's keys: one that failed proves nobody unknown.
    seen: Option<Instant>,
}

impl KeySearch {
    /// `given_back_within`: everybody calls [`refresh`](Self::refresh) at least so often.
    pub fn new(given_back_within: Duration) -> KeySearch {
        let (look, nobodys, unsure_until) = Default::default();
        KeySearch { look, nobodys, unsure_until, given_back_within }
    }

    /// The store has lost keys, or had none when this process came: those that live may give theirs back yet.
    pub fn lost(&self) {
        *self.unsure_until() = Some(Instant::now() + self.given_back_within);
    }

    /// Reads the store's keys, and publishes those of `holder` that it lacks.
    ///
    /// # Errors
    /// The store is away, or has no room for a key.
    pub async fn refresh(&self, store: &dyn Store, holder: &impl KeyHolder) -> Result<(), StoreError> {
        let stored = store.keys().await?;
        let mut missing = holder.adopt(&stored);
        missing.retain(|key| stored.iter().all(|stored| stored.fingerprint != key.fingerprint));
        if !missing.is_empty() {
            self.lost();
        }
        for key in missing {
            store.put_key(key).await?;
        }
        Ok(())
    }

    /// Looks for a key that `holder` lacks; once for all who ask at the same time.
    ///
    /// # Errors
    /// Whose it is cannot be said now: the store is away, or lost keys a moment ago.
    pub async fn learn(
        &self,
        store: &dyn Store,
        holder: &impl KeyHolder,
        fingerprint: [u8; 4],
    ) -> Result<Learned, StoreError> {
        let asked = Instant::now();
        if self.is_nobodys(fingerprint, asked) {
            return Ok(Learned::Nobodys);
        }
        let mut look = self.look.lock().await;
        // Only a look that began after we asked, and that saw the store, can have missed nothing.
        if look.seen.is_none_or(|began| began < asked) {
            if let Some(tried) = look.tried {
                tokio::time::sleep_until(tried + LOOK_GAP).await;
            }
            let began = Instant::now();
            look.tried = Some(began);
            self.refresh(store, holder).await?;
            look.seen = Some(began);
        }
        drop(look);
        if holder.knows(fingerprint) {
            return Ok(Learned::Known);
        }
        if self.unsure_until().is_some_and(|until| Instant::now() < until) {
            let why = "it came back without keys that others may give back yet";
            return Err(StoreError::Away(why.to_owned()));
        }
        let mut nobodys = self.nobodys();
        if nobodys.len() >= NOBODYS_MAX {
            nobodys.clear();
        }
        nobodys.insert(fingerprint, Instant::now());
        Ok(Learned::Nobodys)
    }

    fn is_nobodys(&self, fingerprint: [u8; 4], now: Instant) -> bool {
        self.nobodys().get(&fingerprint).is_some_and(|since| now < *since + NOBODYS_FOR)
    }

    fn unsure_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unsure_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nobodys(&self) -> MutexGuard<'_, HashMap<[u8; 4], Instant>> {
        self.nobodys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bounds, Embedded, Keys as _, embedded};

    const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(12);

    #[derive(Default)]
    struct Holder(Mutex<Vec<StoredKey>>);

    impl Holder {
        fn with(name: u8) -> Holder {
            Holder(Mutex::new(vec![key(name)]))
        }
    }

    impl KeyHolder for Holder {
        fn knows(&self, fingerprint: [u8; 4]) -> bool {
            self.0.lock().unwrap().iter().any(|known| known.fingerprint == fingerprint)
        }

        fn adopt(&self, stored: &[StoredKey]) -> Vec<StoredKey> {
            let mut known = self.0.lock().unwrap();
            let lacking: Vec<_> = stored.iter().filter(|key| !known.contains(key)).cloned().collect();
            known.extend(lacking);
            known.clone()
        }
    }

    fn key(name: u8) -> StoredKey {
        StoredKey { fingerprint: [name; 4], secret: [name; 32], published_s: 1 }
    }

    fn empty() -> Embedded {
        embedded::open(None, Bounds::default()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_nobody_has_is_looked_for_once_in_a_while() {
        let (store, search, holder) = (empty(), KeySearch::new(GIVEN_BACK_WITHIN), Holder::default());
        assert_eq!(search.learn(&store, &holder, [9; 4]).await, Ok(Learned::Nobodys));
        store.put_key(key(9)).await.unwrap();
        assert_eq!(search.learn(&store, &holder, [9; 4]).await, Ok(Learned::Nobodys));
        tokio::time::sleep(NOBODYS_FOR).await;
        assert_eq!(search.learn(&store, &holder, [9; 4]).await, Ok(Learned::Known));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_a_store_which_lost_ours_lacks_is_nobodys_only_when_all_had_the_time_to_give_it_back()
    {
        let (wiped, search, holder) = (empty(), KeySearch::new(GIVEN_BACK_WITHIN), Holder::with(1));
        assert!(matches!(search.learn(&wiped, &holder, [2; 4]).await, Err(StoreError::Away(_))));
        assert_eq!(wiped.keys().await.unwrap(), [key(1)], "ours is given back");
        let other = Holder::with(2);
        KeySearch::new(GIVEN_BACK_WITHIN).refresh(&wiped, &other).await.unwrap();
        assert!(other.knows([1; 4]));
        // A look of this very instant would have been the last one.
        tokio::time::advance(LOOK_GAP).await;
        assert_eq!(search.learn(&wiped, &holder, [2; 4]).await, Ok(Learned::Known));
        assert!(matches!(search.learn(&wiped, &holder, [3; 4]).await, Err(StoreError::Away(_))));
        tokio::time::sleep(GIVEN_BACK_WITHIN).await;
        assert_eq!(search.learn(&wiped, &holder, [3; 4]).await, Ok(Learned::Nobodys));
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_to_an_empty_store_gives_nobody_up_at_once() {
        let (store, search, holder) = (empty(), KeySearch::new(GIVEN_BACK_WITHIN), Holder::with(1));
        store.put_key(key(1)).await.unwrap();
        search.lost();
        assert!(matches!(search.learn(&store, &holder, [3; 4]).await, Err(StoreError::Away(_))));
        tokio::time::sleep(GIVEN_BACK_WITHIN).await;
        assert_eq!(search.learn(&store, &holder, [3; 4]).await, Ok(Learned::Nobodys));
    }
}
