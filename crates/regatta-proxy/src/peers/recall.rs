//! The search for a stream that was cut at another gateway (SESSIONS 5), while its client waits on an open answer.
//!
//! In this order: what the gateway that has it writes for us, as long as its lease lives; what it wrote before it died;
//! the server's own cursor. What cannot be had is said once. Every event comes once, in order, under its old id.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Course, GatewayId, Recalled, StoreError, StreamName};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::letter::{Context, Letter, Told};
use super::post;
use crate::gateway::Gateway;
use crate::streams::ring::Sequence;

/// Events fetched at once; the store bounds their bytes.
const BATCH_MAX: usize = 64;
/// A letter may be lost, so the store is looked at without one as well.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How often a holder that said nothing yet is asked, and one that did.
const ASK_EVERY: Duration = Duration::from_secs(1);
const REMIND_EVERY: Duration = Duration::from_secs(5);
/// How long a holder that was seen alive is not asked after.
const LIVE_FOR: Duration = Duration::from_millis(500);
/// How long what is said to be written may take to be there.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// How long any gateway may take to say that it has the stream, once the one that had it is gone.
const ANYBODY_WITHIN: Duration = Duration::from_millis(300);

/// Searches under way, by stream. Bounded by the GETs that wait.
#[derive(Default)]
pub(crate) struct Searches {
    open: Mutex<HashMap<StreamName, Arc<Hints>>>,
}

/// What letters said of a stream.
struct Hints {
    /// Who gave the stream its name.
    owner: GatewayId,
    newest: Mutex<Option<(GatewayId, Told)>>,
    bell: Notify,
}

impl Searches {
    /// A letter about `stream` came.
    pub fn hint(&self, stream: StreamName, from: GatewayId, told: Told) {
        let Some(hints) = self.lock().get(&stream).cloned() else { return };
        let mut newest = hints.lock();
        // Everybody who does not have it says so; that is news from whoever was thought to have it only.
        let holder = newest.as_ref().map_or(hints.owner, |(holder, _)| *holder);
        if told != Told::Unknown || from == holder {
            *newest = Some((from, told));
        }
        drop(newest);
        hints.bell.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Hints>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hints {
    fn lock(&self) -> MutexGuard<'_, Option<(GatewayId, Told)>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a reader can do without events that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// It cannot: a call's events are one whole.
    Refused,
    /// It can: a standing stream has gaps by nature.
    Allowed,
}

/// What is looked for.
pub(crate) struct Wanted {
    pub stream: StreamName,
    pub context: Context,
    /// The gateway that gave the stream its name.
    pub owner: GatewayId,
    /// The first event that the client has not seen.
    pub at: Sequence,
    pub gaps: Gaps,
}

/// A search under way.
pub(crate) struct Search {
    gateway: Arc<Gateway>,
    wanted: Wanted,
    hints: Arc<Hints>,
    asked: Option<Instant>,
    /// Since when there is nobody of whom it is known that he has the stream.
    alone: Option<Instant>,
    /// Since when the store does not answer.
    away: Option<Instant>,
    seen_alive: Option<(GatewayId, Instant)>,
    /// When events came last, or the search began.
    fed: Instant,
    pause: Duration,
}

/// What a step of the search gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The next events; the first may be later than was asked for where gaps are allowed.
    Events { first: Sequence, events: Vec<Bytes> },
    /// There are no more: the last one was given.
    Ended,
    /// There will be no more here; the server may go on from its cursor.
    Gone { cursor: Option<Bytes> },
    /// Events are missing that the reader cannot do without.
    Lost,
}

enum Holder {
    /// It lives and writes, or may begin to.
    Has,
    /// Nobody has it.
    Nobody { cursor: Option<Bytes> },
    /// It was written whole.
    Done { next: Sequence },
}

impl Search {
    /// Begins to look.
    pub fn begin(gateway: &Arc<Gateway>, wanted: Wanted) -> Search {
        let (newest, bell) = Default::default();
        let hints = Arc::new(Hints { owner: wanted.owner, newest, bell });
        gateway.peers.searches.lock().insert(wanted.stream, hints.clone());
        let (asked, alone, away, seen_alive) = (None, None, None, None);
        let (fed, pause) = (Instant::now(), LOOK_FIRST);
        Search { gateway: gateway.clone(), wanted, hints, asked, alone, away, seen_alive, fed, pause }
    }

    /// The next step; cancel-safe between two calls only.
    pub async fn next(&mut self) -> Found {
        loop {
            self.ask().await;
            let holder = self.holder().await;
            match self.look(&holder).await {
                Some(found) => return found,
                None => self.wait().await,
            }
        }
    }

    /// Asks whoever has the stream to write it, now and then.
    async fn ask(&mut self) {
        let writes = matches!(*self.hints.lock(), Some((_, Told::Open { .. } | Told::Paused { .. })));
        let every = if writes { REMIND_EVERY } else { ASK_EVERY };
        if self.asked.is_some_and(|asked| asked.elapsed() < every) {
            return;
        }
        self.asked = Some(Instant::now());
        let Wanted { stream, at, context, .. } = self.wanted;
        // To everybody: a second cut leads away from the gateway that gave the stream its name.
        post(&self.gateway, GatewayId::EVERYBODY, &Letter::Spill { stream, at, context }).await;
    }

    async fn holder(&mut self) -> Holder {
        let newest = self.hints.lock().clone();
        let (who, told) = newest.unwrap_or((self.wanted.owner, Told::Open { next: 0 }));
        let cursor = match told {
            Told::Ended { next } => return Holder::Done { next },
            Told::Paused { next, cursor } if next <= self.wanted.at => {
                return Holder::Nobody { cursor: Some(cursor) };
            }
            Told::Unknown => None,
            Told::Open { .. } | Told::Paused { .. } if who == self.gateway.peers.id => None,
            // One that said that it wrote more may have died before we read it, or its store may have been wiped.
            Told::Open { .. } | Told::Paused { .. } if self.is_live(who).await => {
                self.alone = None;
                return Holder::Has;
            }
            Told::Open { .. } | Told::Paused { .. } => None,
        };
        let since = *self.alone.get_or_insert_with(Instant::now);
        match since.elapsed() < ANYBODY_WITHIN {
            true => Holder::Has,
            false => Holder::Nobody { cursor },
        }
    }

    /// Whether the holder lives, as far as anybody knows: of a store that is away nothing is known.
    async fn is_live(&mut self, holder: GatewayId) -> bool {
        if self.seen_alive.is_some_and(|(who, at)| who == holder && at.elapsed() < LIVE_FOR) {
            return true;
        }
        let lives = self.gateway.store.is_live(holder).await.unwrap_or(true);
        self.seen_alive = lives.then(|| (holder, Instant::now()));
        lives
    }

    /// Looks into the store. The holder was asked before: what it wrote until it died is there by now.
    async fn look(&mut self, holder: &Holder) -> Option<Found> {
        let recalled = self.gateway.store.recall(self.wanted.stream, self.wanted.at, BATCH_MAX).await;
        let recalled = match recalled {
            Ok(recalled) => {
                self.away = None;
                recalled
            }
            Err(StoreError::Away(_) | StoreError::Full(_) | StoreError::TooLarge(_)) => {
                let since = *self.away.get_or_insert_with(Instant::now);
                let is_over = since.elapsed() > self.gateway.limits().resume_window;
                return is_over.then_some(Found::Gone { cursor: None });
            }
        };
        if let Some(found) = recalled.and_then(|recalled| self.take(recalled)) {
            return Some(found);
        }
        match holder {
            Holder::Has => None,
            Holder::Done { next } if *next <= self.wanted.at => Some(Found::Ended),
            Holder::Done { .. } => (self.fed.elapsed() > WRITTEN_WITHIN).then_some(Found::Lost),
            Holder::Nobody { cursor } => Some(Found::Gone { cursor: cursor.clone() }),
        }
    }

    fn take(&mut self, recalled: Recalled) -> Option<Found> {
        let Recalled { events, first, next, course } = recalled;
        if first > self.wanted.at && self.wanted.gaps == Gaps::Refused {
            return Some(Found::Lost);
        }
        let Some(begin) = events.first().map(|event| event.sequence) else {
            return ending(course, next, self.wanted.at, self.wanted.gaps);
        };
        self.wanted.at = events.last().map_or(self.wanted.at, |event| event.sequence + 1);
        (self.fed, self.pause) = (Instant::now(), LOOK_FIRST);
        Some(Found::Events { first: begin, events: events.into_iter().map(|event| event.bytes).collect() })
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = self.hints.bell.notified() => {}
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LOOK_MAX),
        }
    }
}

/// What it means that the store holds nothing from `at` on, where it would have `next` to come.
fn ending(course: Course, next: Sequence, at: Sequence, gaps: Gaps) -> Option<Found> {
    match (course, next.cmp(&at), gaps) {
        (Course::Open, ..) | (Course::Ended, Ordering::Greater, _) => None,
        (Course::Ended, Ordering::Equal, _) | (Course::Ended, Ordering::Less, Gaps::Allowed) => {
            Some(Found::Ended)
        }
        // The reader has seen more than the store knows of: it lost the stream and was told of the end alone.
        (Course::Ended, Ordering::Less, Gaps::Refused) => Some(Found::Lost),
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        let mut open = self.gateway.peers.searches.lock();
        if open.get(&self.wanted.stream).is_some_and(|hints| Arc::ptr_eq(hints, &self.hints)) {
            open.remove(&self.wanted.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_what_the_reader_has_seen_is_a_loss_and_no_end() {
        let of_a_call = |course, next| ending(course, next, 5, Gaps::Refused);
        assert_eq!(of_a_call(Course::Ended, 5), Some(Found::Ended));
        assert_eq!(
            of_a_call(Course::Ended, 0),
            Some(Found::Lost),
            "the store was wiped, and told of the end"
        );
        assert_eq!(of_a_call(Course::Open, 5), None);
        assert_eq!(of_a_call(Course::Open, 0), None, "more may come");
        assert_eq!(ending(Course::Ended, 0, 5, Gaps::Allowed), Some(Found::Ended));
    }
}
