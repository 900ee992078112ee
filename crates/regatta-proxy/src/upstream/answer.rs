//! An answer whose body owns its connection and its lease.
//!
//! At its end the connection goes back to the pool, if it is fit for another request; dropped before its end, it is closed
//! at once, which is how a modern server learns of a cancellation. What was seen is told to the replica's vitals.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use regatta_policy::Micros;
use regatta_policy::eject::Outcome;

use super::codec::{AnswerHead, BodyReader, Received};
use super::error::{Lost, Written};
use super::link::Link;
use super::replica::Lease;
use super::scratch::Scratch;
use crate::content;

/// How long the end of a body may take after the response that should have ended it; then the connection is closed.
const REST_WAIT_MAX: Duration = Duration::from_millis(200);
/// Frames that are passed over in one turn while waiting for that end.
const REST_FRAMES_MAX: usize = 16;

/// The head of an answer, and its body to come.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// What is kept of it.
    pub head: AnswerHead,
    /// The rest.
    pub body: UpstreamBody,
}

/// The body of an answer; its trailers are dropped, they are never merged (RFC 9110 6.5.1).
pub struct UpstreamBody {
    reader: BodyReader,
    /// What was read, and not yet asked for.
    ahead: Bytes,
    /// `None` once the connection is over or was given back.
    link: Option<Box<Link>>,
    /// `None` once the request is no longer in flight.
    lease: Option<Lease>,
    started: Micros,
    kind: Kind,
}

/// What the answer's end will prove.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A plain answer: a success and a latency.
    Whole,
    /// Events: a success with the first of them, and no latency.
    Stream,
    /// Nothing more: its status said all, or its stream has begun.
    Told,
}

impl UpstreamAnswer {
    pub(super) fn new(received: Received, link: Box<Link>, lease: Lease, started: Micros) -> Self {
        let Received { head, reader, ahead, .. } = received;
        let upstream = lease.upstream();
        let kind = match head.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                upstream.record(Outcome::Overloaded, None, upstream.common.now());
                Kind::Told
            }
            status if status.is_server_error() => {
                upstream.record(Outcome::Status5xx, None, upstream.common.now());
                Kind::Told
            }
            _ if head.kind == content::Kind::Events => Kind::Stream,
            _ => Kind::Whole,
        };
        let mut body = UpstreamBody { reader, ahead, link: Some(link), lease: Some(lease), started, kind };
        // Most answers come whole in one read: their connection is free before anybody looks at them.
        if body.reader.has_ended() {
            body.end();
        }
        UpstreamAnswer { head, body }
    }

    /// An answer in JSON that is all here and that no connection brought.
    pub fn held(text: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let head = AnswerHead { status: StatusCode::OK, kind: content::Kind::Json, session: None, headers };
        UpstreamAnswer { head, body: UpstreamBody::held(text) }
    }
}

impl UpstreamBody {
    /// A body that was read.
    pub fn held(text: Bytes) -> UpstreamBody {
        let (reader, started, kind) = (BodyReader::NONE, Micros(0), Kind::Told);
        UpstreamBody { reader, ahead: text, link: None, lease: None, started, kind }
    }

    /// Whether all of it came.
    pub fn is_whole(&self) -> bool {
        self.reader.has_ended()
    }

    /// All of it, if it came and was not asked for yet: most answers do, with their heads.
    pub fn take_whole(&mut self, max: usize) -> Option<Bytes> {
        let is_here = self.is_whole() && self.ahead.len() <= max;
        is_here.then(|| std::mem::take(&mut self.ahead))
    }

    /// The whole answer is here.
    fn end(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let upstream = lease.upstream();
        let now = upstream.common.now();
        match self.kind {
            Kind::Whole => upstream.record(Outcome::Success, Some(now.since(self.started)), now),
            Kind::Stream => upstream.record(Outcome::Success, None, now),
            Kind::Told => {}
        }
        if let Some(link) = self.link.take()
            && link.is_clean()
        {
            upstream.pool.keep(link, now);
        }
    }

    /// Nobody wants what is left, because the response was in what came: only the end of the body is missing. Reads it, so
    /// that the connection serves the next request; a server that takes its time is read in a task, for a moment.
    pub fn let_end(mut self) {
        if self.poll_rest(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(tokio::time::timeout(
                REST_WAIT_MAX,
                std::future::poll_fn(move |cx| self.poll_rest(cx)),
            ));
        }
    }

    /// Ready when the body has ended, or is longer than an end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..REST_FRAMES_MAX {
            match self.poll_chunk(cx) {
                Poll::Ready(Some(Ok(_unwanted))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// It broke off.
    fn lose(&mut self, why: Written) -> Lost {
        self.link = None;
        if let Some(lease) = self.lease.take() {
            let upstream = lease.upstream();
            upstream.record(Outcome::Reset, None, upstream.common.now());
        }
        Lost { why }
    }

    /// A frame of data came.
    fn flowed(&mut self) {
        if self.kind == Kind::Stream
            && let Some(lease) = &self.lease
        {
            let upstream = lease.upstream();
            upstream.record(Outcome::Success, None, upstream.common.now());
            self.kind = Kind::Told;
        }
    }
}

impl UpstreamBody {
    /// The next data; `None` at the end.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Lost>>> {
        loop {
            if !self.ahead.is_empty() {
                self.flowed();
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
            }
            if self.reader.is_malformed() {
                return Poll::Ready(Some(Err(self.lose(Written::Malformed))));
            }
            // Without a connection it has ended, or was lost.
            let Some(link) = &mut self.link else { return Poll::Ready(None) };
            let mut scratch = Scratch::lend();
            match ready!(link.poll_receive(cx, scratch.bytes())) {
                Ok([]) if self.reader.close() => link.spoil(),
                Ok([]) => return Poll::Ready(Some(Err(self.lose(Written::Closed)))),
                Ok(mut bytes) => {
                    self.ahead = self.reader.take(&mut bytes);
                    if !bytes.is_empty() {
                        link.spoil();
                    }
                }
                Err(error) => return Poll::Ready(Some(Err(self.lose(Written::from(&error))))),
            }
            if self.reader.has_ended() {
                self.end();
            }
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        self.get_mut().poll_chunk(cx).map(|chunk| chunk.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.reader.has_ended()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.len() as u64;
        self.reader.left().map_or_else(SizeHint::default, |left| SizeHint::with_exact(ahead + left))
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").field("reader", &self.reader).finish_non_exhaustive()
    }
}
