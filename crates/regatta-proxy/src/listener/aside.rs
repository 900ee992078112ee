//! Which answers hyper writes, and which the connection writes itself (`pour.rs`).
//!
//! hyper keeps buffers for a connection as long as an answer lasts, and a stream lasts for days. So an answer whose
//! length nobody knows is looked at first: if all of it is there, hyper gets it whole; if it is still to come, it is put
//! aside here, hyper is left, and its buffers go. Bodies are polled, never judged: the listener knows no MCP.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, Response, Version, header};
use http_body::{Body, Frame, SizeHint};

/// Bytes of a body that are gathered to find out whether it is all there.
const GATHERED_MAX: usize = 32 << 10;

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next request may come.
    Keep,
    /// It is closed.
    Close,
}

/// A streamed answer that hyper does not get.
pub(super) struct Begun<B> {
    pub head: Parts,
    /// What was there of the body.
    pub first: Vec<Bytes>,
    pub body: B,
    pub rest: Rest,
    pub after: After,
}

/// What is to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing: it has ended.
    Nothing,
    /// More, later.
    More,
    /// Nothing that could be sent: it broke off.
    Cut,
}

/// The body of an answer that hyper writes.
pub(super) enum Given<B> {
    /// As the handler made it.
    Through(B),
    /// All bytes of a stream that had ended, and what it held.
    Whole(Bytes, B),
}

/// Where the service of one connection puts an answer aside.
pub(super) struct Aside<B> {
    answer: Mutex<Option<Begun<B>>>,
    mark: Arc<Mark>,
}

/// Whether an answer was put aside, and hyper has written out since what it had. From then on it holds nothing that
/// would be lost with it: it writes nothing more before its service answers.
#[derive(Default)]
pub(super) struct Mark(AtomicU8);

const NOTHING: u8 = 0;
const ASIDE: u8 = 1;
const WRITTEN_OUT: u8 = 2;

impl Mark {
    /// The connection has written out everything that it was given.
    pub(super) fn written_out(&self) {
        if self.0.load(Ordering::Relaxed) == ASIDE {
            self.0.store(WRITTEN_OUT, Ordering::Relaxed);
        }
    }
}

impl<B> Aside<B> {
    pub(super) fn new(mark: Arc<Mark>) -> Aside<B> {
        Aside { answer: Mutex::new(None), mark }
    }

    /// The answer, once hyper can be left.
    pub(super) fn take(&self) -> Option<Begun<B>> {
        if self.mark.0.load(Ordering::Relaxed) != WRITTEN_OUT {
            return None;
        }
        self.mark.0.store(NOTHING, Ordering::Relaxed);
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, begun: Begun<B>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        self.mark.0.store(ASIDE, Ordering::Relaxed);
    }
}

/// What a request says of the answer's framing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    version: Version,
    after: After,
}

impl Framing {
    pub(super) fn of<T>(request: &http::Request<T>) -> Framing {
        let after = if says_close(request.headers()) { After::Close } else { After::Keep };
        Framing { version: request.version(), after }
    }
}

/// Gives `response` to hyper, or puts it aside and never returns.
pub(super) async fn sort<B: Body<Data = Bytes> + Unpin>(
    response: Response<B>,
    framing: Framing,
    aside: &Aside<B>,
) -> Result<Response<Given<B>>, Infallible> {
    // Without chunks (HTTP/1.0) only the end of the connection can end a stream, and hyper does that.
    if response.body().size_hint().exact().is_some() || framing.version != Version::HTTP_11 {
        return Ok(response.map(Given::Through));
    }
    let (head, mut body) = response.into_parts();
    let mut first = Vec::new();
    let rest = std::future::poll_fn(|cx| Poll::Ready(gather(&mut body, &mut first, cx))).await;
    if rest == Rest::Nothing {
        return Ok(Response::from_parts(head, Given::Whole(join(first), body)));
    }
    aside.put(Begun { head, first, body, rest, after: framing.after });
    std::future::pending().await
}

/// Takes what is there of a body.
fn gather<B: Body<Data = Bytes> + Unpin>(body: &mut B, first: &mut Vec<Bytes>, cx: &mut Context<'_>) -> Rest {
    let mut bytes = 0;
    while bytes < GATHERED_MAX {
        match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Pending => return Rest::More,
            Poll::Ready(None) => return Rest::Nothing,
            Poll::Ready(Some(Err(_))) => return Rest::Cut,
            Poll::Ready(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                bytes += data.len();
                first.push(data);
            }
        }
    }
    Rest::More
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() == 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("close"))
}

impl<B: Body<Data = Bytes> + Unpin> Body for Given<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.get_mut() {
            Given::Through(body) => Pin::new(body).poll_frame(cx),
            Given::Whole(bytes, _) if bytes.is_empty() => Poll::Ready(None),
            Given::Whole(bytes, _) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Given::Through(body) => body.is_end_stream(),
            Given::Whole(bytes, _) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Given::Through(body) => body.size_hint(),
            Given::Whole(bytes, _) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
