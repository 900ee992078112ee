//! An answer whose body owns its connection and its lease.
//!
//! At its end the connection goes back to the pool, if it is fit for another request; dropped before its end, it is closed
//! at once, which is how a modern server learns of a cancellation. What was seen is told to the replica's vitals.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use regatta_policy::Micros;
use regatta_policy::eject::Outcome;

use super::error::{Lost, Written};
use super::link::Link;
use super::replica::Lease;

/// How long the end of a body may take after the response that should have ended it; then the connection is closed.
const REST_WAIT_MAX: Duration = Duration::from_millis(200);
/// Frames that are passed over in one turn while waiting for that end.
const REST_FRAMES_MAX: usize = 16;

/// The head of an answer, and its body to come.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// Status and headers as they came, hop-by-hop ones included.
    pub head: response::Parts,
    /// The rest.
    pub body: UpstreamBody,
}

/// The body of an answer; its trailers are dropped, they are never merged (RFC 9110 6.5.1).
pub struct UpstreamBody {
    incoming: Flow,
    /// `None` once the connection is over or was given back.
    link: Option<Box<Link>>,
    /// `None` once the request is no longer in flight.
    lease: Option<Lease>,
    started: Micros,
    kind: Kind,
}

/// Where the bytes come from.
enum Flow {
    /// From a replica.
    Wire(Incoming),
    /// From here: an answer that was kept.
    Held(Option<Bytes>),
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
    pub(super) fn new(answer: Response<Incoming>, link: Box<Link>, lease: Lease, started: Micros) -> Self {
        let (head, incoming) = answer.into_parts();
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
            _ if is_event_stream(&head) => Kind::Stream,
            _ => Kind::Whole,
        };
        let incoming = Flow::Wire(incoming);
        let mut body = UpstreamBody { incoming, link: Some(link), lease: Some(lease), started, kind };
        if body.incoming.is_end_stream() {
            body.end();
        }
        UpstreamAnswer { head, body }
    }

    /// An answer in JSON that is all here and that no connection brought.
    pub fn held(text: Bytes) -> Self {
        let (mut head, ()) = Response::new(()).into_parts();
        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let incoming = Flow::Held(Some(text));
        let body = UpstreamBody { incoming, link: None, lease: None, started: Micros(0), kind: Kind::Told };
        UpstreamAnswer { head, body }
    }
}

impl Flow {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Flow::Wire(incoming) => Pin::new(incoming).poll_frame(cx),
            Flow::Held(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Flow::Wire(incoming) => incoming.is_end_stream(),
            Flow::Held(text) => text.is_none(),
        }
    }
}

impl UpstreamBody {
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
        if let Some(mut link) = self.link.take()
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
            match Pin::new(&mut *self).poll_frame(cx) {
                Poll::Ready(Some(Ok(_unwanted))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// It broke off.
    fn lose(&mut self, error: &hyper::Error) -> Lost {
        self.link = None;
        if let Some(lease) = self.lease.take() {
            let upstream = lease.upstream();
            upstream.record(Outcome::Reset, None, upstream.common.now());
        }
        Lost { why: Written::from(error) }
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

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let this = self.get_mut();
        if let Some(link) = &mut this.link
            && link.poll(cx).is_ready()
        {
            this.link = None;
        }
        // The connection was polled with the real waker just now; see `link` for why this one does nothing.
        let mut quiet = Context::from_waker(Waker::noop());
        loop {
            match this.incoming.poll_frame(&mut quiet) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    this.end();
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(this.lose(&error)))),
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    this.flowed();
                    if this.incoming.is_end_stream() {
                        this.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Ok(_trailers))) => {}
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Flow::Wire(incoming) => incoming.size_hint(),
            Flow::Held(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
        }
    }
}

impl std::fmt::Debug for UpstreamBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamBody").finish_non_exhaustive()
    }
}

fn is_event_stream(head: &response::Parts) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let Some(kind) = head.headers.get(header::CONTENT_TYPE) else { return false };
    kind.as_bytes().get(..EVENT_STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}
