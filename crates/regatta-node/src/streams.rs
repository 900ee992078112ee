//! Streams of legacy calls: their events by number, from the task that runs the call to whoever reads them.
//!
//! A client that loses its connection does not lose its call (2025-11-25, *Resumability and Redelivery*): from then on, or as
//! soon as the client asks another node, all events go to the store, and any node reads them there (`resume.rs`). Nothing
//! goes to the store while the client is attached.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Course, SpilledEvent, Store, StoreError, StreamName};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answers::unknown_text;

/// What a stream keeps: read, in case it must be read again, and not read yet.
const EVENTS_MAX: usize = 256;
const BYTES_MAX: usize = 256 << 10;
/// How long a stream that ended is kept, in case its end was lost on the way, and how many.
const ENDED_KEPT: Duration = Duration::from_secs(60);
const ENDED_MAX: usize = 256;
/// Attempts to write events to a store that is away, and the pause between two.
const SPILL_ATTEMPTS: usize = 10;
const SPILL_PAUSE: Duration = Duration::from_millis(500);

/// All streams of this node.
pub(crate) struct Streams {
    pub(crate) store: Arc<dyn Store>,
    live: Mutex<HashMap<StreamName, Arc<Stream>>>,
}

/// One of them.
pub(crate) struct Stream {
    pub(crate) name: StreamName,
    /// The id of its request.
    id: Value,
    state: Mutex<State>,
    /// For who reads: there is more.
    more: Notify,
    /// For who writes: there is room, or nobody reads any more.
    heed: Notify,
}

struct State {
    events: VecDeque<Bytes>,
    /// The number of the first event that is still here.
    first: u64,
    bytes: usize,
    /// The number that is read next.
    read: u64,
    is_read: bool,
    ended: Option<Instant>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    Event(u64, Bytes),
    Wait,
    Over,
}

impl Streams {
    pub(crate) fn new(store: Arc<dyn Store>) -> Streams {
        Streams { store, live: Mutex::default() }
    }

    /// A new stream; its events are numbered from 1.
    pub(crate) fn open(&self, name: StreamName, id: Value) -> Arc<Stream> {
        let state =
            State { events: VecDeque::new(), first: 1, bytes: 0, read: 1, is_read: true, ended: None };
        let stream =
            Arc::new(Stream { name, id, state: Mutex::new(state), more: Notify::new(), heed: Notify::new() });
        let mut live = self.live();
        // A bounded number of others ended since.
        let ended = live.values().filter(|stream| stream.state().ended.is_some()).count();
        if ended >= ENDED_MAX / 2 {
            live.retain(|_, stream| stream.state().ended.is_none_or(|at| at.elapsed() < ENDED_KEPT));
        }
        if ended >= ENDED_MAX {
            live.retain(|_, stream| stream.state().ended.is_none());
        }
        live.insert(name, stream.clone());
        stream
    }

    pub(crate) fn find(&self, name: &StreamName) -> Option<Arc<Stream>> {
        self.live().get(name).cloned()
    }

    fn forget(&self, name: &StreamName) {
        self.live().remove(name);
    }

    /// Writes a stream to the store for a client that reads it elsewhere. If its call still runs, the call's task does.
    pub(crate) async fn hand_over(&self, name: &StreamName) {
        let Some(stream) = self.find(name) else { return };
        stream.let_go();
        if stream.state().ended.is_some() {
            self.spill(&stream, 0).await;
        }
    }

    /// Writes all events from number `from` on to the store; the number that follows them. An ended stream is the store's
    /// from then on.
    pub(crate) async fn spill(&self, stream: &Stream, from: u64) -> u64 {
        let mut is_too_much = false;
        for _ in 0..SPILL_ATTEMPTS {
            let (mut events, next, is_over) = stream.rest(from);
            if is_too_much {
                let why = "the store cannot keep what this call said";
                let bytes = Bytes::from(unknown_text(&stream.id, why));
                events = vec![SpilledEvent { sequence: next - 1, bytes }];
            }
            let course = if is_over { Course::Ended } else { Course::Open };
            match self.store.spill(stream.name, events, course).await {
                Ok(()) => {
                    if is_over {
                        self.forget(&stream.name);
                    }
                    return next;
                }
                Err(StoreError::Away(_)) => tokio::time::sleep(SPILL_PAUSE).await,
                Err(why) => {
                    tracing::warn!(%why, "events of a call could not be kept for a client that went away");
                    if std::mem::replace(&mut is_too_much, true) {
                        return next;
                    }
                }
            }
        }
        from
    }

    fn live(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream>>> {
        // Nothing is left half done while it is held.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Adds an event.
    pub(crate) fn push(&self, event: Bytes) {
        let mut state = self.state();
        state.bytes += event.len();
        state.events.push_back(event);
        // What was read goes first; what was not is waited for in `has_room`, or the store has it.
        while (state.events.len() > EVENTS_MAX || state.bytes > BYTES_MAX)
            && (state.first < state.read || !state.is_read)
        {
            let Some(gone) = state.events.pop_front() else { break };
            (state.first, state.bytes) = (state.first + 1, state.bytes - gone.len());
        }
        drop(state);
        self.more.notify_one();
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        self.state().ended = Some(Instant::now());
        self.more.notify_one();
    }

    /// Whether an event may be added: not while a slow reader is far behind.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        let waiting =
            usize::try_from(state.first + state.events.len() as u64 - state.read).unwrap_or(usize::MAX);
        !state.is_read || waiting < EVENTS_MAX
    }

    /// Whether its client reads it here.
    pub(crate) fn is_read(&self) -> bool {
        self.state().is_read
    }

    /// Whether everything was read.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        state.ended.is_some() && state.read == state.first + state.events.len() as u64
    }

    /// Returns when there may be room, or nobody reads any more.
    pub(crate) async fn heeded(&self) {
        self.heed.notified().await;
    }

    /// The next event for its reader.
    pub(crate) fn read(&self) -> Read {
        let mut state = self.state();
        if !state.is_read {
            return Read::Over;
        }
        let (number, at) = (state.read, usize::try_from(state.read - state.first).unwrap_or(usize::MAX));
        let Some(event) = state.events.get(at).cloned() else {
            return if state.ended.is_some() { Read::Over } else { Read::Wait };
        };
        state.read += 1;
        drop(state);
        self.heed.notify_one();
        Read::Event(number, event)
    }

    /// Returns when there may be more.
    pub(crate) async fn has_more(&self) {
        self.more.notified().await;
    }

    /// Its reader is gone, or is to go.
    pub(crate) fn let_go(&self) {
        self.state().is_read = false;
        self.more.notify_one();
        self.heed.notify_one();
    }

    fn rest(&self, from: u64) -> (Vec<SpilledEvent>, u64, bool) {
        let state = self.state();
        let numbered = (state.first..).zip(&state.events).filter(|(number, _)| *number >= from);
        let events =
            numbered.map(|(sequence, bytes)| SpilledEvent { sequence, bytes: bytes.clone() }).collect();
        (events, state.first + state.events.len() as u64, state.ended.is_some())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use regatta_store::{Bounds, Uuid16, embedded};

    use super::*;

    fn stream() -> (Streams, Arc<Stream>) {
        let streams = Streams::new(Arc::new(embedded::open(None, Bounds::default()).unwrap()));
        let stream = streams.open(StreamName { session: Uuid16([1; 16]), number: 2 }, Value::Null);
        (streams, stream)
    }

    #[tokio::test]
    async fn what_was_not_read_is_never_dropped_and_a_slow_reader_is_waited_for() {
        let (_, stream) = stream();
        while stream.has_room() {
            stream.push(Bytes::from_static(b"event"));
        }
        assert_eq!(stream.state().events.len(), EVENTS_MAX);
        assert_eq!(stream.read(), Read::Event(1, Bytes::from_static(b"event")));
        assert!(stream.has_room());
        stream.end();
        for number in 2..=EVENTS_MAX as u64 {
            assert!(matches!(stream.read(), Read::Event(at, _) if at == number));
        }
        assert_eq!(stream.read(), Read::Over);
        assert!(stream.is_finished());
    }

    #[tokio::test]
    async fn a_stream_whose_reader_is_gone_is_in_the_store_and_ends_there() {
        let (streams, stream) = stream();
        stream.push(Bytes::from_static(b"one"));
        assert!(matches!(stream.read(), Read::Event(1, _)));
        stream.let_go();
        assert_eq!(stream.read(), Read::Over);
        let next = streams.spill(&stream, 0).await;
        stream.push(Bytes::from_static(b"two"));
        stream.end();
        streams.spill(&stream, next).await;
        let held = streams.store.recall(stream.name, 2, 10).await.unwrap().unwrap();
        assert_eq!((held.course, held.events[0].bytes.clone()), (Course::Ended, Bytes::from_static(b"two")));
        assert!(streams.find(&stream.name).is_none());
    }
}
