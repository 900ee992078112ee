//! What the store and other gateways need of a stream: a look into its ring, a ring at each event, and a beginning in the
//! middle.
//!
//! Nothing here is called while a client reads its stream where it is; the bell is only hung up by who listens to it.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Phase, Stream};
use crate::streams::ring::{Look, Ring, Sequence};

/// A look at what a stream holds, from some event on.
pub(crate) struct Peek {
    /// The first event that was looked for and is there, or the next to come.
    pub first: Sequence,
    pub events: Vec<(Sequence, Bytes)>,
    /// The number that the next event will have.
    pub next: Sequence,
    pub phase: Phase,
}

impl Stream {
    /// The same stream, begun at another gateway: its next event here is number `at`.
    pub fn going_on(mut self, at: Sequence) -> Stream {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        (state.ring, state.untaken, state.unspilled) = (Ring::going_on(at), at, at);
        self
    }

    /// Whether it only repeats what the store holds.
    pub fn is_relayed(&self) -> bool {
        self.lock().source.as_ref().is_some_and(|source| source.is_relay())
    }

    /// Whether event `at` was already, or is the next one.
    pub fn has_reached(&self, at: Sequence) -> bool {
        at <= self.lock().ring.next()
    }

    /// Rings with every event and rest from now on. One watcher at a time.
    pub fn watch(&self) -> Arc<Notify> {
        self.lock().watch.get_or_insert_with(Arc::default).clone()
    }

    /// Events from number `from` on, as many as fit, at least one if there is one. Reads nothing away.
    pub fn peek(&self, from: Sequence, events_max: usize, bytes_max: usize) -> Peek {
        let state = self.lock();
        let first = state.ring.nearest(from);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for at in first..state.ring.next() {
            let Look::Event(event) = state.ring.look(at) else { break };
            bytes += event.len();
            if !events.is_empty() && (events.len() >= events_max || bytes > bytes_max) {
                break;
            }
            events.push((at, event));
        }
        Peek { first, events, next: state.ring.next(), phase: state.phase.clone() }
    }

    /// The first event that the store was not given.
    pub fn unspilled(&self) -> Sequence {
        self.lock().unspilled
    }

    /// The store has everything before `next`.
    pub fn note_spilled(&self, next: Sequence) {
        let mut state = self.lock();
        state.unspilled = state.unspilled.max(next);
    }
}
