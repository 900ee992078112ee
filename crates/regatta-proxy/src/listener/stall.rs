//! A stream whose writes may not stand still: no progress for a while closes the connection (RELIABILITY F36).
//!
//! The timer exists only while a write is pending, so a reading client costs nothing. Reads are passed through, but for
//! bytes that were read ahead of their turn, which come first.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::aside::Mark;
use super::stats::ListenerStats;

/// `inner`, bounded in how long one write may make no progress.
pub(super) struct Unstalled<S> {
    inner: S,
    patience: Duration,
    /// Armed while a write is pending; kept for the next time.
    timer: Option<Pin<Box<Sleep>>>,
    armed: bool,
    /// Read, but not yet by who reads now.
    ahead: Bytes,
    mark: Arc<Mark>,
    stats: Arc<ListenerStats>,
}

impl<S> Unstalled<S> {
    pub(super) fn new(inner: S, patience: Duration, stats: Arc<ListenerStats>) -> Self {
        let (ahead, mark) = (Bytes::new(), Arc::default());
        Unstalled { inner, patience, timer: None, armed: false, ahead, mark, stats }
    }

    /// Told of every flush.
    pub(super) fn mark(&self) -> Arc<Mark> {
        self.mark.clone()
    }

    /// Bytes that the next read gives, before all others.
    pub(super) fn put_ahead(&mut self, bytes: Bytes) {
        self.ahead = match self.has_ahead() {
            true => [bytes, std::mem::take(&mut self.ahead)].concat().into(),
            false => bytes,
        };
    }

    /// Whether there are such bytes.
    pub(super) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Passes `wrote` on, unless it is pending for too long.
    fn watch<T>(&mut self, wrote: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.armed = false;
            return wrote;
        }
        let deadline = Instant::now() + self.patience;
        let timer = match &mut self.timer {
            Some(timer) => {
                if !self.armed {
                    timer.as_mut().reset(deadline);
                }
                timer
            }
            none => none.insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        self.armed = true;
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        ListenerStats::count(&self.stats.stalled);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_ahead() {
            let now = self.ahead.len().min(into.remaining());
            into.put_slice(&self.ahead[..now]);
            self.ahead.advance(now);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(wrote, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch(wrote, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP flush does nothing; a TLS flush writes.
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_ready() {
            self.mark.written_out();
        }
        self.watch(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(closed, cx)
    }
}
