//! What a legacy client reads: a stream from some event on, kept open by comments.
//!
//! Dropping it never ends the call (2025-11-25 basic/transports, *Sending Messages* 6: disconnection SHOULD NOT
//! be taken as cancellation): the stream is handed to a task of its own, within `detached_max`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use regatta_mcp::era::Era;
use regatta_mcp::events;

use super::pace::{Due, Pace, Pacemaker};
use super::ring::Sequence;
use super::stream::{Carries, Read, Stream, Turned};
use crate::callers::StreamPlace;
use crate::encode::fault::message;
use crate::fault::{Asker, Fault, Place};
use crate::gateway::Gateway;
use crate::peers;
use crate::peers::catch_up::{self, Missing};
use crate::peers::spill::Cause;

/// One reader of one stream.
pub(crate) struct StreamBody {
    gateway: Arc<Gateway>,
    stream: Arc<Stream>,
    reader: u64,
    at: Sequence,
    priming: Option<Bytes>,
    pacemaker: Option<Pacemaker>,
    behind: Behind,
    /// The reader's place among the open streams of its caller, given back with the body.
    _place: Option<StreamPlace>,
}

/// Where a reader is that asks for more than the ring holds.
enum Behind {
    /// It reads from the ring.
    No,
    /// The store is asked.
    Asking(Missing),
    /// The store gave these.
    Fed(VecDeque<Bytes>),
    /// They are lost, and the reader was told.
    Lost,
}

/// From where, and how, a client reads.
pub(crate) struct Reading {
    /// As given by [`Stream::attach`], or 1 for the first reader.
    pub reader: u64,
    /// First event to send.
    pub at: Sequence,
    /// Sent before anything else.
    pub priming: Option<Bytes>,
    /// Held as long as the body.
    pub place: Option<StreamPlace>,
}

impl StreamBody {
    /// A body that reads `stream` as told.
    pub fn new(gateway: Arc<Gateway>, stream: Arc<Stream>, reading: Reading) -> StreamBody {
        let Reading { reader, at, priming, place } = reading;
        StreamBody {
            gateway,
            stream,
            reader,
            at,
            priming,
            pacemaker: None,
            behind: Behind::No,
            _place: place,
        }
    }

    /// The next bytes for the client; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(priming) = self.priming.take() {
            return Poll::Ready(Some(priming));
        }
        match &mut self.behind {
            Behind::No => self.poll_ring(cx),
            Behind::Asking(missing) => {
                match missing.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll(cx) {
                    Poll::Ready(Some(events)) => {
                        self.behind = Behind::Fed(events);
                        self.poll_chunk(cx)
                    }
                    Poll::Ready(None) => Poll::Ready(self.lost()),
                    Poll::Pending => self.poll_keep_alive(cx),
                }
            }
            Behind::Fed(events) => match events.pop_front() {
                Some(event) => Poll::Ready(Some(self.sent(event))),
                None => {
                    self.behind = Behind::No;
                    self.poll_ring(cx)
                }
            },
            Behind::Lost => Poll::Ready(None),
        }
    }

    fn poll_ring(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let (read, turned) = self.stream.poll_read(self.reader, self.at, cx);
        self.gateway.note_turn(&self.stream, turned);
        match read {
            Read::Event(event) => Poll::Ready(Some(self.sent(event))),
            Read::Lost if catch_up::is_possible(&self.gateway, &self.stream, self.at) => {
                let missing = catch_up::fetch(self.gateway.clone(), self.stream.clone(), self.at);
                self.behind = Behind::Asking(missing);
                self.poll_chunk(cx)
            }
            // Better a cut that the client can see than a gap that it cannot.
            Read::Lost | Read::Over => Poll::Ready(None),
            Read::NotYet => self.poll_keep_alive(cx),
        }
    }

    fn sent(&mut self, event: Bytes) -> Bytes {
        self.at += 1;
        if let Some(pacemaker) = &mut self.pacemaker {
            pacemaker.sent();
        }
        event
    }

    /// The request's last word to this reader is that nobody knows (SESSIONS 5).
    fn lost(&mut self) -> Option<Bytes> {
        self.behind = Behind::Lost;
        let Carries::Call { id } = &self.stream.carries else { return None };
        let metrics = &self.gateway.metrics;
        metrics.streams_lost.inc();
        metrics.outcome_unknown.inc();
        let asker =
            Asker { id: Some(id.clone()), era: Some(Era::Legacy), place: Place::Session, batch: None };
        Some(events::message(&message(&Fault::StreamLost.told(&asker))))
    }

    fn poll_keep_alive(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let gateway = &self.gateway;
        let pacemaker = self.pacemaker.get_or_insert_with(|| {
            let keep_alive = Some(gateway.limits().keep_alive);
            Pacemaker::start(Pace { silence_max: None, whole_max: None, keep_alive })
        });
        match pacemaker.poll_due(cx) {
            Poll::Ready(Due::KeepAlive) => Poll::Ready(Some(events::KEEP_ALIVE)),
            Poll::Ready(Due::Silence | Due::End) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.stream.leave(self.reader) {
            if self.stream.is_relayed() {
                return peers::spill::drop_relay(&self.gateway, &self.stream);
            }
            detach(self.gateway.clone(), self.stream.clone(), self.reader);
        }
    }
}

/// Drives `stream` after `reader` left it, until another reader takes over; if the bounds allow no more, ends it.
pub(crate) fn detach(gateway: Arc<Gateway>, stream: Arc<Stream>, reader: u64) {
    let Some(place) = gateway.callers.detach(stream.caller.account, &gateway.limits()) else {
        gateway.metrics.detached_refused.inc();
        // A client that comes back for the rest learns that there is none.
        let words = stream.last_words(&cut_off);
        let turned = stream.end(words.as_ref());
        gateway.note_turn(&stream, turned);
        return;
    };
    peers::spill::begin(&gateway, &stream, stream.unspilled(), Cause::Detached);
    // Standing streams wait for their reader to come back; calls run to their own end.
    let wait = if stream.is_standing() { gateway.limits().resume_window } else { gateway.detached_wait() };
    gateway.metrics.detached.inc();
    tokio::spawn(async move {
        let _place = place;
        let drive = std::future::poll_fn(|cx: &mut Context<'_>| stream.poll_drive(reader, cx));
        let turned = match tokio::time::timeout(wait, drive).await {
            Ok(turned) => turned,
            Err(_) if stream.is_driven_after(reader) => stream.end(None),
            Err(_) => Turned::No,
        };
        gateway.note_turn(&stream, turned);
        gateway.metrics.detached.dec();
    });
}

fn cut_off(id: &Bytes) -> Bytes {
    let asker = Asker { id: Some(id.clone()), era: Some(Era::Legacy), place: Place::Session, batch: None };
    message(
        &Fault::OutcomeUnknown { why: "its client left, and too many calls run without one" }.told(&asker),
    )
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}
