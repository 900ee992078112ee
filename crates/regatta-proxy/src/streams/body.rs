//! What a legacy client reads: a stream from some event on, kept open by comments.
//!
//! Dropping it never ends the call (2025-11-25 basic/transports, *Sending Messages* 6: disconnection SHOULD NOT
//! be taken as cancellation): the stream is handed to a task of its own, within `detached_max`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use regatta_mcp::era::Era;
use regatta_mcp::events;

use super::pace::{Due, Pace, Pacemaker};
use super::ring::Sequence;
use super::stream::{Read, Stream, Turned};
use crate::callers::StreamPlace;
use crate::encode::fault::message;
use crate::fault::{Asker, Fault, Place};
use crate::gateway::Gateway;

/// One reader of one stream.
pub(crate) struct StreamBody {
    gateway: Arc<Gateway>,
    stream: Arc<Stream>,
    reader: u64,
    at: Sequence,
    priming: Option<Bytes>,
    pacemaker: Option<Pacemaker>,
    /// The reader's place among the open streams of its caller, given back with the body.
    _place: Option<StreamPlace>,
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
        StreamBody { gateway, stream, reader, at, priming, pacemaker: None, _place: place }
    }

    /// The next bytes for the client; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(priming) = self.priming.take() {
            return Poll::Ready(Some(priming));
        }
        let (read, turned) = self.stream.poll_read(self.reader, self.at, cx);
        self.gateway.note_turn(&self.stream, turned);
        match read {
            Read::Event(event) => {
                self.at += 1;
                if let Some(pacemaker) = &mut self.pacemaker {
                    pacemaker.sent();
                }
                Poll::Ready(Some(event))
            }
            // Better a cut that the client can see than a gap that it cannot.
            Read::Lost | Read::Over => Poll::Ready(None),
            Read::NotYet => self.poll_keep_alive(cx),
        }
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
            detach(self.gateway.clone(), self.stream.clone(), self.reader);
        }
    }
}

/// Drives `stream` after `reader` left it, until another reader takes over; if the bounds allow no more, ends it.
fn detach(gateway: Arc<Gateway>, stream: Arc<Stream>, reader: u64) {
    let Some(place) = gateway.callers.detach(stream.caller.account, &gateway.limits()) else {
        gateway.metrics.detached_refused.inc();
        // A client that comes back for the rest learns that there is none.
        let words = stream.last_words(&cut_off);
        let turned = stream.end(words.as_ref());
        gateway.note_turn(&stream, turned);
        return;
    };
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
    let asker = Asker { id: Some(id.clone()), era: Some(Era::Legacy), place: Place::Session };
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
