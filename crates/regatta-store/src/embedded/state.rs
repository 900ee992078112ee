//! The state in memory: records and tombstones. Readers never wait; writers are already one after the other.
//!
//! Knows no file: the same `apply` serves a running store and the reading of a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use papaya::HashMap;

use super::entry::{BURY_LEN, Entry, PUT_LEN};
use crate::{Uuid16, Versioned};

/// A record and when it was last used.
pub(super) struct Record {
    pub(super) versioned: Arc<Versioned>,
    /// Seconds since 1970.
    used_s: AtomicU64,
    /// What the log says of it: it is written again only after an hour.
    logged_s: AtomicU64,
}

#[derive(Default)]
pub(super) struct State {
    records: HashMap<Uuid16, Arc<Record>>,
    /// By issue day and digest.
    tombstones: HashMap<(u32, [u8; 16]), ()>,
    live_bytes: AtomicU64,
}

/// A use is logged when the log is this much behind.
const TOUCH_EVERY_S: u64 = 3600;

impl State {
    pub(super) fn record(&self, session: &Uuid16) -> Option<Arc<Record>> {
        self.records.pin().get(session).cloned()
    }

    pub(super) fn is_buried(&self, day: u32, digest: &[u8; 16]) -> bool {
        self.tombstones.pin().contains_key(&(day, *digest))
    }

    pub(super) fn records(&self) -> usize {
        self.records.len()
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Bytes of a log that holds only what is live.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    /// Applies one change. The caller sees to it that no two run at once.
    pub(super) fn apply(&self, entry: Entry) {
        match entry {
            Entry::Put { session, used_s, record } => {
                self.live_bytes.fetch_add(put_len(&record), Relaxed);
                let record = Record {
                    versioned: Arc::new(record),
                    used_s: AtomicU64::new(used_s),
                    logged_s: AtomicU64::new(used_s),
                };
                if let Some(old) = self.records.pin().insert(session, Arc::new(record)) {
                    self.live_bytes.fetch_sub(put_len(&old.versioned), Relaxed);
                }
            }
            Entry::Remove { session } => {
                if let Some(old) = self.records.pin().remove(&session) {
                    self.live_bytes.fetch_sub(put_len(&old.versioned), Relaxed);
                }
            }
            Entry::Touch { session, used_s } => {
                if let Some(record) = self.records.pin().get(&session) {
                    record.used_s.fetch_max(used_s, Relaxed);
                    record.logged_s.fetch_max(used_s, Relaxed);
                }
            }
            Entry::Bury { day, digest } => {
                if self.tombstones.pin().insert((day, digest), ()).is_none() {
                    self.live_bytes.fetch_add(BURY_LEN as u64, Relaxed);
                }
            }
        }
    }

    /// Drops records last used before `used_before_s`; gives their sessions.
    pub(super) fn expire_records(&self, used_before_s: u64) -> Vec<Uuid16> {
        let records = self.records.pin();
        let over = records.iter().filter(|(_, record)| record.used_s.load(Relaxed) < used_before_s);
        let over: Vec<Uuid16> = over.map(|(session, _)| *session).collect();
        over.iter().for_each(|session| self.apply(Entry::Remove { session: *session }));
        over
    }

    /// Drops the tombstones of all days before `day`; gives their number.
    pub(super) fn expire_tombstones(&self, day: u32) -> u64 {
        let tombstones = self.tombstones.pin();
        let over: Vec<(u32, [u8; 16])> = tombstones.keys().filter(|key| key.0 < day).copied().collect();
        over.iter().for_each(|key| {
            tombstones.remove(key);
        });
        let number = over.len() as u64;
        self.live_bytes.fetch_sub(number * BURY_LEN as u64, Relaxed);
        number
    }

    /// Everything, as entries that make it up again. Values are shared, not copied.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let (records, tombstones) = (self.records.pin(), self.tombstones.pin());
        let puts = records.iter().map(|(session, record)| Entry::Put {
            session: *session,
            used_s: record.used_s.load(Relaxed),
            record: Versioned::clone(&record.versioned),
        });
        let buries = tombstones.keys().map(|(day, digest)| Entry::Bury { day: *day, digest: *digest });
        puts.chain(buries).collect()
    }
}

impl Record {
    /// Whether it was used since `since_s`.
    pub(super) fn is_live(&self, since_s: u64) -> bool {
        self.used_s.load(Relaxed) >= since_s
    }

    /// Notes a use; `true` if the log should learn of it, which one caller is told.
    pub(super) fn touch(&self, now_s: u64) -> bool {
        self.used_s.fetch_max(now_s, Relaxed);
        let logged_s = self.logged_s.load(Relaxed);
        now_s.saturating_sub(logged_s) >= TOUCH_EVERY_S
            && self.logged_s.compare_exchange(logged_s, now_s, Relaxed, Relaxed).is_ok()
    }
}

/// Bytes of a record in the log.
pub(super) fn put_len(record: &Versioned) -> u64 {
    (PUT_LEN + record.value.len()) as u64
}
