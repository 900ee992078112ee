//! One HTTP/1.1 connection to a replica, driven by whoever holds it: the waiting request, then the body, then nobody.
//!
//! hyper hands messages between its two halves through channels that wake their other side. Both sides are polled here,
//! in one task and in order, so the halves that are not the socket are polled with a waker that does nothing:
//! it saves the task a needless second turn, and is safe only because `poll` always runs first.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::Io;
use super::error::Written;
use super::pool::Slot;

/// Bytes of the head of an answer, and of what is read ahead of a slow reader.
const HEAD_MAX: usize = 64 << 10;

/// A connection that is open, or was until a moment ago.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it is over: hyper tells its other half so only when it is dropped.
    connection: Option<Connection<TokioIo<Io>, Full<Bytes>>>,
    slot: Slot,
}

/// Why an exchange gave no answer.
pub(super) enum Failed {
    /// Not a byte of it was written.
    Unsent(Box<Request<Full<Bytes>>>),
    /// It may have been.
    Sent(Written),
}

impl Link {
    /// HTTP/1.1 over `io`; nothing is sent yet. 100 header lines at most, which is hyper's own bound.
    ///
    /// # Errors
    /// None that hyper has today.
    pub(super) async fn open(io: Io, slot: Slot) -> hyper::Result<Box<Link>> {
        let mut builder = Builder::new();
        builder.max_header_size(HEAD_MAX).max_buf_size(HEAD_MAX);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        Ok(Box::new(Link { sender, connection: Some(connection), slot }))
    }

    /// Moves bytes; ready when the connection is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        if Pin::new(connection).poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Its error, if any, has gone to the request or the body that it concerns.
        self.connection = None;
        Poll::Ready(())
    }

    /// Whether the connection is idle and still open, as far as the reactor knows: sees an EOF and stray bytes.
    pub(super) fn is_idle(&mut self) -> bool {
        let mut quiet = Context::from_waker(Waker::noop());
        self.poll(&mut quiet).is_pending() && self.sender.is_ready()
    }

    /// Whether the last exchange left the connection fit for another one, without a look at the socket.
    pub(super) fn is_clean(&mut self) -> bool {
        (self.connection.is_some() && self.sender.is_ready()) || self.is_idle()
    }

    /// Closes the connection and keeps its place.
    pub(super) fn into_slot(self) -> Slot {
        self.slot
    }

    /// Sends `request` and waits for the head of its answer; 1xx heads are passed over by hyper. Dropped, it leaves a
    /// connection of which nothing is known, and which must be dropped too.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failed> {
        let sending = self.sender.try_send_request(request);
        // Unconstrained: a pending for want of tokio's budget would wake the waker that does nothing.
        let mut answer = pin!(tokio::task::unconstrained(sending));
        let answered = poll_fn(|cx| {
            let over = self.poll(cx).is_ready();
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answered) => Poll::Ready(Some(answered)),
                Poll::Pending if over => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        match answered.await {
            // We never ask for an upgrade.
            Some(Ok(answer)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Err(Failed::Sent(Written::Malformed))
            }
            Some(Ok(answer)) => Ok(answer),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(request) => Failed::Unsent(Box::new(request)),
                None => Failed::Sent(Written::from(&error.into_error())),
            }),
            None => Err(Failed::Sent(Written::Closed)),
        }
    }
}
