//! Reads a request's body whole, within bounds of bytes and time.
//!
//! A body in one frame is passed on without a copy, one that is too long by its own `Content-Length` is refused before
//! it is polled: hyper answers `Expect: 100-continue` with the first poll.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;

/// Room that is reserved on a client's mere word; more comes as bytes do.
const RESERVE_MAX: usize = 256 << 10;

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than `max` bytes, announced or sent.
    #[error("the body is too long")]
    TooLarge,
    /// It was not complete in time.
    #[error("the body took too long")]
    TimedOut,
    /// The client went away, or its framing is broken; the connection is of no further use.
    #[error("the body broke off")]
    Broken,
}

/// What came of a body that is read in two steps.
#[derive(Debug, PartialEq, Eq)]
pub enum Begun {
    /// All of it.
    Whole(Bytes),
    /// The beginning of one that is longer.
    Part(BytesMut),
}

/// All of `body`: at most `max` bytes, complete within `timeout`.
///
/// # Errors
/// See [`BodyError`]; the rest of the body is left unread, so hyper closes the connection after the answer.
pub async fn read_body<B>(body: B, max: usize, timeout: Duration) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if body.size_hint().lower() > max as u64 {
        return Err(BodyError::TooLarge);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let mut reading = pin!(collect(body, max));
    // The timer is armed only if the body is not there yet.
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(reading.as_mut().poll(cx))).await {
        return read;
    }
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut))
}

/// Of `body` what comes within `timeout`, until it ends or is longer than `enough`.
///
/// # Errors
/// See [`BodyError`]; it is never too large here.
pub async fn begin_body<B>(body: &mut B, enough: usize, timeout: Duration) -> Result<Begun, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async {
        let mut begun = BytesMut::new();
        while let Some(data) = next_data(body).await? {
            begun.extend_from_slice(&data);
            if enough < begun.len() {
                return Ok(Begun::Part(begun));
            }
        }
        Ok(Begun::Whole(begun.freeze()))
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut))
}

/// The rest of a body that was `begun`: at most `max` bytes in all, complete within `timeout`.
///
/// # Errors
/// As [`read_body`].
pub async fn finish_body<B>(
    mut body: B,
    mut begun: BytesMut,
    max: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let reading = async {
        while let Some(data) = next_data(&mut body).await? {
            append(&mut begun, &data, max)?;
        }
        Ok(begun.freeze())
    };
    tokio::time::timeout(timeout, reading).await.unwrap_or(Err(BodyError::TimedOut))
}

async fn collect<B>(mut body: B, max: usize) -> Result<Bytes, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut first = Bytes::new();
    loop {
        match next_data(&mut body).await? {
            None => return Ok(first),
            Some(data) if data.len() > max => return Err(BodyError::TooLarge),
            Some(data) if data.is_empty() => {}
            Some(data) => first = data,
        }
        if !first.is_empty() {
            break;
        }
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = next_data(&mut body).await? else { return Ok(first) };
    let rest = usize::try_from(body.size_hint().lower()).unwrap_or(max);
    let mut whole = BytesMut::with_capacity(first.len() + second.len() + rest.min(RESERVE_MAX));
    whole.extend_from_slice(&first);
    append(&mut whole, &second, max)?;
    drop((first, second));
    while let Some(data) = next_data(&mut body).await? {
        append(&mut whole, &data, max)?;
    }
    Ok(whole.freeze())
}

fn append(whole: &mut BytesMut, data: &Bytes, max: usize) -> Result<(), BodyError> {
    if data.len() > max.saturating_sub(whole.len()) {
        return Err(BodyError::TooLarge);
    }
    whole.extend_from_slice(data);
    Ok(())
}

/// The next frame of data; trailers are passed over, they are never merged (RFC 9110 6.5.1).
async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    loop {
        match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(BodyError::Broken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
