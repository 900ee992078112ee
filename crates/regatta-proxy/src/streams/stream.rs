//! One legacy stream: what was said on it, who drives it, who reads it.
//!
//! A stream outlives its connection (DESIGN 3). While a client reads, the client's body drives the source, so
//! an undisturbed stream costs no task and pushes back on the server; when the body is dropped a task of its
//! own drives on, until a resume takes over. Every event is numbered and kept in the ring; a resume reads from there.

mod elsewhere;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, Bytes, BytesMut};
use regatta_store::Uuid16;
use tokio::sync::Notify;

use super::ring::{Look, Ring, Sequence};
use crate::handover::Caller;
pub(crate) use elsewhere::Peek;

/// Where the events of a stream come from.
pub(crate) trait Source: Send {
    /// The next thing that happens. After `Pause` or `End` it is not polled again.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Produced>;

    /// The client takes its request back: nobody is asked any more.
    fn cancelled(&mut self) {}

    /// The session may live elsewhere now, or be over.
    fn session_changed(&mut self) {}

    /// Whether it only repeats what the store holds: then nothing is lost with it.
    fn is_relay(&self) -> bool {
        false
    }
}

/// What a source produces.
#[derive(Debug)]
pub(crate) enum Produced {
    /// A message for the client.
    Event {
        /// SSE event name, if the server gave one.
        name: Option<Bytes>,
        /// One JSON-RPC message.
        data: Bytes,
    },
    /// The server's wish for reconnects.
    Retry { milliseconds: u64 },
    /// The server ended the connection but not the request: it goes on from this cursor (2025-11-25
    /// basic/transports, *Resumability and Redelivery*).
    Pause { cursor: Bytes },
    /// An event as another gateway wrote it, id and all.
    Recorded { event: Bytes },
    /// From here on the server can be asked to go on from this cursor, sealed: it rides in the ids of what follows.
    Mark { cursor: String },
    /// The server gave an id to resume from and said nothing: so do we, under an id that holds its cursor.
    Priming,
    /// Nothing will follow.
    End,
}

/// What a stream carries.
#[derive(Debug)]
pub(crate) enum Carries {
    /// The answer to a request, and what the server says meanwhile.
    Call {
        /// Raw JSON text of the request's id.
        id: Bytes,
    },
    /// Whatever the server says by itself.
    Standing,
}

/// A stream of one session.
pub(crate) struct Stream {
    /// Its number; random, so that it means nothing in another gateway.
    pub number: u64,
    /// Its session.
    pub session: Uuid16,
    /// Who opened it: nobody else resumes it (RELIABILITY T7).
    pub caller: Caller,
    /// What it carries.
    pub carries: Carries,
    /// Sealed part of its event ids; `.` and the sequence number follow.
    pub label: String,
    ring_bytes_max: usize,
    state: Mutex<State>,
}

struct State {
    ring: Ring,
    phase: Phase,
    source: Option<Box<dyn Source>>,
    driver: Driver,
    /// Rises with every reader; an older reader ends.
    reader: u64,
    /// Whether that reader is still there.
    read: bool,
    /// The first event that no reader has taken.
    untaken: Sequence,
    /// Of the reader.
    waker: Option<Waker>,
    /// Of the driving task: its source does not wake it when the stream is ended or taken over.
    task_waker: Option<Waker>,
    /// Rises each time the stream comes to rest, paused or ended.
    rests: u64,
    /// The first event that the store was not given.
    unspilled: Sequence,
    /// The server's newest cursor, sealed.
    mark: Option<String>,
    /// Rings with every event and rest, for whoever writes them down elsewhere.
    watch: Option<Arc<Notify>>,
}

/// How far a stream is.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// More may come.
    Live,
    /// The server closed the connection and wants to be asked again.
    Paused { cursor: Bytes },
    /// Nothing more comes.
    Ended,
}

/// Who polls the source: one at a time, because a source wakes only who polled it last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Reader,
    /// The task that follows this reader.
    Task(u64),
}

/// A reader's turn at a stream.
#[derive(Debug)]
pub(crate) enum Read {
    /// The next event, ready for the wire.
    Event(Bytes),
    /// The events that should follow were displaced.
    Lost,
    /// Nothing follows on this connection.
    Over,
    /// Nothing yet; the reader will be woken.
    NotYet,
}

/// A change that the gateway must note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turned {
    /// The stream just came to rest, paused or ended, for the `rest`th time and with this many bytes in its ring.
    Rests { rest: u64, bytes: usize },
    /// It did not.
    No,
}

impl Stream {
    /// A live stream fed by `source`, driven by its first reader (number 1).
    pub fn new(
        number: u64,
        session: Uuid16,
        caller: Caller,
        carries: Carries,
        label: String,
        ring_bytes_max: usize,
        source: Box<dyn Source>,
    ) -> Stream {
        let state = State {
            ring: Ring::new(),
            phase: Phase::Live,
            source: Some(source),
            driver: Driver::Reader,
            reader: 1,
            read: true,
            untaken: 1,
            waker: None,
            task_waker: None,
            rests: 0,
            unspilled: 0,
            mark: None,
            watch: None,
        };
        Stream { number, session, caller, carries, label, ring_bytes_max, state: Mutex::new(state) }
    }

    /// Whether this is a session's standing stream.
    pub fn is_standing(&self) -> bool {
        matches!(self.carries, Carries::Standing)
    }

    /// The id of event `sequence`; 0 is the priming event.
    pub fn event_id(&self, sequence: Sequence) -> String {
        format!("{}.{sequence}", self.label)
    }

    /// Whether it carries the answer to the request with this raw id.
    pub fn carries_request(&self, id: &[u8]) -> bool {
        match &self.carries {
            Carries::Call { id: own } => &own[..] == id,
            Carries::Standing => false,
        }
    }

    /// Its client takes the request back.
    pub fn cancelled(&self) {
        let mut state = self.lock();
        if let Some(source) = &mut state.source {
            source.cancelled();
        }
        state.wake_all();
    }

    /// Its session may live elsewhere now, or be over.
    pub fn session_changed(&self) {
        let mut state = self.lock();
        if let Some(source) = &mut state.source {
            source.session_changed();
        }
        state.wake_all();
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    /// Whether a connection reads it now.
    pub fn is_read(&self) -> bool {
        self.lock().read
    }

    /// How often it came to rest, if it rests now.
    pub fn rest(&self) -> Option<u64> {
        let state = self.lock();
        match state.phase {
            Phase::Live => None,
            Phase::Paused { .. } | Phase::Ended => Some(state.rests),
        }
    }

    /// Makes the caller the reader and the driver; any other reader ends at its next turn, and so does a driving task.
    /// Gives the reader's number and the first event that no reader has taken.
    pub fn attach(&self) -> (u64, Sequence) {
        let mut state = self.lock();
        state.reader += 1;
        state.read = true;
        state.driver = Driver::Reader;
        state.wake_all();
        (state.reader, state.ring.nearest(state.untaken))
    }

    /// Whether event `at` can still be read, now or as the next one.
    pub fn can_serve(&self, at: Sequence) -> bool {
        let state = self.lock();
        at <= state.ring.next() && state.ring.look(at) != Look::Lost
    }

    /// The event to go on with for who wants `at`: itself, the first that is still there, or the next to come.
    pub fn nearest(&self, at: Sequence) -> Sequence {
        self.lock().ring.nearest(at)
    }

    /// Gives a paused stream a new source; false if it is not paused.
    pub fn feed(&self, source: Box<dyn Source>) -> bool {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Paused { .. }) {
            return false;
        }
        state.phase = Phase::Live;
        state.source = Some(source);
        state.driver = Driver::Reader;
        true
    }

    /// The turn of `reader`, who has seen everything before `at`.
    pub fn poll_read(&self, reader: u64, at: Sequence, cx: &mut Context<'_>) -> (Read, Turned) {
        let mut state = self.lock();
        if state.reader != reader {
            return (Read::Over, Turned::No);
        }
        let mut turned = Turned::No;
        loop {
            match state.ring.look(at) {
                Look::Event(event) => {
                    state.untaken = state.untaken.max(at + 1);
                    return (Read::Event(event), turned);
                }
                Look::Lost => return (Read::Lost, turned),
                Look::NotYet if !matches!(state.phase, Phase::Live) => return (Read::Over, turned),
                Look::NotYet => {}
            }
            match self.advance(&mut state, cx) {
                Poll::Ready(now) => turned = now,
                Poll::Pending => {
                    match &mut state.waker {
                        Some(waker) => waker.clone_from(cx.waker()),
                        none => *none = Some(cx.waker().clone()),
                    }
                    return (Read::NotYet, turned);
                }
            }
        }
    }

    /// The turn of the driving task that follows `reader`: runs the source as far as it goes. Ready when there is
    /// nothing to drive, or somebody else drives.
    pub fn poll_drive(&self, reader: u64, cx: &mut Context<'_>) -> Poll<Turned> {
        let mut state = self.lock();
        loop {
            if state.driver != Driver::Task(reader) || !matches!(state.phase, Phase::Live) {
                return Poll::Ready(Turned::No);
            }
            match self.advance(&mut state, cx) {
                Poll::Pending => {
                    state.task_waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Turned::No) => {}
                Poll::Ready(turned) => return Poll::Ready(turned),
            }
        }
    }

    /// `reader` leaves; true if the stream now needs a task that follows it.
    pub fn leave(&self, reader: u64) -> bool {
        let mut state = self.lock();
        if state.reader != reader {
            return false;
        }
        state.read = false;
        let orphaned = state.driver == Driver::Reader && matches!(state.phase, Phase::Live);
        if orphaned {
            state.driver = Driver::Task(reader);
        }
        orphaned
    }

    /// Whether the task that follows `reader` still drives: then nobody reads.
    pub fn is_driven_after(&self, reader: u64) -> bool {
        self.lock().driver == Driver::Task(reader)
    }

    /// Tells the client how long to wait before it comes back.
    pub fn retry(&self, milliseconds: u64) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Live) {
            self.push_retry(&mut state, milliseconds);
            state.wake_all();
        }
    }

    /// The last message of a call that still runs, made from its id.
    pub fn last_words(&self, words: &dyn Fn(&Bytes) -> Bytes) -> Option<Bytes> {
        match (&self.carries, &self.lock().phase) {
            (Carries::Call { id }, Phase::Live) => Some(words(id)),
            (Carries::Call { .. } | Carries::Standing, _) => None,
        }
    }

    /// Ends the stream now, with a last message if there is one; its source is dropped.
    pub fn end(&self, last: Option<&Bytes>) -> Turned {
        let (source, turned) = {
            let mut state = self.lock();
            if matches!(state.phase, Phase::Ended) {
                return Turned::No;
            }
            if let Some(data) = last {
                self.push(&mut state, None, data);
            }
            let turned = state.come_to_rest(Phase::Ended);
            state.wake_all();
            (state.source.take(), turned)
        };
        // Outside the lock: dropping a source closes connections and frees places.
        drop(source);
        turned
    }

    fn advance(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<Turned> {
        let produced = match state.source.as_mut() {
            Some(source) => std::task::ready!(source.poll_next(cx)),
            None => Produced::End,
        };
        match produced {
            Produced::Event { name, data } => self.push(state, name.as_ref(), &data),
            Produced::Retry { milliseconds } => self.push_retry(state, milliseconds),
            Produced::Recorded { event } => {
                state.ring.push(event, self.ring_bytes_max);
                state.ring_watch();
            }
            Produced::Mark { cursor } => state.mark = Some(cursor),
            Produced::Priming => self.push_priming(state),
            Produced::Pause { cursor } => {
                state.source = None;
                return Poll::Ready(state.come_to_rest(Phase::Paused { cursor }));
            }
            Produced::End => {
                state.source = None;
                return Poll::Ready(state.come_to_rest(Phase::Ended));
            }
        }
        Poll::Ready(Turned::No)
    }

    fn push(&self, state: &mut State, name: Option<&Bytes>, data: &Bytes) {
        let sequence = state.ring.next();
        let marked = state.mark.as_ref().map_or(0, |mark| mark.len() + 1);
        let room = self.label.len() + marked + name.map_or(0, Bytes::len) + data.len() + 64;
        let State { ring, mark, .. } = state;
        ring.write(room, self.ring_bytes_max, |out| {
            out.put_slice(b"id: ");
            out.put_slice(self.label.as_bytes());
            out.put_slice(b".");
            write_number(out, sequence);
            if let Some(mark) = mark {
                out.put_slice(b".");
                out.put_slice(mark.as_bytes());
            }
            out.put_slice(b"\n");
            regatta_mcp::events::append(out, name.map(|name| &name[..]), data);
        });
        state.ring_watch();
    }

    fn next_id(&self, state: &State) -> String {
        let mut id = self.event_id(state.ring.next());
        if let Some(mark) = &state.mark {
            id.push('.');
            id.push_str(mark);
        }
        id
    }

    /// An event without data sets the reader's cursor and is not handed to the application (WHATWG SSE 9.2.6).
    fn push_retry(&self, state: &mut State, milliseconds: u64) {
        let mut out = BytesMut::with_capacity(self.label.len() + 64);
        out.put_slice(format!("id: {}\nretry: {milliseconds}\ndata: \n\n", self.next_id(state)).as_bytes());
        state.ring.push(out.freeze(), self.ring_bytes_max);
        state.ring_watch();
    }

    /// The same without a wish.
    fn push_priming(&self, state: &mut State) {
        let id = self.next_id(state);
        let mut out = BytesMut::with_capacity(id.len() + 16);
        regatta_mcp::events::write_priming(&mut out, &id);
        state.ring.push(out.freeze(), self.ring_bytes_max);
        state.ring_watch();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In decimal; without the machinery of formatting, because every event has one.
fn write_number(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

impl State {
    fn come_to_rest(&mut self, phase: Phase) -> Turned {
        self.phase = phase;
        self.rests += 1;
        self.ring_watch();
        Turned::Rests { rest: self.rests, bytes: self.ring.bytes() }
    }

    fn ring_watch(&self) {
        if let Some(watch) = &self.watch {
            watch.notify_one();
        }
    }

    fn wake_all(&mut self) {
        for waker in [self.waker.take(), self.task_waker.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
