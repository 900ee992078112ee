//! One HTTP/1.1 connection to a replica, driven by whoever holds it: the waiting request, then the body, then nobody.
//!
//! It moves bytes and knows whether it can carry another exchange; what the bytes mean is the codec's business. It holds
//! no buffer of its own but for a request that its peer takes slowly.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, ReadBuf};

use super::codec::{HeadReader, Lasts, Outgoing, Received};
use super::connect::Io;
use super::error::Written;
use super::pool::Slot;
use super::scratch::Scratch;

/// A connection that is open, or was until a moment ago.
pub(super) struct Link {
    io: Io,
    /// What is left of a request whose answer came early: it goes on out while the answer is read.
    unsent: Option<Box<Outgoing>>,
    lasts: Lasts,
    slot: Slot,
}

/// Why an exchange gave no answer.
pub(super) enum Failed {
    /// Not a byte of it was written.
    Unsent(Outgoing),
    /// It may have been.
    Sent(Written),
}

/// How far a request is.
enum Sending {
    Under(Outgoing),
    Over,
    /// The connection takes no more of it.
    Broken,
}

impl Link {
    /// HTTP/1.1 over `io`; nothing is sent yet.
    pub(super) fn new(io: Io, slot: Slot) -> Box<Link> {
        Box::new(Link { io, unsent: None, lasts: Lasts::ForMore, slot })
    }

    /// Whether the idle connection is still open, as far as the reactor knows: sees an EOF and stray bytes.
    pub(super) fn is_idle(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.io {
            Io::Plain(stream) => {
                matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Io::Tls(stream) => {
                let mut into = ReadBuf::new(&mut byte);
                let reading = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut into));
                // Unconstrained: a pending for want of tokio's budget would pass for an open connection.
                let reading = pin!(tokio::task::unconstrained(reading));
                reading.poll(&mut Context::from_waker(Waker::noop())).is_pending()
            }
        }
    }

    /// Whether the last exchange left the connection fit for another one, without a look at the socket.
    pub(super) fn is_clean(&self) -> bool {
        self.lasts == Lasts::ForMore && self.unsent.is_none()
    }

    /// Something came that nobody asked for: nothing after it can be trusted.
    pub(super) fn spoil(&mut self) {
        self.lasts = Lasts::UntilEnd;
    }

    /// Closes the connection and keeps its place.
    pub(super) fn into_slot(self) -> Slot {
        self.slot
    }

    /// Sends `request` and waits for the head of its answer. Dropped, it leaves a connection of which nothing is known, and
    /// which must be dropped too.
    pub(super) async fn exchange(&mut self, request: Outgoing) -> Result<Received, Failed> {
        let mut reader = HeadReader::default();
        let mut sending = Sending::Under(request);
        let received = poll_fn(|cx| self.poll_exchange(cx, &mut sending, &mut reader)).await?;
        self.lasts = match sending {
            Sending::Over => received.lasts,
            Sending::Broken => Lasts::UntilEnd,
            // An early answer, of a server that may still read, or may have given up: nobody knows what it would take the
            // next request for.
            Sending::Under(rest) => {
                self.unsent = Some(Box::new(rest));
                Lasts::UntilEnd
            }
        };
        Ok(received)
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        reader: &mut HeadReader,
    ) -> Poll<Result<Received, Failed>> {
        if let Err(unsent) = self.send(cx, sending) {
            return Poll::Ready(Err(Failed::Unsent(unsent)));
        }
        let mut scratch = Scratch::lend();
        loop {
            let bytes = match ready!(self.io.poll_receive(cx, scratch.bytes())) {
                Ok([]) => return Poll::Ready(Err(Failed::Sent(Written::Closed))),
                Ok(bytes) => bytes,
                Err(error) => return Poll::Ready(Err(Failed::Sent(Written::from(&error)))),
            };
            match reader.feed(bytes) {
                Ok(None) => {}
                Ok(Some(received)) => return Poll::Ready(Ok(received)),
                Err(broken) => return Poll::Ready(Err(Failed::Sent(Written::from(broken)))),
            }
        }
    }

    /// Sends what the connection takes; gives the request back if it is certain that nobody saw a byte of it.
    fn send(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Result<(), Outgoing> {
        let Sending::Under(request) = sending else { return Ok(()) };
        let next = match self.io.poll_send(cx, request) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) => Sending::Over,
            // The answer may be there nevertheless: a refusal, then a close. If not, reading will say what happened.
            Poll::Ready(Err(_)) => Sending::Broken,
        };
        match (std::mem::replace(sending, next), &*sending, &self.io) {
            // What TLS took may be on its way in part, whatever it says.
            (Sending::Under(request), Sending::Broken, Io::Plain(_)) if request.is_untouched() => {
                Err(request)
            }
            (_, _, _) => Ok(()),
        }
    }

    /// Reads what is there of a body into `buffer`; nothing means that the connection has ended.
    pub(super) fn poll_receive<'a>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'a mut [u8],
    ) -> Poll<io::Result<&'a [u8]>> {
        if let Some(unsent) = &mut self.unsent
            && self.io.poll_send(cx, unsent).is_ready()
        {
            self.unsent = None;
        }
        self.io.poll_receive(cx, buffer)
    }
}
