//! Writes a streamed answer to its client: the head, then each piece of the body as a chunk (RFC 9112 7.1) when it comes.
//!
//! A stream that waits keeps no buffer: each thread has one, which is lent from gathering to writing. What comes together goes out in one write; nothing is held back for more. A
//! client that closes its sending side has left (F41): the body is dropped, which cancels or detaches its call.

use std::cell::Cell;
use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header;
use http::response::Parts;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::aside::{After, Begun, Rest};
use super::stall::Unstalled;

/// Pieces up to this length are copied into one write, longer ones are written from where they are.
const COPIED_MAX: usize = 4096;
/// Bytes that are taken from a body ahead of the connection.
const WAITING_MAX: usize = 16 << 10;
/// Bytes of a thread's buffer that outlive their use: what is gathered at most, and its last piece.
const SPARE_MAX: usize = 32 << 10;
/// Bytes of a next request that are taken while a stream lasts, to notice a client that leaves.
const AHEAD_MAX: usize = 512;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poured {
    /// With the whole body.
    Whole,
    /// Without its end; the connection is of no further use.
    Over,
}

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

struct Pour<'a, S, B> {
    io: &'a mut Unstalled<S>,
    body: B,
    rest: Rest,
    /// Written up to `at`; then `long`.
    out: Vec<u8>,
    at: usize,
    long: Bytes,
}

/// Writes all of `begun`.
pub(super) async fn pour<S, B>(io: &mut Unstalled<S>, begun: Begun<B>) -> Poured
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    let Begun { head, first, body, rest, after } = begun;
    let mut pour = Pour { io, body, rest, out: SPARE.take(), at: 0, long: Bytes::new() };
    write_head(&mut pour.out, &head, after);
    for piece in first {
        // All in one write, the head too.
        chunk(&mut pour.out, &piece);
    }
    if rest == Rest::Nothing {
        pour.out.extend_from_slice(LAST_CHUNK);
    }
    drop(head);
    std::future::poll_fn(|cx| pour.poll(cx)).await
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl<S, B> Pour<'_, S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Poured> {
        loop {
            let waits = self.gather(cx);
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Poured::Over),
                Poll::Pending => {
                    self.hold();
                    return Poll::Pending;
                }
            }
            match self.rest {
                Rest::Nothing => return Poll::Ready(Poured::Whole),
                Rest::Cut => return Poll::Ready(Poured::Over),
                Rest::More if waits => return self.poll_gone(cx).map(|()| Poured::Over),
                Rest::More => {}
            }
        }
    }

    /// What the connection did not take yet is kept in a buffer of its size: a slow client is not lent the thread's.
    fn hold(&mut self) {
        if self.out.capacity() > 2 * (self.out.len() - self.at) {
            let left = self.out[self.at..].to_vec();
            give_back(std::mem::replace(&mut self.out, left));
            self.at = 0;
        }
    }

    /// Takes what the body has; true if it will wake us when there is more.
    fn gather(&mut self, cx: &mut Context<'_>) -> bool {
        if self.rest == Rest::More && self.out.capacity() == 0 {
            self.out = SPARE.take();
        }
        while self.rest == Rest::More && self.long.is_empty() && self.out.len() - self.at < WAITING_MAX {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return true,
                Poll::Ready(None) => {
                    self.rest = Rest::Nothing;
                    self.out.extend_from_slice(LAST_CHUNK);
                }
                Poll::Ready(Some(Err(_))) => self.rest = Rest::Cut,
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if data.len() <= COPIED_MAX {
                        chunk(&mut self.out, &data);
                    } else {
                        size(&mut self.out, data.len());
                        self.long = data;
                    }
                }
            }
        }
        false
    }

    /// Ready when everything is written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.at < self.out.len() || !self.long.is_empty() {
            let short = &self.out[self.at..];
            let wrote = if self.long.is_empty() {
                ready!(Pin::new(&mut *self.io).poll_write(cx, short))?
            } else {
                let slices = [IoSlice::new(short), IoSlice::new(&self.long)];
                ready!(Pin::new(&mut *self.io).poll_write_vectored(cx, &slices))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_short = wrote.min(short.len());
            self.at += of_short;
            if wrote > of_short {
                bytes::Buf::advance(&mut self.long, wrote - of_short);
                if self.long.is_empty() {
                    self.out.clear();
                    self.out.extend_from_slice(b"\r\n");
                    self.at = 0;
                }
            }
        }
        if !self.out.is_empty() {
            ready!(Pin::new(&mut *self.io).poll_flush(cx))?;
        }
        // Not kept: a stream waits far longer than it writes.
        give_back(std::mem::take(&mut self.out));
        self.at = 0;
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has left. One that sends its next request already is not watched any further.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.io.has_ahead() {
            return Poll::Pending;
        }
        let mut space = [MaybeUninit::uninit(); AHEAD_MAX];
        let mut read = ReadBuf::uninit(&mut space);
        match ready!(Pin::new(&mut *self.io).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {
                self.io.put_ahead(Bytes::copy_from_slice(read.filled()));
                Poll::Pending
            }
            Ok(()) | Err(_) => Poll::Ready(()),
        }
    }
}

/// Keeps `buffer` for this thread's next stream, unless there is a larger one or it is too large for that.
fn give_back(mut buffer: Vec<u8>) {
    let kept = SPARE.take();
    if (kept.capacity() + 1..=SPARE_MAX).contains(&buffer.capacity()) {
        buffer.clear();
        SPARE.set(buffer);
    } else {
        SPARE.set(kept);
    }
}

fn chunk(out: &mut Vec<u8>, data: &[u8]) {
    // An empty chunk would be the end.
    if !data.is_empty() {
        out.reserve(data.len() + 16);
        size(out, data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// The size line of a chunk: hexadecimal without leading zeros.
fn size(out: &mut Vec<u8>, length: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut line = [0; 18];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = length;
    while rest > 0 {
        at -= 1;
        line[at] = DIGITS[rest & 15];
        rest >>= 4;
    }
    out.extend_from_slice(&line[at..]);
}

fn write_head(out: &mut Vec<u8>, head: &Parts, after: After) {
    let reason = head.status.canonical_reason().unwrap_or("");
    // Writing to a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {reason}\r\n", head.status.as_str());
    for (name, value) in &head.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !head.headers.contains_key(header::DATE) {
        let _ = write!(out, "date: {}\r\n", httpdate::HttpDate::from(SystemTime::now()));
    }
    if after == After::Close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_framed_and_empty_ones_left_out() {
        let mut out = Vec::new();
        for length in [0, 1, 15, 16, 255, 256, 4095] {
            chunk(&mut out, &vec![b'x'; length]);
        }
        let sizes: Vec<_> = out.split(|byte| *byte == b'\n').step_by(2).map(<[u8]>::to_vec).collect();
        assert_eq!(sizes, [&b"1\r"[..], b"f\r", b"10\r", b"ff\r", b"100\r", b"fff\r", b""]);
    }
}
