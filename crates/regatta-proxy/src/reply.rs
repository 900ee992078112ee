//! The bodies of our answers.
//!
//! A body holds what its call still needs: the permit, the upstream connection, the stream. Whatever ends the
//! body (its end, a client that goes away, a closed connection) gives all of that back (STYLE 13).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::encode::relay::Relay;
use crate::listen::body::ListenBody;
use crate::slots::Permit;
use crate::streams::body::StreamBody;

/// The body of an answer to a client.
pub enum ReplyBody {
    /// Nothing.
    #[doc(hidden)]
    Empty,
    /// Bytes that are all here.
    #[doc(hidden)]
    Whole(Whole),
    /// A legacy stream.
    #[doc(hidden)]
    Stream(Box<Streamed>),
    /// An upstream body on its way through (modern, or too large to hold).
    #[doc(hidden)]
    Relay(Box<Relayed>),
    /// Merged subscriptions.
    #[doc(hidden)]
    Listen(Box<Listened>),
}

/// Bytes and the place they were made in.
pub struct Whole {
    bytes: Option<Bytes>,
    _permit: Option<Permit>,
}

/// See [`StreamBody`].
pub struct Streamed(StreamBody);
/// See [`Relay`].
pub struct Relayed(Option<Relay>);
/// See [`ListenBody`].
pub struct Listened(ListenBody);

/// The answer cannot be finished honestly, so its connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct Cut(pub &'static str);

impl ReplyBody {
    /// Bytes of our own.
    pub(crate) fn whole(bytes: Bytes) -> ReplyBody {
        ReplyBody::Whole(Whole { bytes: Some(bytes), _permit: None })
    }

    /// Bytes that keep their place until they are written.
    pub(crate) fn held(bytes: Bytes, permit: Permit) -> ReplyBody {
        ReplyBody::Whole(Whole { bytes: Some(bytes), _permit: Some(permit) })
    }

    pub(crate) fn stream(body: StreamBody) -> ReplyBody {
        ReplyBody::Stream(Box::new(Streamed(body)))
    }

    pub(crate) fn relay(body: Relay) -> ReplyBody {
        ReplyBody::Relay(Box::new(Relayed(Some(body))))
    }

    pub(crate) fn listen(body: ListenBody) -> ReplyBody {
        ReplyBody::Listen(Box::new(Listened(body)))
    }
}

impl Drop for Relayed {
    /// An answer that others wait for is read to its end, though its own client has gone (bounded by `detached_max`).
    fn drop(&mut self) {
        let Some(mut relay) = self.0.take_if(|relay| relay.is_awaited()) else { return };
        let (gateway, account) = relay.caller();
        gateway.detach(account, async move {
            while let Some(Ok(_)) = std::future::poll_fn(|cx| relay.poll_chunk(cx)).await {}
        });
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            ReplyBody::Empty => Poll::Ready(None),
            ReplyBody::Whole(whole) => Poll::Ready(whole.bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ReplyBody::Stream(body) => {
                body.0.poll_chunk(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
            }
            ReplyBody::Relay(body) => match &mut body.0 {
                Some(relay) => relay.poll_chunk(cx).map(|chunk| chunk.map(|bytes| bytes.map(Frame::data))),
                None => Poll::Ready(None),
            },
            ReplyBody::Listen(body) => {
                body.0.poll_chunk(cx).map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Empty => true,
            ReplyBody::Whole(whole) => whole.bytes.is_none(),
            ReplyBody::Stream(_) | ReplyBody::Relay(_) | ReplyBody::Listen(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Empty => SizeHint::with_exact(0),
            ReplyBody::Whole(whole) => {
                SizeHint::with_exact(whole.bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            ReplyBody::Stream(_) | ReplyBody::Relay(_) | ReplyBody::Listen(_) => SizeHint::default(),
        }
    }
}
