//! Streams of legacy calls: their events by number, from the task that runs the call to whoever reads them.
//!
//! A client that loses its connection does not lose its call (2025-11-25, *Resumability and Redelivery*): from then on, or as
//! soon as the client asks another node or this one leaves, all events go to the store, and any node reads them there
//! (`resume.rs`). Otherwise nothing goes to the store while the client is attached.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use regatta_store::{Course, SpilledEvent, Store, StoreError, StreamName};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answers::unknown_text;

/// Events that a stream keeps which nobody has read yet, or the store has not got.
const EVENTS_MAX: usize = 256;
/// What it keeps of those that were read, in case they were lost on the way to the client.
const READ_MAX: u64 = 256;
const READ_BYTES_MAX: usize = 256 << 10;
/// How long a stream that ended is kept, in case its end was lost on the way, and how many.
const ENDED_KEPT: Duration = Duration::from_secs(60);
const ENDED_MAX: usize = 256;
/// Attempts to write events to a store that is away, and the pause between two.
const SPILL_ATTEMPTS: usize = 10;
pub(crate) const SPILL_PAUSE: Duration = Duration::from_millis(500);
/// Streams that are written to the store at the same time when the node leaves.
const KEEP_AT_ONCE: usize = 16;

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
    /// The number that is read next.
    read: u64,
    /// Of the events that are here and were read.
    read_bytes: usize,
    is_read: bool,
    /// The number of the first event that the store has not got.
    stored: u64,
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
        let state = State {
            events: VecDeque::new(),
            first: 1,
            read: 1,
            read_bytes: 0,
            is_read: true,
            stored: 1,
            ended: None,
        };
        let stream =
            Arc::new(Stream { name, id, state: Mutex::new(state), more: Notify::new(), heed: Notify::new() });
        let mut live = self.live();
        // A bounded number of others ended since.
        let ended = live.values().filter(|stream| stream.state().ended.is_some()).count();
        if ended >= ENDED_MAX / 2 {
            live.retain(|_, stream| !stream.is_old());
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
            self.spill(&stream).await;
        }
    }

    /// Writes all streams to the store that may not have reached their clients to the end, for this node leaves.
    pub(crate) async fn keep_all(&self) {
        let all: Vec<_> = self.live().values().filter(|stream| !stream.is_old()).cloned().collect();
        let keeping = futures_util::stream::iter(all);
        keeping.for_each_concurrent(KEEP_AT_ONCE, async |stream| self.spill(&stream).await).await;
    }

    /// Writes all events to the store that it has not got. An ended stream is the store's from then on.
    pub(crate) async fn spill(&self, stream: &Stream) {
        let mut is_too_much = false;
        for _ in 0..SPILL_ATTEMPTS {
            let (mut events, next, is_over) = stream.rest();
            if is_too_much {
                let why = "the store cannot keep what this call said";
                let bytes = Bytes::from(unknown_text(&stream.id, why));
                events = vec![SpilledEvent { sequence: next - 1, bytes }];
            }
            let course = if is_over { Course::Ended } else { Course::Open };
            match self.store.spill(stream.name, events, course).await {
                Ok(()) => {
                    stream.stored(next);
                    if is_over {
                        self.forget(&stream.name);
                    }
                    return;
                }
                Err(StoreError::Away(_)) => tokio::time::sleep(SPILL_PAUSE).await,
                Err(why) => {
                    tracing::warn!(%why, "events of a call could not be kept for a client that went away");
                    if std::mem::replace(&mut is_too_much, true) {
                        // Nobody will get them: they need not be kept here.
                        return stream.stored(next);
                    }
                }
            }
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<StreamName, Arc<Stream>>> {
        // Nothing is left half done while it is held.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// Adds an event.
    pub(crate) fn push(&self, event: Bytes) {
        self.state().events.push_back(event);
        self.more.notify_one();
    }

    /// There will be no more.
    pub(crate) fn end(&self) {
        self.state().ended = Some(Instant::now());
        self.more.notify_one();
    }

    /// Whether an event may be added: not while a slow reader is far behind, or the store is.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        let taken = if state.is_read { state.read } else { state.stored };
        state.next().saturating_sub(taken) < EVENTS_MAX as u64
    }

    /// Whether its client reads it here.
    pub(crate) fn is_read(&self) -> bool {
        self.state().is_read
    }

    /// Whether everything was read.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state();
        state.ended.is_some() && state.read == state.next()
    }

    /// Whether it ended so long ago that its client has come back for it, or does not.
    fn is_old(&self) -> bool {
        self.state().ended.is_some_and(|at| at.elapsed() >= ENDED_KEPT)
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
        state.read_bytes += event.len();
        state.trim();
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

    /// What the store has not got, the number that follows it, and whether the stream is over.
    fn rest(&self) -> (Vec<SpilledEvent>, u64, bool) {
        let state = self.state();
        let numbered = (state.first..).zip(&state.events).filter(|(number, _)| *number >= state.stored);
        let events =
            numbered.map(|(sequence, bytes)| SpilledEvent { sequence, bytes: bytes.clone() }).collect();
        (events, state.next(), state.ended.is_some())
    }

    /// The store has everything before `next`.
    fn stored(&self, next: u64) {
        let mut state = self.state();
        state.stored = state.stored.max(next);
        state.trim();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the event that comes next.
    fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Drops what is needed no more: what the store has, once nobody reads here, and the oldest of what was read. Never what
    /// its client may not have got and the store has not either.
    fn trim(&mut self) {
        loop {
            let were_read = self.read - self.first;
            let too_many = were_read > READ_MAX || self.read_bytes > READ_BYTES_MAX;
            let is_old = were_read > 1 && too_many;
            let is_stored = !self.is_read && self.first < self.stored;
            if !is_old && !is_stored {
                return;
            }
            let Some(gone) = self.events.pop_front() else { return };
            if self.first < self.read {
                self.read_bytes -= gone.len();
            }
            self.first += 1;
            self.read = self.read.max(self.first);
        }
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
        stream.push(Bytes::from_static(b"that it had to leave"));
        for number in 1..=2 {
            assert_eq!(stream.read(), Read::Event(number, Bytes::from_static(b"event")));
        }
        assert!(stream.has_room());
        stream.end();
        for number in 3..=EVENTS_MAX as u64 + 1 {
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
        streams.spill(&stream).await;
        stream.push(Bytes::from_static(b"two"));
        stream.end();
        streams.spill(&stream).await;
        let held = streams.store.recall(stream.name, 2, 10).await.unwrap().unwrap();
        assert_eq!((held.course, held.events[0].bytes.clone()), (Course::Ended, Bytes::from_static(b"two")));
        assert!(streams.find(&stream.name).is_none());
    }

    async fn held(streams: &Streams, stream: &Stream) -> (Vec<u64>, Course) {
        let held = streams.store.recall(stream.name, 0, 1000).await.unwrap().unwrap();
        (held.events.iter().map(|event| event.sequence).collect(), held.course)
    }

    #[tokio::test]
    async fn a_reader_that_goes_while_it_is_behind_loses_nothing() {
        let (streams, stream) = stream();
        for _ in 0..EVENTS_MAX {
            stream.push(Bytes::from_static(b"event"));
        }
        for number in 1..=100 {
            assert!(matches!(stream.read(), Read::Event(at, _) if at == number));
            stream.push(Bytes::from_static(b"event"));
        }
        stream.let_go();
        // Before its task has noticed.
        stream.push(Bytes::from_static(b"one more"));
        assert!(!stream.has_room(), "the store has nothing of it yet");
        streams.spill(&stream).await;
        assert!(stream.has_room() && stream.state().events.is_empty());
        let all = EVENTS_MAX as u64 + 101;
        assert_eq!(held(&streams, &stream).await, ((1..=all).collect(), Course::Open));
    }

    #[tokio::test]
    async fn what_a_reader_has_not_got_yet_is_in_the_store_when_the_node_leaves_and_is_read_here_all_the_same()
     {
        let (streams, behind) = stream();
        let done = streams.open(StreamName { session: Uuid16([1; 16]), number: 3 }, Value::Null);
        for stream in [&behind, &done] {
            stream.push(Bytes::from_static(b"one"));
            stream.push(Bytes::from_static(b"two"));
            stream.end();
            assert!(matches!(stream.read(), Read::Event(1, _)));
        }
        assert!(matches!(done.read(), Read::Event(2, _)));
        streams.keep_all().await;
        for stream in [&behind, &done] {
            assert_eq!(held(&streams, stream).await, (vec![1, 2], Course::Ended));
        }
        assert!(matches!(behind.read(), Read::Event(2, _)));
        assert_eq!(behind.read(), Read::Over);
    }

    #[test]
    fn of_what_was_read_the_last_is_kept_and_never_all_that_is_large() {
        let (_, stream) = stream();
        for _ in 0..10 {
            stream.push(Bytes::from(vec![0; READ_BYTES_MAX / 2]));
            assert!(matches!(stream.read(), Read::Event(..)));
        }
        assert_eq!(stream.state().events.len(), 2);
        stream.push(Bytes::from(vec![0; READ_BYTES_MAX * 2]));
        assert!(matches!(stream.read(), Read::Event(..)));
        assert_eq!(stream.state().events.len(), 1);
    }
}
