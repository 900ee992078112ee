//! A connection whose writes may not stand still: who leaves an answer unread for too long loses it, with all that it holds.
//!
//! The timer runs only while a write is pending: a stream without news has nothing to write, and a client that reads costs
//! nothing. Reads are passed through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// `inner`, bounded in how long a write may make no progress.
pub(crate) struct Unstalled<S> {
    inner: S,
    patience: Duration,
    /// Kept for the next time.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether a write is pending.
    is_armed: bool,
    /// Counts those that were given up.
    stalled: Arc<AtomicU64>,
}

impl<S> Unstalled<S> {
    pub(crate) fn new(inner: S, patience: Duration, stalled: Arc<AtomicU64>) -> Unstalled<S> {
        Unstalled { inner, patience, timer: None, is_armed: false, stalled }
    }

    /// Passes `wrote` on, unless it is pending for too long.
    fn watch<T>(&mut self, wrote: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.is_armed = false;
            return wrote;
        }
        let deadline = Instant::now() + self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !std::mem::replace(&mut self.is_armed, true) {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.stalled.fetch_add(1, Relaxed);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(wrote, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(wrote, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // Neither waits for the client: a socket flushes nothing, and shuts down at once.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_write_without_progress_is_given_up() {
        let (_client, server) = tokio::io::duplex(16);
        let stalled = Arc::new(AtomicU64::new(0));
        let mut server = Unstalled::new(server, PATIENCE, stalled.clone());
        let begun = Instant::now();
        let error = server.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
        assert_eq!(stalled.load(Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_slowly_is_not_cut_nor_is_who_has_nothing_to_read() {
        let (mut client, server) = tokio::io::duplex(16);
        let stalled = Arc::new(AtomicU64::new(0));
        let mut server = Unstalled::new(server, PATIENCE, stalled.clone());
        let writing = tokio::spawn(async move {
            server.write_all(&[0; 160]).await?;
            tokio::time::sleep(PATIENCE * 10).await;
            server.write_all(&[0; 16]).await
        });
        for _ in 0..11 {
            tokio::time::sleep(PATIENCE / 2).await;
            client.read_exact(&mut [0; 16]).await.unwrap();
        }
        writing.await.unwrap().unwrap();
        assert_eq!(stalled.load(Relaxed), 0);
    }
}
