//! What must be done when the store is back: records kept here are published, writes that a failover lost are written
//! again. And what can wait: uses of records.
//!
//! One task, one operation after the other: a store that just came back is not run over.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::Inner;
use super::dice::{jittered, random};
use super::kept::{Kept, Settled};
use super::remembered::Write;
use super::sessions::Swap;
use crate::{Etag, Grave, Notice, StoreError, Uuid16, Versioned};

/// Attempts to publish a record that others change at the same time.
const PUBLISH_TRIES: usize = 8;
/// Failures in a row after which the rest waits for the next time.
const FAILURES_MAX: usize = 16;

/// Cares for the store until it is dropped.
pub(super) async fn care(inner: Arc<Inner>, mut touches: mpsc::Receiver<Uuid16>) {
    let mut changes = inner.means.changes.subscribe();
    loop {
        tokio::select! {
            // That another server answers is known already: it was noted before it could be asked.
            _ = changes.changed() => restore(&inner).await,
            touched = touches.recv() => match touched {
                // It is tried again with the next use, an hour later; the record lives for a day.
                Some(session) => { let _ = inner.refresh(&session).await; }
                None => return,
            },
            () = sleep(jittered(inner.means.timing.retry_max)) => {
                if inner.kept.len() > 0 && inner.routes.any_up() {
                    publish_all(&inner).await;
                }
            }
        }
    }
}

async fn publish_all(inner: &Inner) {
    let mut failures = 0;
    for session in inner.kept.sessions() {
        // In a cluster one member may be away and the others not.
        failures = if publish_one(inner, &session).await { 0 } else { failures + 1 };
        if failures >= FAILURES_MAX {
            return;
        }
    }
}

/// Whether a record is in the store and not only here.
async fn publish_one(inner: &Inner, session: &Uuid16) -> bool {
    for _ in 0..PUBLISH_TRIES {
        match publish(inner, session).await {
            Ok(Settled::Gone) => return true,
            Ok(Settled::Changed) => {}
            Err(why) => {
                tracing::debug!(%why, "a record cannot be published yet");
                return false;
            }
        }
    }
    false
}

/// One step towards a record that is in the store and not only here.
async fn publish(inner: &Inner, session: &Uuid16) -> Result<Settled, StoreError> {
    let Some(Kept { base, record }) = inner.kept.get(session) else { return Ok(Settled::Gone) };
    match inner.swap(session, base, &record).await? {
        Swap::Written | Swap::Repeated => {
            inner.means.counters.published_records.one();
            inner.refusal.clear();
            Ok(inner.kept.published(session, record.etag))
        }
        // It went meanwhile: wiped, or past its time.
        Swap::Lost(None) => {
            Ok(inner.kept.merged(session, record.etag, Kept { base: None, record: record.clone() }))
        }
        Swap::Lost(Some(theirs)) => {
            let value = (inner.merge)(&record.value, &theirs.value);
            let merged = Arc::new(Versioned { etag: Etag(random()), value });
            inner.means.counters.merged_records.one();
            let settled =
                inner.kept.merged(session, record.etag, Kept { base: Some(theirs.etag), record: merged });
            // Ours is not what it was, here either.
            inner.mailboxes.tell(Notice::RecordChanged(*session));
            Ok(settled)
        }
    }
}

/// Writes again what was acknowledged a moment ago by a server that is not there any more.
async fn restore(inner: &Inner) {
    let (writes, let_go) = inner.remembered.all(Instant::now());
    inner.means.counters.lost_writes.more(let_go);
    let (mut restored, mut lost) = (0_u64, let_go);
    for write in writes {
        match restore_one(inner, &write).await {
            Ok(Restored::Again) => restored += 1,
            Ok(Restored::WasThere) => {}
            // It stays remembered; the next change tries again.
            Err(_) => lost += 1,
        }
    }
    inner.means.counters.restored_writes.more(restored);
    if restored + lost > 0 {
        tracing::warn!(restored, lost, "redis lost acknowledged writes in a failover or a restart");
    }
}

enum Restored {
    Again,
    WasThere,
}

async fn restore_one(inner: &Inner, write: &Write) -> Result<Restored, StoreError> {
    match write {
        Write::Grave { day, digest } => match inner.dig(*day, digest).await? {
            Grave::None => Ok(Restored::Again),
            Grave::Dug => Ok(Restored::WasThere),
        },
        Write::Record { session, base, record } => {
            let swap = match inner.swap(session, *base, record).await? {
                // Not even what it was made from is there.
                Swap::Lost(None) if base.is_some() => inner.swap(session, None, record).await?,
                swap => swap,
            };
            Ok(match swap {
                Swap::Written => Restored::Again,
                // Somebody else's, after ours or instead of it: there is a record, and a session goes on with it.
                Swap::Repeated | Swap::Lost(_) => Restored::WasThere,
            })
        }
    }
}
