//! Deviation records and tombstones in Redis: a hash a session, a set a day.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use redis::Value;

use super::line::Repeat;
use super::remembered::Write;
use super::scripts;
use super::{Inner, Redis, bulletin};
use crate::{
    BoxFuture, Buried, Cas, Etag, Grave, Link, Met, Notice, Sessions, StoreError, Uuid16, Versioned, Warm,
};

/// A day in seconds.
const DAY_S: u64 = 24 * 3600;

/// What compare-and-set came to at the store.
pub(super) enum Swap {
    Written,
    /// It was there: the same write again.
    Repeated,
    Lost(Option<Arc<Versioned>>),
}

impl Inner {
    /// One compare-and-set at the store; what was learned is kept in mind.
    pub(super) async fn swap(
        &self,
        session: &Uuid16,
        expected: Option<Etag>,
        next: &Arc<Versioned>,
    ) -> Result<Swap, StoreError> {
        let mark = self.means.knowledge.mark(session);
        let expected = expected.as_ref().map_or(&b""[..], |etag| &etag.0);
        let ttl = self.limits.record_ttl.as_millis().to_string();
        let (channel, notice) = self.notice(Notice::RecordChanged(*session));
        let args = [expected, &next.etag.0, &next.value, ttl.as_bytes(), channel.as_bytes(), &notice];
        let answer = self.routes.run(&scripts::COMPARE_AND_SET, &self.names.session(session), &args).await?;
        let swap = match answer {
            Value::Int(1) => Swap::Written,
            Value::Int(2) => Swap::Repeated,
            Value::Int(0) => Swap::Lost(None),
            pair => Swap::Lost(Some(read_record(pair).ok_or_else(unreadable)?)),
        };
        match &swap {
            Swap::Written | Swap::Repeated => self.means.knowledge.wrote(session, Some(next.clone()), mark),
            Swap::Lost(record) => self.means.knowledge.learn(session, record.clone(), mark),
        }
        Ok(swap)
    }

    async fn write(
        &self,
        session: Uuid16,
        expected: Option<Etag>,
        next: Versioned,
    ) -> Result<Cas, StoreError> {
        if next.value.len() > self.limits.value_max {
            self.means.counters.refused_values.one();
            return Err(StoreError::TooLarge("a session record"));
        }
        if let Some(answer) = self.kept.amend(&session, expected, &next) {
            return Ok(answer);
        }
        let record = Arc::new(next);
        match self.swap(&session, expected, &record).await {
            Ok(Swap::Written | Swap::Repeated) => {
                self.refusal.clear();
                self.remembered.add(Write::Record { session, base: expected, record }, Instant::now());
                Ok(Cas::Done)
            }
            Ok(Swap::Lost(winner)) => Ok(Cas::Lost(winner)),
            Err(StoreError::Away(why)) => {
                let last_known = self.means.knowledge.last_known(&session);
                let kept = self.kept.keep(&session, expected, &record, last_known);
                if kept == Ok(Cas::KeptHere) && self.routes.link() == Link::Up {
                    self.refusal.note(&why);
                }
                kept.map_err(|_| {
                    self.means.counters.refused_records.one();
                    StoreError::Away(why)
                })
            }
            Err(error @ (StoreError::Full(_) | StoreError::TooLarge(_))) => {
                self.means.counters.refused_records.one();
                Err(error)
            }
        }
    }

    async fn ask_record(&self, session: &Uuid16) -> Result<Option<Arc<Versioned>>, StoreError> {
        if let Some(kept) = self.kept.get(session) {
            return Ok(Some(kept.record));
        }
        let (mark, key) = (self.means.knowledge.mark(session), self.names.session(session));
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&key).arg("etag").arg("value");
        let record = match self.routes.ask(&key, &cmd, Repeat::Harmless).await? {
            Value::Array(parts) if parts.iter().all(|part| *part == Value::Nil) => None,
            pair => Some(read_record(pair).ok_or_else(unreadable)?),
        };
        if let (None, Some(lost)) = (&record, self.means.knowledge.lost(session)) {
            return self.restore(session, lost).await;
        }
        self.means.knowledge.learn(session, record.clone(), mark);
        Ok(record)
    }

    /// Gives a server what an earlier one had and it has not: it came back empty, or took over without it.
    async fn restore(
        &self,
        session: &Uuid16,
        lost: Arc<Versioned>,
    ) -> Result<Option<Arc<Versioned>>, StoreError> {
        Ok(match self.swap(session, None, &lost).await? {
            Swap::Written => {
                self.means.counters.restored_writes.one();
                Some(lost)
            }
            Swap::Repeated => Some(lost),
            Swap::Lost(record) => record,
        })
    }

    async fn ask_grave(&self, day: u32, digest: [u8; 16]) -> Result<Grave, StoreError> {
        if self.means.knowledge.buried(day, &digest) == Buried::Yes {
            return Ok(Grave::Dug);
        }
        let (mark, key) = (self.means.knowledge.mark_grave(day, &digest), self.names.ended(day));
        let mut cmd = redis::cmd("SISMEMBER");
        cmd.arg(&key).arg(&digest[..]);
        let grave = match self.routes.ask(&key, &cmd, Repeat::Harmless).await? {
            Value::Int(1) => Grave::Dug,
            _ => Grave::None,
        };
        self.means.knowledge.learn_grave(day, &digest, grave, mark);
        Ok(grave)
    }

    /// Digs a grave; what was there before.
    pub(super) async fn dig(&self, day: u32, digest: &[u8; 16]) -> Result<Grave, StoreError> {
        let mark = self.means.knowledge.mark_grave(day, digest);
        let (channel, notice) = self.notice(Notice::Buried { day, digest: *digest });
        let most = self.limits.tombstones_max.to_string();
        // A day of issue, a session's life, and a day of grace for clocks that differ.
        let over_s = u64::from(day) * DAY_S + self.limits.session_lifetime_max.as_secs() + 2 * DAY_S;
        let over_s = over_s.to_string();
        let args = [&digest[..], most.as_bytes(), over_s.as_bytes(), channel.as_bytes(), &notice];
        let before = match self.routes.run(&scripts::BURY, &self.names.ended(day), &args).await? {
            Value::Int(1) => Grave::None,
            Value::Int(2) => Grave::Dug,
            _ => {
                self.means.counters.refused_tombstones.one();
                return Err(StoreError::Full("tombstones"));
            }
        };
        self.means.knowledge.learn_grave(day, digest, Grave::Dug, mark);
        Ok(before)
    }

    /// Whether a grave could be dug.
    async fn try_ground(&self, day: u32, digest: &[u8; 16]) -> Result<(), StoreError> {
        let most = self.limits.tombstones_max.to_string();
        let args = [&digest[..], most.as_bytes()];
        match self.routes.run(&scripts::MAY_BURY, &self.names.ended(day), &args).await? {
            Value::Int(1) => Ok(()),
            _ => Err(StoreError::Full("tombstones")),
        }
    }

    async fn remove(&self, session: Uuid16) -> Result<(), StoreError> {
        self.kept.forget(&session);
        let mark = self.means.knowledge.mark(&session);
        let (channel, notice) = self.notice(Notice::RecordChanged(session));
        let args = [channel.as_bytes(), &notice[..]];
        self.routes.run(&scripts::FORGET, &self.names.session(&session), &args).await?;
        self.remembered.forget(&session);
        self.means.knowledge.wrote(&session, None, mark);
        Ok(())
    }

    /// Tells the store that a record was used.
    pub(super) async fn refresh(&self, session: &Uuid16) -> Result<(), StoreError> {
        let key = self.names.session(session);
        let mut cmd = redis::cmd("PEXPIRE");
        cmd.arg(&key).arg(self.limits.record_ttl.as_millis() as u64);
        self.routes.ask(&key, &cmd, Repeat::Harmless).await.map(|_| ())
    }

    /// The channel and the bytes of a notice.
    pub(super) fn notice(&self, notice: Notice) -> (String, Vec<u8>) {
        (self.names.notices(), bulletin::write(&self.instance, notice))
    }
}

/// Etag and value.
fn read_record(value: Value) -> Option<Arc<Versioned>> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(etag), Value::BulkString(value)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    Some(Arc::new(Versioned { etag: Etag(etag.try_into().ok()?), value: Bytes::from(value) }))
}

pub(super) fn unreadable() -> StoreError {
    StoreError::Away("what stands there is not ours".to_owned())
}

impl Sessions for Redis {
    fn warm(&self, session: &Uuid16) -> Warm {
        match self.inner.kept.get(session) {
            Some(kept) => Warm::Some(kept.record),
            None => self.inner.means.knowledge.warm(session),
        }
    }

    fn last_known(&self, session: &Uuid16) -> Warm {
        match self.inner.kept.get(session) {
            Some(kept) => Warm::Some(kept.record),
            None => self.inner.means.knowledge.last_known(session),
        }
    }

    fn read(&self, session: &Uuid16) -> BoxFuture<'_, Result<Option<Arc<Versioned>>, StoreError>> {
        let session = *session;
        Box::pin(async move { self.inner.ask_record(&session).await })
    }

    fn meet(&self, session: &Uuid16, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<Met, StoreError>> {
        let session = *session;
        Box::pin(async move {
            let (record, grave) =
                tokio::join!(self.inner.ask_record(&session), self.inner.ask_grave(day, digest));
            Ok(Met { record: record?, grave: grave? })
        })
    }

    fn compare_and_set(
        &self,
        session: &Uuid16,
        expected: Option<Etag>,
        next: Versioned,
    ) -> BoxFuture<'_, Result<Cas, StoreError>> {
        let session = *session;
        Box::pin(async move { self.inner.write(session, expected, next).await })
    }

    fn touch(&self, session: &Uuid16) {
        if self.inner.means.knowledge.touch(session) {
            // With no room there are thousands before it; the next hour's use is told.
            let _ = self.touches.try_send(*session);
        }
    }

    fn forget(&self, session: &Uuid16) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.inner.remove(*session))
    }

    fn buried(&self, day: u32, digest: &[u8; 16]) -> Buried {
        self.inner.means.knowledge.buried(day, digest)
    }

    fn is_buried(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move { Ok(self.inner.ask_grave(day, digest).await? == Grave::Dug) })
    }

    fn may_bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.inner.try_ground(day, &digest).await })
    }

    fn bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.inner.dig(day, &digest).await?;
            self.inner.remembered.add(Write::Grave { day, digest }, Instant::now());
            Ok(())
        })
    }
}
