//! Records kept here only while the store is away, until they are published.
//!
//! For whoever asks they are the record. Each remembers what it was made from, so that publishing it is one
//! compare-and-set, and a conflict is seen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Cas, Etag, Uuid16, Versioned, Warm};

/// A record that is not in the store yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// The etag that the store's record had when this was made from it.
    pub(super) base: Option<Etag>,
    pub(super) record: Arc<Versioned>,
}

pub(super) struct KeptRecords {
    records: Mutex<HashMap<Uuid16, Kept>>,
    /// So that nobody takes the lock while there are none.
    len: AtomicUsize,
    len_max: usize,
}

/// There is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoRoom;

impl KeptRecords {
    pub(super) fn new(len_max: usize) -> KeptRecords {
        KeptRecords { records: Mutex::default(), len: AtomicUsize::new(0), len_max }
    }

    fn records(&self) -> MutexGuard<'_, HashMap<Uuid16, Kept>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    pub(super) fn get(&self, session: &Uuid16) -> Option<Kept> {
        if self.len() == 0 {
            return None;
        }
        self.records().get(session).cloned()
    }

    /// All sessions with one.
    pub(super) fn sessions(&self) -> Vec<Uuid16> {
        self.records().keys().copied().collect()
    }

    /// Changes a record that is kept already, as the store would.
    pub(super) fn amend(&self, session: &Uuid16, expected: Option<Etag>, next: &Versioned) -> Option<Cas> {
        if self.len() == 0 {
            return None;
        }
        let mut records = self.records();
        let kept = records.get_mut(session)?;
        if kept.record.etag == next.etag {
            return Some(Cas::KeptHere);
        }
        if Some(kept.record.etag) != expected {
            return Some(Cas::Lost(Some(kept.record.clone())));
        }
        kept.record = Arc::new(next.clone());
        Some(Cas::KeptHere)
    }

    /// Keeps a record, made from what was `last_known` of the store's.
    pub(super) fn keep(
        &self,
        session: &Uuid16,
        expected: Option<Etag>,
        next: &Versioned,
        last_known: Warm,
    ) -> Result<Cas, NoRoom> {
        match last_known {
            // The answer to this very write was lost once.
            Warm::Some(record) if record.etag == next.etag => {}
            Warm::Some(record) if Some(record.etag) != expected => return Ok(Cas::Lost(Some(record))),
            Warm::None if expected.is_some() => return Ok(Cas::Lost(None)),
            Warm::Some(_) | Warm::None | Warm::Ask => {}
        }
        let mut records = self.records();
        if records.len() >= self.len_max && !records.contains_key(session) {
            return Err(NoRoom);
        }
        records.insert(*session, Kept { base: expected, record: Arc::new(next.clone()) });
        self.len.store(records.len(), SeqCst);
        Ok(Cas::KeptHere)
    }

    /// `published` is in the store now. If it was changed here meanwhile, the change is still to be published.
    pub(super) fn published(&self, session: &Uuid16, published: Etag) -> Settled {
        let mut records = self.records();
        let Some(kept) = records.get_mut(session) else { return Settled::Gone };
        if kept.record.etag != published {
            kept.base = Some(published);
            return Settled::Changed;
        }
        records.remove(session);
        self.len.store(records.len(), SeqCst);
        Settled::Gone
    }

    /// Takes the place of a record that was to be merged, unless that was changed meanwhile.
    pub(super) fn merged(&self, session: &Uuid16, before: Etag, merged: Kept) -> Settled {
        match self.records().get_mut(session) {
            Some(kept) if kept.record.etag == before => *kept = merged,
            Some(_) => return Settled::Changed,
            None => return Settled::Gone,
        }
        Settled::Changed
    }

    pub(super) fn forget(&self, session: &Uuid16) {
        if self.len() > 0 {
            let mut records = self.records();
            records.remove(session);
            self.len.store(records.len(), SeqCst);
        }
    }
}

/// What is left to do about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing.
    Gone,
    /// There is something to publish.
    Changed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const SESSION: Uuid16 = Uuid16([1; 16]);

    fn record(number: u8) -> Versioned {
        Versioned { etag: Etag([number; 16]), value: Bytes::from(vec![number]) }
    }

    fn known(number: u8) -> Warm {
        Warm::Some(Arc::new(record(number)))
    }

    #[test]
    fn a_record_is_kept_only_on_what_is_known() {
        let kept = KeptRecords::new(10);
        let expected = Some(Etag([1; 16]));
        let lost = Cas::Lost(Some(Arc::new(record(2))));
        assert_eq!(kept.keep(&SESSION, expected, &record(3), known(2)), Ok(lost));
        assert_eq!(kept.keep(&SESSION, expected, &record(3), Warm::None), Ok(Cas::Lost(None)));
        assert_eq!(kept.get(&SESSION), None);
        assert_eq!(kept.keep(&SESSION, expected, &record(3), Warm::Ask), Ok(Cas::KeptHere));
        assert_eq!(kept.get(&SESSION).map(|kept| kept.base), Some(expected));
    }

    #[test]
    fn a_kept_record_changes_as_in_the_store() {
        let kept = KeptRecords::new(10);
        assert_eq!(kept.amend(&SESSION, None, &record(1)), None);
        assert_eq!(kept.keep(&SESSION, None, &record(1), Warm::None), Ok(Cas::KeptHere));
        assert_eq!(kept.amend(&SESSION, None, &record(1)), Some(Cas::KeptHere));
        assert_eq!(kept.amend(&SESSION, None, &record(2)), Some(Cas::Lost(Some(Arc::new(record(1))))));
        assert_eq!(kept.amend(&SESSION, Some(Etag([1; 16])), &record(2)), Some(Cas::KeptHere));
        assert_eq!(kept.get(&SESSION), Some(Kept { base: None, record: Arc::new(record(2)) }));
    }

    #[test]
    fn what_changed_while_it_was_published_is_published_again() {
        let kept = KeptRecords::new(10);
        assert_eq!(kept.keep(&SESSION, None, &record(1), Warm::None), Ok(Cas::KeptHere));
        assert_eq!(kept.amend(&SESSION, Some(Etag([1; 16])), &record(2)), Some(Cas::KeptHere));
        assert_eq!(kept.published(&SESSION, Etag([1; 16])), Settled::Changed);
        assert_eq!(kept.get(&SESSION).map(|kept| kept.base), Some(Some(Etag([1; 16]))));
        assert_eq!(kept.published(&SESSION, Etag([2; 16])), Settled::Gone);
        assert_eq!(kept.len(), 0);
    }

    #[test]
    fn there_is_a_bound() {
        let kept = KeptRecords::new(1);
        assert_eq!(kept.keep(&SESSION, None, &record(1), Warm::None), Ok(Cas::KeptHere));
        assert_eq!(kept.keep(&Uuid16([2; 16]), None, &record(1), Warm::None), Err(NoRoom));
    }
}
