//! Answers of the node itself, and what a request's answer holds on to until its last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::drain::come_back_ms;

/// How long a client waits before it comes back, in milliseconds.
const RETRY_MS: u32 = 1000;

/// An answer's body.
pub(crate) type AnswerBody = BoxBody<Bytes, std::convert::Infallible>;
/// An answer.
pub(crate) type Answer = Response<AnswerBody>;

/// How far a request got, where the answer itself does not tell; in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reached {
    /// It was refused before its handler.
    Nothing,
    /// Its handler, which ended without an answer.
    NoAnswer,
}

/// This answer, to a request that got so far.
pub(crate) fn reached(reached: Reached, mut answer: Answer) -> Answer {
    answer.extensions_mut().insert(reached);
    answer
}

/// A text with a status.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()).boxed());
    *answer.status_mut() = status;
    answer
}

/// A JSON text with a status.
pub(crate) fn json(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = plain(status, text);
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}

/// A JSON-RPC error; `id` is null where it is not known.
pub(crate) fn fault(status: StatusCode, id: &serde_json::Value, code: i32, why: &str) -> Answer {
    let error = serde_json::json!({"code": code, "message": why});
    json(status, serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string())
}

/// A message that another node must take, because this one leaves; nothing was run.
pub(crate) fn draining(id: &serde_json::Value) -> Answer {
    let why = "this node is leaving: another one takes it";
    not_run(StatusCode::SERVICE_UNAVAILABLE, id, regatta_mcp::codes::DRAINING, why)
}

/// What was refused before anything was run, in the words of the gateway (docs/errors.md): it may be sent again.
pub(crate) fn not_run(status: StatusCode, id: &serde_json::Value, code: i32, why: &str) -> Answer {
    let error = serde_json::json!({"code": code, "message": why, "data": {"executed": "no"}});
    let mut answer =
        json(status, serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    answer
}

/// The same as the text of a message.
pub(crate) fn not_run_text(id: &serde_json::Value, code: i32, why: &str) -> String {
    let error = serde_json::json!({"code": code, "message": why, "data": {"executed": "no"}});
    serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

/// What is told of a call that may have been run, in the words of the gateway (docs/errors.md).
pub(crate) fn unknown(id: &serde_json::Value, why: &str) -> Answer {
    json(StatusCode::OK, unknown_text(id, why))
}

/// The same as the text of a message.
pub(crate) fn unknown_text(id: &serde_json::Value, why: &str) -> String {
    let code = regatta_mcp::codes::OUTCOME_UNKNOWN;
    let message = format!("{why}: whether the call was executed is unknown");
    let error = serde_json::json!({"code": code, "message": message, "data": {"executed": "unknown"}});
    serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

/// One event of a stream.
pub(crate) fn event(message: &str) -> Bytes {
    Bytes::from(format!("data: {message}\n\n"))
}

/// One event with an id.
pub(crate) fn event_with_id(id: &str, message: &[u8]) -> Bytes {
    let mut event = Vec::with_capacity(id.len() + message.len() + 16);
    event.extend_from_slice(b"id: ");
    event.extend_from_slice(id.as_bytes());
    event.extend_from_slice(b"\ndata: ");
    event.extend_from_slice(message);
    event.extend_from_slice(b"\n\n");
    Bytes::from(event)
}

/// An id before there is any message, so that a client can come back at once (2025-11-25, *Sending Messages to the Server*).
pub(crate) fn primer(id: &str) -> Bytes {
    Bytes::from(format!("id: {id}\nretry: {RETRY_MS}\ndata:\n\n"))
}

/// What a stream ends with whose client is to come back.
pub(crate) fn come_back() -> Bytes {
    Bytes::from(format!("retry: {}\n\n", come_back_ms()))
}

/// An answer of events.
pub(crate) fn events(frames: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    let frames = frames.map(|frame| Ok::<_, std::convert::Infallible>(Frame::data(frame)));
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(Box::pin(frames))));
    let kind = HeaderValue::from_static("text/event-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

/// Marks an answer whose body is no request's any more: it holds no place, and its time is bounded elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apart;

/// Ends a body early.
type Early = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A body that holds its place, and that may end early.
pub(crate) struct Held {
    inner: Option<AnswerBody>,
    early: Option<Early>,
    _place: Arc<dyn std::any::Any + Send + Sync>,
}

impl Held {
    pub(crate) fn new(inner: AnswerBody, place: Arc<dyn std::any::Any + Send + Sync>) -> Held {
        Held { inner: Some(inner), early: None, _place: place }
    }

    /// Ends when `early` does, without a word.
    pub(crate) fn until(mut self, early: impl Future<Output = ()> + Send + Sync + 'static) -> Held {
        self.early = Some(Box::pin(early));
        self
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(context) {
            Poll::Ready(None) => {
                self.inner = None;
                return Poll::Ready(None);
            }
            Poll::Ready(frame) => return Poll::Ready(frame),
            Poll::Pending => {}
        }
        if let Some(early) = &mut self.early
            && early.as_mut().poll(context).is_ready()
        {
            (self.inner, self.early) = (None, None);
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
