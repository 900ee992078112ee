//! The source of a stream that was cut at another gateway.
//!
//! First what the store holds of it, as it was written there; then, when nobody writes any more, the server itself: from
//! its own cursor for a call, anew for a standing stream. A call whose rest cannot be had ends in one honest error.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use regatta_mcp::era::Era;
use regatta_mcp::events;
use regatta_store::{GatewayId, StreamName};

use super::exchange::exchange;
use super::source::CallSource;
use super::standing::Listener;
use super::standing_source::StandingSource;
use crate::encode::fault::message;
use crate::event_id::{self, Cursor, Label};
use crate::fault::{Asker, Fault, Place};
use crate::peers;
use crate::peers::recall::{Found, Gaps, Search, Wanted};
use crate::streams::ring::Sequence;
use crate::streams::stream::{Produced, Source};

/// Where a stream was cut.
pub(crate) struct Cut {
    pub label: Label,
    /// The label as it stands in the ids of its events.
    pub sealed: String,
    /// The first event that the client has not seen.
    pub next: Sequence,
    /// The server's own event id before that one.
    pub cursor: Option<Cursor>,
}

/// A step of the search, which gives itself back.
type Step = Pin<Box<dyn Future<Output = (Search, Found)> + Send>>;

/// See the module.
pub(crate) struct RecalledSource {
    listener: Listener,
    cut: Cut,
    asker: Asker,
    /// The number of the event that comes next.
    next: Sequence,
    state: State,
    ready: VecDeque<Produced>,
}

/// Events of a standing stream that may be missing before what is left of it is given up.
const MISSING_MAX: u64 = 4096;

enum State {
    /// The store is read.
    Recalling(Step),
    /// The server goes on itself.
    GoingOn(Box<dyn Source>),
    Over,
}

impl RecalledSource {
    /// Begins to look for the rest of a stream.
    pub fn begin(listener: Listener, cut: Cut, asker: Asker) -> RecalledSource {
        let wanted = Wanted {
            stream: StreamName { session: listener.bound.session.uuid, number: cut.label.number },
            context: peers::context_of(&listener.caller),
            owner: GatewayId(cut.label.boot),
            at: cut.next,
            gaps: if cut.label.id.is_some() { Gaps::Refused } else { Gaps::Allowed },
        };
        let state = State::Recalling(step(Search::begin(&listener.gateway, wanted)));
        let (next, ready) = (cut.next, VecDeque::new());
        RecalledSource { listener, cut, asker, next, state, ready }
    }

    fn take(&mut self, search: Search, found: Found) {
        match found {
            Found::Events { first, events } => {
                let missing = first.saturating_sub(self.next);
                if missing > MISSING_MAX {
                    return self.go_on();
                }
                // Where gaps are allowed, something must stand for what is missing: events are found by their number.
                let gap = (0..missing).map(|_| Produced::Recorded { event: events::KEEP_ALIVE });
                self.ready.extend(gap);
                self.next = first + events.len() as u64;
                if let Some(cursor) = events.iter().rev().find_map(|event| self.cursor_of(event)) {
                    self.cut.cursor = Some(cursor);
                }
                self.ready.extend(events.into_iter().map(|event| Produced::Recorded { event }));
                self.state = State::Recalling(step(search));
            }
            Found::Ended => self.ended(),
            Found::Gone { cursor } => {
                let newer = cursor.and_then(|cursor| Cursor::from_bytes(&cursor));
                self.cut.cursor = newer.or(self.cut.cursor.take());
                self.go_on();
            }
            Found::Lost => self.lost(),
        }
    }

    /// The server's event id in the id of a recorded event.
    fn cursor_of(&self, event: &Bytes) -> Option<Cursor> {
        let line = event.split(|byte| *byte == b'\n').next()?.strip_prefix(b"id: ")?;
        let session = self.listener.bound.session.uuid;
        event_id::open(&self.listener.gateway.ring.load(), session, std::str::from_utf8(line).ok()?)?.cursor
    }

    fn ended(&mut self) {
        match self.cut.label.id {
            Some(_) => {
                self.state = State::Over;
                self.ready.push_back(Produced::End);
            }
            // The other gateway has let go of it; its server is asked for another one.
            None => self.go_on(),
        }
    }

    /// Nobody writes any more: what follows can only come from the server.
    fn go_on(&mut self) {
        match (&self.cut.label.id, self.cut.cursor.take()) {
            (None, cursor) => {
                let source = StandingSource::going_on(self.listener.clone(), cursor);
                self.state = State::GoingOn(Box::new(source));
            }
            (Some(id), Some(cursor)) => {
                // A call's maker may hold a later binding of the session.
                let there = self.listener.bound.at(&[cursor.maker], "").zip(cursor.asked());
                let Some((bound, cursor)) = there else { return self.lost() };
                let asker = Asker {
                    id: Some(id.clone()),
                    era: Some(Era::Legacy),
                    place: Place::Session,
                    batch: None,
                };
                let listener = Listener { bound, ..self.listener.clone() };
                let errand = listener.errand(Some(cursor), asker.clone());
                let source = CallSource::waiting(listener.gateway, asker, Box::pin(exchange(errand)));
                self.state = State::GoingOn(Box::new(source));
            }
            (Some(_), None) => self.lost(),
        }
    }

    /// The request's last word is that nobody knows (SESSIONS 5).
    fn lost(&mut self) {
        let gateway = &self.listener.gateway;
        gateway.metrics.streams_lost.inc();
        gateway.metrics.outcome_unknown.inc();
        let asker = Asker { id: self.cut.label.id.clone(), ..self.asker.clone() };
        let data = message(&Fault::StreamLost.told(&asker));
        self.ready.push_back(Produced::Event { name: Some(Bytes::from_static(b"message")), data });
        self.ready.push_back(Produced::End);
        self.state = State::Over;
    }
}

fn step(mut search: Search) -> Step {
    Box::pin(async move {
        let found = search.next().await;
        (search, found)
    })
}

impl Source for RecalledSource {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Produced> {
        loop {
            if let Some(produced) = self.ready.pop_front() {
                return Poll::Ready(produced);
            }
            match &mut self.state {
                State::Recalling(step) => {
                    let (search, found) = ready!(step.as_mut().poll(cx));
                    self.take(search, found);
                }
                State::GoingOn(source) => return source.poll_next(cx),
                State::Over => return Poll::Ready(Produced::End),
            }
        }
    }

    fn cancelled(&mut self) {
        match &mut self.state {
            State::GoingOn(source) => source.cancelled(),
            State::Recalling(_) | State::Over => {}
        }
    }

    fn session_changed(&mut self) {
        match &mut self.state {
            State::GoingOn(source) => source.session_changed(),
            State::Recalling(_) | State::Over => {}
        }
    }

    fn is_relay(&self) -> bool {
        match &self.state {
            State::Recalling(_) => true,
            State::GoingOn(_) | State::Over => false,
        }
    }
}
