//! The sealing keys of all gateways on one store: learned, shared, and turned over (SESSIONS 2).
//!
//! The first configured key seals for good; without any, the ripest published one does (`regatta_policy::keys`). Keys are
//! published again from memory whenever the store lacks one, never replaced; a rotation drops those that nothing needs any
//! more, by a rule that all gateways follow, so that nobody brings them back. Keys that are not known here are looked for
//! by `regatta_store::KeySearch`, as at the nodes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use regatta_policy::keys::{Published, is_due, outlived, sealing};
use regatta_seal::{Fingerprint, KEYS_MAX, KeyRing, MasterKey, claimed_key};
use regatta_store::{Claim, KeyHolder, KeySearch, Learned, Store, StoreError, StoredKey};
use tokio::time::Instant;

use super::Company;
use crate::fault::Fault;
use crate::gateway::Gateway;

/// How often the store is asked for keys without a reason.
pub(super) const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// Within that, every gateway gives its keys back to a store that lost them.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(12);
/// How often it is said that the store has no room for keys.
const WARN_EVERY: Duration = Duration::from_secs(24 * 3600);
/// A key seals when everybody has had the time to ask twice.
const RIPE_AFTER: Duration = Duration::from_secs(60);
/// How long a start waits for the store's keys, and between two attempts.
const START_PATIENCE: Duration = Duration::from_secs(2);
const START_PAUSE: Duration = Duration::from_millis(50);

/// Where the keys come from.
#[derive(Debug, Default)]
pub struct KeyPlan {
    /// From the config: the first seals, all open.
    pub configured: Vec<MasterKey>,
    /// Wraps what is kept in the store; none: it is kept in clear.
    pub wrap: Option<MasterKey>,
    /// How the sealing key is turned over; none: it stays.
    pub rotation: Option<Rotation>,
}

/// How sealing keys take over from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// How old the newest key may become before another is published.
    pub every: Duration,
    /// How long texts are needed after they were sealed: a session's lifetime.
    pub kept_for: Duration,
}

/// The keys of one gateway.
#[derive(Debug)]
pub struct Keys {
    plan: KeyPlan,
    known: Mutex<Vec<Known>>,
    search: KeySearch,
}

#[derive(Debug)]
struct Known {
    key: MasterKey,
    published: Published,
}

impl Keys {
    /// Keys that nobody has asked the store for yet.
    pub fn planned(plan: KeyPlan) -> Keys {
        Keys { plan, known: Mutex::default(), search: KeySearch::new(GIVEN_BACK_WITHIN) }
    }

    /// The keys of the config and the store; a fresh one, published, if there are none.
    ///
    /// # Errors
    /// Why no key can be had or kept, for a person. With other gateways on the store its absence is no hindrance: then a
    /// fresh key is published when it is back.
    pub async fn start(plan: KeyPlan, store: &dyn Store, company: Company) -> Result<Keys, String> {
        let keys = Keys::planned(plan);
        let read = keys.first_look(store, company).await;
        if let (Err(why), Company::Alone) = (&read, company) {
            return Err(format!("the sealing keys cannot be read: {why}"));
        }
        if !keys.plan.configured.is_empty() || !keys.lock().is_empty() {
            return Ok(keys);
        }
        let fresh = MasterKey::random();
        let published = Published { at_s: now_s(), fingerprint: fresh.fingerprint().0 };
        let fresh = Known { key: fresh, published };
        if company == Company::Many {
            // A store without keys is new, or was wiped: then other gateways have some.
            keys.search.lost();
        }
        match (store.put_key(keys.stored(&fresh)).await, company) {
            (Ok(_), _) => {}
            (Err(why), Company::Alone) => return Err(format!("the sealing key cannot be kept: {why}")),
            (Err(why), Company::Many) => {
                tracing::warn!(%why, "sealing with a fresh key, which is shared once the store is there");
            }
        }
        keys.lock().push(fresh);
        Ok(keys)
    }

    async fn first_look(&self, store: &dyn Store, company: Company) -> Result<(), StoreError> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match store.keys().await {
                Ok(stored) => {
                    self.adopt(&stored);
                    return Ok(());
                }
                Err(why) if company == Company::Alone || Instant::now() >= deadline => return Err(why),
                Err(_) => tokio::time::sleep(START_PAUSE).await,
            }
        }
    }

    /// A ring of all keys as of now. `None` only before there is any.
    pub(crate) fn ring(&self) -> Option<KeyRing> {
        let known = self.lock();
        let published: Vec<Published> = known.iter().map(|known| known.published).collect();
        let ripest = sealing(&published, now_s(), RIPE_AFTER);
        let ripest = ripest.and_then(|ripest| known.iter().find(|known| known.published == ripest));
        let current = self.plan.configured.first().or(ripest.map(|known| &known.key))?;
        let others = self.plan.configured.iter().chain(known.iter().map(|known| &known.key));
        Some(others.fold(KeyRing::new(current), |ring, key| ring.add(key)))
    }

    /// Reads the store's keys and publishes those that it lacks.
    pub(crate) async fn refresh(&self, store: &dyn Store, ring: &ArcSwap<KeyRing>) -> Result<(), StoreError> {
        self.search.refresh(store, &Ringed { keys: self, ring }).await
    }

    /// Looks for a key that the ring lacks.
    pub(crate) async fn learn(
        &self,
        store: &dyn Store,
        ring: &ArcSwap<KeyRing>,
        key: Fingerprint,
    ) -> Result<Learned, StoreError> {
        self.search.learn(store, &Ringed { keys: self, ring }, key.0).await
    }

    /// Publishes a fresh key when the newest is old enough, and drops those that nothing needs any more; one gateway of
    /// all does.
    pub(super) async fn rotate(&self, store: &dyn Store, ring: &ArcSwap<KeyRing>) -> Result<(), StoreError> {
        let Some(rotation) = self.plan.rotation else { return Ok(()) };
        let published: Vec<Published> = self.lock().iter().map(|known| known.published).collect();
        let newest = published.iter().max().map(|newest| newest.fingerprint);
        let (Some(newest), true) = (newest, is_due(&published, now_s(), rotation.every)) else {
            return Ok(());
        };
        let turn = regatta_seal::digest16(&[b"rotate sealing key", &newest]);
        if store.claim(turn, RIPE_AFTER).await? == Claim::Repeated {
            return Ok(());
        }
        // First, because the store has room for so many.
        let stored = store.keys().await?;
        let published =
            stored.iter().map(|key| Published { at_s: key.published_s, fingerprint: key.fingerprint });
        for name in self.outlived(published) {
            store.drop_key(name).await?;
            tracing::info!(key = %Fingerprint(name), "a sealing key that nothing needs any more was dropped");
        }
        let key = MasterKey::random();
        let published = Published { at_s: now_s(), fingerprint: key.fingerprint().0 };
        let fresh = Known { key, published };
        store.put_key(self.stored(&fresh)).await?;
        tracing::info!("a new sealing key was published; it seals in a minute");
        self.lock().push(fresh);
        self.renew(ring);
        Ok(())
    }

    /// The names of those that are of no more use.
    fn outlived(&self, published: impl Iterator<Item = Published>) -> Vec<[u8; 4]> {
        let Some(Rotation { kept_for, .. }) = self.plan.rotation else { return Vec::new() };
        let published: Vec<Published> = published.collect();
        outlived(&published, now_s(), RIPE_AFTER, kept_for).map(|key| key.fingerprint).collect()
    }

    fn adopt(&self, stored: &[StoredKey]) {
        let mut known = self.lock();
        for key in stored {
            let name = Fingerprint(key.fingerprint);
            if known.iter().any(|known| known.published.fingerprint == name.0) || known.len() >= KEYS_MAX {
                continue;
            }
            let published = Published { at_s: key.published_s, fingerprint: name.0 };
            let secret = match &self.plan.wrap {
                Some(wrap) => wrap.unwrap(name, &key.secret),
                None => Some(MasterKey::new(key.secret)).filter(|key| key.fingerprint() == name),
            };
            match secret {
                Some(key) => known.push(Known { key, published }),
                None => {
                    tracing::warn!(key = %name, "a sealing key in the store cannot be read: store.key must be the same at every gateway")
                }
            }
        }
        let outlived = self.outlived(known.iter().map(|known| known.published));
        known.retain(|known| !outlived.contains(&known.published.fingerprint));
    }

    fn stored(&self, known: &Known) -> StoredKey {
        let secret = match &self.plan.wrap {
            Some(wrap) => wrap.wrap(&known.key),
            None => *known.key.secret_bytes(),
        };
        let Published { at_s, fingerprint } = known.published;
        StoredKey { fingerprint, secret, published_s: at_s }
    }

    fn renew(&self, ring: &ArcSwap<KeyRing>) {
        let Some(next) = self.ring() else { return };
        let now = ring.load();
        if next.current() != now.current() || next.fingerprints().any(|key| !now.knows(key)) {
            ring.store(next.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A gateway's keys, with the ring that its requests use.
struct Ringed<'a> {
    keys: &'a Keys,
    ring: &'a ArcSwap<KeyRing>,
}

impl KeyHolder for Ringed<'_> {
    fn knows(&self, fingerprint: [u8; 4]) -> bool {
        self.ring.load().knows(Fingerprint(fingerprint))
    }

    /// Configured keys are their operator's to share.
    fn adopt(&self, stored: &[StoredKey]) -> Vec<StoredKey> {
        self.keys.adopt(stored);
        self.keys.renew(self.ring);
        self.keys.lock().iter().map(|known| self.keys.stored(known)).collect()
    }
}

/// Makes sure that the key of a sealed text is in the ring if any gateway has published it. A text that is no seal is
/// nobody's business here: whoever opens it says so.
pub(crate) async fn learn_key_of(gateway: &Gateway, text: &str) -> Result<(), Fault> {
    let Some(key) = claimed_key(text) else { return Ok(()) };
    if gateway.ring.load().knows(key) {
        return Ok(());
    }
    match gateway.peers.keys.learn(&*gateway.store, &gateway.ring, key).await {
        Ok(Learned::Known | Learned::Nobodys) => Ok(()),
        Err(_) => Err(Fault::StoreAway),
    }
}

/// Keeps the keys fresh for as long as the gateway lives.
pub(super) async fn tend(gateway: &Gateway) {
    let keys = &gateway.peers.keys;
    let mut warned = None::<Instant>;
    loop {
        tokio::time::sleep(REFRESH_EVERY).await;
        let fresh = async {
            keys.refresh(&*gateway.store, &gateway.ring).await?;
            keys.rotate(&*gateway.store, &gateway.ring).await
        };
        match fresh.await {
            Ok(()) => {}
            Err(StoreError::Full(what)) if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) => {
                warned = Some(Instant::now());
                tracing::warn!(what, "no new sealing key is published: the store has no room for one");
            }
            Err(why) => tracing::debug!(%why, "the sealing keys could not be looked at"),
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use regatta_store::{Bounds, Embedded, Keys as _, embedded};

    use super::*;

    fn store() -> Arc<Embedded> {
        Arc::new(embedded::open(None, Bounds::default()).unwrap())
    }

    async fn start(plan: KeyPlan, store: &Embedded) -> (Keys, ArcSwap<KeyRing>) {
        let keys = Keys::start(plan, store, Company::Many).await.unwrap();
        let ring = ArcSwap::from_pointee(keys.ring().unwrap());
        (keys, ring)
    }

    #[tokio::test]
    async fn two_gateways_seal_with_the_same_key_and_the_second_makes_none() {
        let store = store();
        let (_, one) = start(KeyPlan::default(), &store).await;
        let (_, two) = start(KeyPlan::default(), &store).await;
        assert_eq!(one.load().current(), two.load().current());
        assert_eq!(store.keys().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_configured_key_seals_and_the_published_one_still_opens() {
        let store = store();
        let (_, stored) = start(KeyPlan::default(), &store).await;
        let configured = vec![MasterKey::random(), MasterKey::random()];
        let (_, ring) = start(KeyPlan { configured: configured.clone(), ..KeyPlan::default() }, &store).await;
        let ring = ring.load();
        assert_eq!(ring.current(), configured[0].fingerprint());
        assert!(ring.knows(stored.load().current()) && ring.knows(configured[1].fingerprint()));
        assert_eq!(store.keys().await.unwrap().len(), 1, "configured keys are not published");
    }

    #[tokio::test]
    async fn a_key_that_another_gateway_published_meanwhile_is_learned() {
        let store = store();
        let (keys, ring) = start(KeyPlan::default(), &store).await;
        let other = MasterKey::random();
        let fingerprint = other.fingerprint();
        let published =
            StoredKey { fingerprint: fingerprint.0, secret: *other.secret_bytes(), published_s: 7 };
        store.put_key(published).await.unwrap();
        assert!(!ring.load().knows(fingerprint));
        assert_eq!(keys.learn(&*store, &ring, fingerprint).await, Ok(Learned::Known));
        assert!(ring.load().knows(fingerprint));
    }

    #[tokio::test]
    async fn a_store_that_was_wiped_gets_the_keys_back() {
        let (keys, ring) = start(KeyPlan::default(), &store()).await;
        let wiped = store();
        keys.refresh(&*wiped, &ring).await.unwrap();
        assert_eq!(wiped.keys().await.unwrap()[0].fingerprint, ring.load().current().0);
    }

    #[tokio::test]
    async fn a_wrapped_key_is_read_by_who_has_the_wrapping_key_only() {
        let store = store();
        let wrap = MasterKey::random();
        let plan = || KeyPlan { wrap: Some(wrap.clone()), ..KeyPlan::default() };
        let (_, one) = start(plan(), &store).await;
        let (_, two) = start(plan(), &store).await;
        assert_eq!(one.load().current(), two.load().current());
        let kept = store.keys().await.unwrap().remove(0);
        assert_ne!(MasterKey::new(kept.secret).fingerprint(), one.load().current(), "not in clear");
        let (_, without) = start(KeyPlan::default(), &store).await;
        assert!(!without.load().knows(one.load().current()));
    }

    #[tokio::test]
    async fn a_new_key_is_published_when_it_is_due_and_does_not_seal_yet() {
        let store = store();
        let old = MasterKey::random();
        let name = old.fingerprint();
        let aged =
            StoredKey { fingerprint: name.0, secret: *old.secret_bytes(), published_s: now_s() - 7200 };
        store.put_key(aged).await.unwrap();
        let (one, ring) = start(turned_over(), &store).await;
        let (two, _) = start(turned_over(), &store).await;
        one.rotate(&*store, &ring).await.unwrap();
        two.rotate(&*store, &ring).await.unwrap();
        one.rotate(&*store, &ring).await.unwrap();
        assert_eq!(store.keys().await.unwrap().len(), 2, "one new key, not one for each gateway");
        assert_eq!(ring.load().current(), name);
        assert_eq!(ring.load().fingerprints().count(), 2);
    }

    #[tokio::test]
    async fn keys_that_nothing_needs_any_more_make_room_and_nobody_brings_them_back() {
        const DAY: u64 = 24 * 3600;
        let store = store();
        let mut newest = None;
        for age in (40..40 + KEYS_MAX as u64).rev() {
            let key = MasterKey::random();
            newest = Some(key.fingerprint());
            let (fingerprint, secret) = (key.fingerprint().0, *key.secret_bytes());
            let aged = StoredKey { fingerprint, secret, published_s: now_s() - age * DAY };
            store.put_key(aged).await.unwrap();
        }
        let newest = newest.unwrap();
        let (one, ring) = start(turned_over(), &store).await;
        let (two, other) = start(turned_over(), &store).await;
        one.rotate(&*store, &ring).await.expect("there is room again");
        two.refresh(&*store, &other).await.unwrap();
        one.refresh(&*store, &ring).await.unwrap();
        let kept: Vec<[u8; 4]> = store.keys().await.unwrap().iter().map(|key| key.fingerprint).collect();
        assert_eq!((kept.len(), kept[0]), (2, newest.0), "the one that seals, and the one that will");
        assert_eq!((ring.load().current(), other.load().current()), (newest, newest));
        assert!(other.load().knows(Fingerprint(kept[1])));
    }

    fn turned_over() -> KeyPlan {
        let (every, kept_for) = (Duration::from_secs(3600), Duration::from_secs(7 * 24 * 3600));
        KeyPlan { rotation: Some(Rotation { every, kept_for }), ..KeyPlan::default() }
    }
}
