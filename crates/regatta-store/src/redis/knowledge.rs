//! What this process knows of records and tombstones, and whether it is certain.
//!
//! A piece of knowledge carries a mark that was taken *before* the store was asked: the epoch of the link and the number
//! of changes heard of in its stripe. Heard of another change since, or lost the link, and it is old. So a notice that
//! overtakes an answer, or an answer that a notice overtakes, can never make something old pass for certain.

use std::hash::{BuildHasher as _, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Weighter};

use super::options::Limits;
use crate::{Buried, Grave, Uuid16, Versioned, Warm};

/// Sessions that share a stripe are asked for again together.
const STRIPES: usize = 4096;
/// A use of a record is told to the store this often.
const TOUCH_EVERY_MS: u64 = 3_600_000;

/// When something was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: u64,
    changes: u64,
    /// Servers there had been: the one that is asked is the last of these, or one that came after it.
    server: u64,
}

struct Known {
    record: Option<Arc<Versioned>>,
    mark: Mark,
    /// When the store last heard of a use, ms.
    touched_ms: AtomicU64,
}

#[derive(Clone, Copy)]
struct KnownGrave {
    grave: Grave,
    mark: Mark,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Uuid16, Arc<Known>> for Weight {
    fn weight(&self, _: &Uuid16, known: &Arc<Known>) -> u64 {
        128 + known.record.as_ref().map_or(0, |record| record.value.len() as u64)
    }
}

pub(super) struct Knowledge {
    records: Cache<Uuid16, Arc<Known>, Weight>,
    graves: Cache<(u32, [u8; 16]), KnownGrave>,
    /// Changes heard of.
    stripes: Box<[AtomicU64]>,
    hasher: DefaultHashBuilder,
    epoch: AtomicU64,
    /// Times that another server, or another run of it, took the place of the last one.
    servers: AtomicU64,
    certain_until_ms: AtomicU64,
    began: Instant,
}

impl Knowledge {
    pub(super) fn new(limits: &Limits) -> Knowledge {
        Knowledge {
            records: Cache::with_weighter(limits.known_max, limits.known_bytes_max, Weight),
            graves: Cache::new(limits.known_max),
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
            hasher: DefaultHashBuilder::default(),
            epoch: AtomicU64::new(0),
            servers: AtomicU64::new(0),
            certain_until_ms: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// All notices up to `sent_ms` have come.
    pub(super) fn prove(&self, sent_ms: u64, trust_for: Duration) {
        self.certain_until_ms.fetch_max(sent_ms + trust_for.as_millis() as u64, SeqCst);
    }

    /// Whether notices come.
    pub(super) fn is_certain(&self) -> bool {
        self.now_ms() < self.certain_until_ms.load(SeqCst)
    }

    /// Notices may have been lost: all that is known is old.
    pub(super) fn distrust(&self) {
        self.epoch.fetch_add(1, SeqCst);
        self.certain_until_ms.store(0, SeqCst);
    }

    /// Another server answers from now on: what is known was learned from the one before, and may be more than this one
    /// has.
    pub(super) fn change_server(&self) {
        self.servers.fetch_add(1, SeqCst);
        self.distrust();
    }

    fn stripe<K: Hash>(&self, key: &K) -> &AtomicU64 {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }

    fn mark_of<K: Hash>(&self, key: &K) -> Mark {
        Mark {
            epoch: self.epoch.load(SeqCst),
            changes: self.stripe(key).load(SeqCst),
            server: self.servers.load(SeqCst),
        }
    }

    fn is_current<K: Hash>(&self, key: &K, mark: Mark) -> bool {
        self.mark_of(key) == mark
    }

    /// Take it before the store is asked.
    pub(super) fn mark(&self, session: &Uuid16) -> Mark {
        self.mark_of(session)
    }

    pub(super) fn mark_grave(&self, day: u32, digest: &[u8; 16]) -> Mark {
        self.mark_of(&(day, *digest))
    }

    /// The store answered.
    pub(super) fn learn(&self, session: &Uuid16, record: Option<Arc<Versioned>>, mark: Mark) {
        let known = self.records.get(session);
        if known.is_some() && !self.is_current(session, mark) {
            return;
        }
        // Another version of it was used just now, or the store would not have changed; a first look says nothing.
        let touched_ms = known.map_or(0, |known| known.touched_ms.load(Relaxed));
        self.keep(session, record, mark, touched_ms);
    }

    /// We wrote it, or removed it.
    pub(super) fn wrote(&self, session: &Uuid16, record: Option<Arc<Versioned>>, mark: Mark) {
        // An answer that was on its way before must not be learned after this.
        let stripe = self.stripe(session);
        let mine = stripe.compare_exchange(mark.changes, mark.changes + 1, SeqCst, SeqCst).is_ok();
        let mark = if mine { Mark { changes: mark.changes + 1, ..mark } } else { mark };
        self.keep(session, record, mark, self.now_ms().max(1));
    }

    fn keep(&self, session: &Uuid16, record: Option<Arc<Versioned>>, mark: Mark, touched_ms: u64) {
        let touched_ms = AtomicU64::new(touched_ms);
        self.records.insert(*session, Arc::new(Known { record, mark, touched_ms }));
    }

    /// The record that an earlier server had, when the present one says that there is none.
    pub(super) fn lost(&self, session: &Uuid16) -> Option<Arc<Versioned>> {
        let known =
            self.records.get(session).filter(|known| known.mark.server < self.servers.load(SeqCst))?;
        known.record.clone()
    }

    /// Another process changed it.
    pub(super) fn heard_of(&self, session: &Uuid16) {
        self.stripe(session).fetch_add(1, SeqCst);
    }

    pub(super) fn warm(&self, session: &Uuid16) -> Warm {
        let Some(known) = self.records.get(session) else { return Warm::Ask };
        match self.is_certain() && self.is_current(session, known.mark) {
            true => known.record.clone().map_or(Warm::None, Warm::Some),
            false => Warm::Ask,
        }
    }

    pub(super) fn last_known(&self, session: &Uuid16) -> Warm {
        let known = self.records.get(session);
        known.map_or(Warm::Ask, |known| known.record.clone().map_or(Warm::None, Warm::Some))
    }

    /// Whether the store should hear of this use; one caller is told.
    pub(super) fn touch(&self, session: &Uuid16) -> bool {
        let Some(known) = self.records.get(session).filter(|known| known.record.is_some()) else {
            return false;
        };
        let (now_ms, touched_ms) = (self.now_ms().max(1), known.touched_ms.load(Relaxed));
        let due = touched_ms == 0 || now_ms - touched_ms.min(now_ms) >= TOUCH_EVERY_MS;
        due && known.touched_ms.compare_exchange(touched_ms, now_ms, Relaxed, Relaxed).is_ok()
    }

    pub(super) fn learn_grave(&self, day: u32, digest: &[u8; 16], grave: Grave, mark: Mark) {
        let key = (day, *digest);
        let known = self.graves.get(&key).map(|known| known.grave);
        // A grave stays, whatever is answered later by a server that lost it.
        if known != Some(Grave::Dug) {
            self.graves.insert(key, KnownGrave { grave, mark });
        }
    }

    pub(super) fn heard_of_grave(&self, day: u32, digest: &[u8; 16]) {
        let key = (day, *digest);
        self.stripe(&key).fetch_add(1, SeqCst);
        // Only what was asked for here before is worth a place.
        if self.graves.get(&key).is_some() {
            self.learn_grave(day, digest, Grave::Dug, self.mark_of(&key));
        }
    }

    pub(super) fn buried(&self, day: u32, digest: &[u8; 16]) -> Buried {
        let key = (day, *digest);
        match self.graves.get(&key) {
            Some(KnownGrave { grave: Grave::Dug, .. }) => Buried::Yes,
            Some(KnownGrave { grave: Grave::None, mark })
                if self.is_certain() && self.is_current(&key, mark) =>
            {
                Buried::No
            }
            Some(_) | None => Buried::Ask,
        }
    }

    pub(super) fn records_len(&self) -> u64 {
        self.records.len() as u64
    }

    pub(super) fn graves_len(&self) -> u64 {
        self.graves.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Etag;
    use bytes::Bytes;

    const SESSION: Uuid16 = Uuid16([1; 16]);
    const LONG: Duration = Duration::from_secs(3600);

    fn knowledge() -> Knowledge {
        let knowledge = Knowledge::new(&Limits::default());
        knowledge.prove(0, LONG);
        knowledge
    }

    fn record(number: u8) -> Arc<Versioned> {
        Arc::new(Versioned { etag: Etag([number; 16]), value: Bytes::from(vec![number]) })
    }

    #[test]
    fn what_was_answered_is_known_until_something_is_heard() {
        let known = knowledge();
        assert_eq!(known.warm(&SESSION), Warm::Ask);
        known.learn(&SESSION, None, known.mark(&SESSION));
        assert_eq!(known.warm(&SESSION), Warm::None);
        known.heard_of(&SESSION);
        assert_eq!(known.warm(&SESSION), Warm::Ask);
        assert_eq!(known.last_known(&SESSION), Warm::None);
    }

    #[test]
    fn an_answer_that_a_notice_overtook_is_not_certain() {
        let known = knowledge();
        let mark = known.mark(&SESSION);
        known.heard_of(&SESSION);
        known.learn(&SESSION, Some(record(1)), mark);
        assert_eq!(known.warm(&SESSION), Warm::Ask);
        assert_eq!(known.last_known(&SESSION), Warm::Some(record(1)));
    }

    #[test]
    fn an_answer_from_before_our_own_write_does_not_replace_it() {
        let known = knowledge();
        let (read, write) = (known.mark(&SESSION), known.mark(&SESSION));
        known.wrote(&SESSION, Some(record(2)), write);
        known.learn(&SESSION, Some(record(1)), read);
        assert_eq!(known.warm(&SESSION), Warm::Some(record(2)));
    }

    #[test]
    fn a_write_that_another_one_followed_is_not_certain() {
        let known = knowledge();
        let mark = known.mark(&SESSION);
        known.heard_of(&SESSION);
        known.wrote(&SESSION, Some(record(2)), mark);
        assert_eq!(known.warm(&SESSION), Warm::Ask);
    }

    #[test]
    fn without_proof_nothing_is_certain_but_a_grave() {
        let known = knowledge();
        known.learn(&SESSION, Some(record(1)), known.mark(&SESSION));
        known.learn_grave(1, &[1; 16], Grave::Dug, known.mark_grave(1, &[1; 16]));
        known.learn_grave(1, &[2; 16], Grave::None, known.mark_grave(1, &[2; 16]));
        assert_eq!(known.buried(1, &[2; 16]), Buried::No);
        known.distrust();
        assert_eq!(known.warm(&SESSION), Warm::Ask);
        assert_eq!(known.buried(1, &[1; 16]), Buried::Yes);
        assert_eq!(known.buried(1, &[2; 16]), Buried::Ask);
        known.prove(known.now_ms(), LONG);
        assert_eq!(known.warm(&SESSION), Warm::Ask, "what is from before the link was lost stays old");
    }

    #[test]
    fn a_grave_dug_elsewhere_is_known_at_once() {
        let known = knowledge();
        known.learn_grave(1, &[2; 16], Grave::None, known.mark_grave(1, &[2; 16]));
        known.heard_of_grave(1, &[2; 16]);
        assert_eq!(known.buried(1, &[2; 16]), Buried::Yes);
        known.learn_grave(1, &[2; 16], Grave::None, known.mark_grave(1, &[2; 16]));
        assert_eq!(known.buried(1, &[2; 16]), Buried::Yes, "a grave stays");
    }

    #[test]
    fn what_an_earlier_server_had_is_lost_when_the_next_one_has_none() {
        let known = knowledge();
        known.learn(&SESSION, Some(record(1)), known.mark(&SESSION));
        assert_eq!(known.lost(&SESSION), None, "it was removed, by whoever");
        known.change_server();
        assert_eq!(known.lost(&SESSION), Some(record(1)));
        known.learn(&SESSION, None, known.mark(&SESSION));
        assert_eq!(known.lost(&SESSION), None);
    }

    #[test]
    fn an_answer_that_a_change_of_servers_overtook_is_the_earlier_servers() {
        let (known, asked) = (knowledge(), [SESSION, Uuid16([2; 16])]);
        let marks = asked.map(|session| known.mark(&session));
        known.change_server();
        known.learn(&asked[0], Some(record(1)), marks[0]);
        known.wrote(&asked[1], Some(record(2)), marks[1]);
        assert_eq!(asked.map(|session| known.lost(&session)), [Some(record(1)), Some(record(2))]);
    }

    #[test]
    fn the_store_hears_of_a_use_once() {
        let known = knowledge();
        assert!(!known.touch(&SESSION), "nothing is known that could be used");
        known.learn(&SESSION, Some(record(1)), known.mark(&SESSION));
        assert!(known.touch(&SESSION));
        assert!(!known.touch(&SESSION));
    }
}
