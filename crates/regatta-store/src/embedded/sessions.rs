//! Deviation records and tombstones: read from memory without a lock, written to the log first.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::entry::{BURY_LEN, Entry};
use super::state::put_len;
use super::{Embedded, ready};
use crate::{BoxFuture, Buried, Cas, Etag, Grave, Met, Sessions, StoreError, Uuid16, Versioned, Warm};

impl Embedded {
    pub(super) fn live(&self, session: &Uuid16) -> Option<Arc<Versioned>> {
        let record = self.state.record(session)?;
        record.is_live(self.live_since((self.clock)())).then(|| record.versioned.clone())
    }

    pub(super) fn put(
        &self,
        session: Uuid16,
        expected: Option<Etag>,
        next: Versioned,
    ) -> Result<Cas, StoreError> {
        if next.value.len() > self.bounds.value_max {
            self.counters.refused_values.fetch_add(1, Relaxed);
            return Err(StoreError::TooLarge("a session record"));
        }
        let now_s = (self.clock)();
        let mut writer = self.writer();
        let present = self.live(&session);
        let etag = present.as_ref().map(|present| present.etag);
        if etag == Some(next.etag) {
            return Ok(Cas::Done);
        }
        if etag != expected {
            return Ok(Cas::Lost(present));
        }
        let room = self.room_for(put_len(&next));
        if !room || (present.is_none() && self.state.records() >= self.bounds.records_max) {
            self.counters.refused_records.fetch_add(1, Relaxed);
            return Err(StoreError::Full("session records"));
        }
        writer.change(Entry::Put { session, used_s: now_s, record: next });
        Ok(Cas::Done)
    }

    fn room_for(&self, bytes: u64) -> bool {
        self.state.live_bytes() + bytes <= self.bounds.log_bytes_max / 2
    }

    pub(super) fn inter(&self, day: u32, digest: [u8; 16]) -> Result<(), StoreError> {
        let mut writer = self.writer();
        if self.state.is_buried(day, &digest) {
            return Ok(());
        }
        if !self.has_room_for_a_grave() {
            self.counters.refused_tombstones.fetch_add(1, Relaxed);
            return Err(StoreError::Full("tombstones"));
        }
        // A session that comes back after a restart is worse than a DELETE that fails.
        writer.change_or_fail(Entry::Bury { day, digest }).map_err(StoreError::Away)
    }

    fn has_room_for_a_grave(&self) -> bool {
        self.state.tombstones() < self.bounds.tombstones_max && self.room_for(BURY_LEN as u64)
    }
}

impl Sessions for Embedded {
    fn warm(&self, session: &Uuid16) -> Warm {
        self.live(session).map_or(Warm::None, Warm::Some)
    }

    fn last_known(&self, session: &Uuid16) -> Warm {
        self.warm(session)
    }

    fn read(&self, session: &Uuid16) -> BoxFuture<'_, Result<Option<Arc<Versioned>>, StoreError>> {
        ready(Ok(self.live(session)))
    }

    fn meet(&self, session: &Uuid16, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<Met, StoreError>> {
        let grave = if self.state.is_buried(day, &digest) { Grave::Dug } else { Grave::None };
        ready(Ok(Met { record: self.live(session), grave }))
    }

    fn compare_and_set(
        &self,
        session: &Uuid16,
        expected: Option<Etag>,
        next: Versioned,
    ) -> BoxFuture<'_, Result<Cas, StoreError>> {
        ready(self.put(*session, expected, next))
    }

    fn touch(&self, session: &Uuid16) {
        let Some(record) = self.state.record(session) else { return };
        let now_s = (self.clock)();
        if record.touch(now_s) {
            self.writer().change(Entry::Touch { session: *session, used_s: now_s });
        }
    }

    fn forget(&self, session: &Uuid16) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut writer = self.writer();
        if self.state.record(session).is_some() {
            writer.change(Entry::Remove { session: *session });
        }
        ready(Ok(()))
    }

    fn buried(&self, day: u32, digest: &[u8; 16]) -> Buried {
        match self.state.is_buried(day, digest) {
            true => Buried::Yes,
            false => Buried::No,
        }
    }

    fn is_buried(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.state.is_buried(day, &digest)))
    }

    fn may_bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        let may = self.state.is_buried(day, &digest) || self.has_room_for_a_grave();
        ready(if may { Ok(()) } else { Err(StoreError::Full("tombstones")) })
    }

    fn bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(self.inter(day, digest))
    }
}
