//! Requests of our own inside an upstream session: `initialize`, `ping`, DELETE, and what re-homing repeats.
//!
//! Their ids carry a random prefix, so that no server can take one for a client's. Answers are bounded in size
//! and time; what they mean is the caller's business.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use regatta_mcp::sse::Framer;
use regatta_mcp::{Skim, SkimKind, skim};
use regatta_policy::snapshot::CallBounds;

use super::{Loss, Patience, Upward, send};
use crate::headers::Outbound;
use crate::upstream::{AnswerHead, UpstreamAnswer, UpstreamBody};
use crate::view::ReplicaView;

/// The largest answer to a handshake (SESSIONS 1).
pub(crate) const HANDSHAKE_MAX: usize = 1 << 20;
/// How long one of our own requests may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Why a request of our own failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeError {
    /// It did not get an answer.
    Lost(Loss),
    /// The answer was refused, unreadable or too large.
    Unusable,
}

/// A handshake's result.
pub(crate) struct Shaken {
    /// The replica's session id, if it gives one.
    pub session: Option<HeaderValue>,
    /// The response's text.
    pub text: Bytes,
    /// What stands where in it.
    pub skim: Skim,
}

/// Sends `text` (an `initialize` request) and reads its answer whole.
pub(crate) async fn initialize(
    replica: &ReplicaView,
    client: &Outbound,
    text: Bytes,
    bounds: &CallBounds,
) -> Result<Shaken, ProbeError> {
    let upward = Upward { method: Method::POST, text: &text, session: None, cursor: None, rewritten: &[] };
    let answer =
        send(replica, client, upward, bounds, Patience::of(PATIENCE)).await.map_err(ProbeError::Lost)?;
    let session = answer.head.session.clone();
    let (text, skim) = response(answer).await?;
    Ok(Shaken { session, text, skim })
}

/// Sends a request or notification inside a session; true if the server took it.
pub(crate) async fn tell(
    replica: &ReplicaView,
    client: &Outbound,
    session: &HeaderValue,
    text: Bytes,
    bounds: &CallBounds,
) -> Result<bool, ProbeError> {
    let upward =
        Upward { method: Method::POST, text: &text, session: Some(session), cursor: None, rewritten: &[] };
    let answer =
        send(replica, client, upward, bounds, Patience::of(PATIENCE)).await.map_err(ProbeError::Lost)?;
    if answer.head.status == StatusCode::ACCEPTED || answer.head.status == StatusCode::NO_CONTENT {
        return Ok(true);
    }
    let (_, skim) = response(answer).await?;
    Ok(matches!(skim.kind, SkimKind::Response { failed: false }))
}

/// Sends a request inside a session; the status of its answer.
pub(crate) async fn status(
    replica: &ReplicaView,
    client: &Outbound,
    session: &HeaderValue,
    text: Bytes,
    bounds: &CallBounds,
) -> Result<StatusCode, Loss> {
    let upward =
        Upward { method: Method::POST, text: &text, session: Some(session), cursor: None, rewritten: &[] };
    let answer = send(replica, client, upward, bounds, Patience::of(PATIENCE)).await?;
    Ok(answer.head.status)
}

/// Ends an upstream session; its status.
pub(crate) async fn delete(
    replica: &ReplicaView,
    client: &Outbound,
    session: &HeaderValue,
    bounds: &CallBounds,
) -> Result<AnswerHead, Loss> {
    let upward = Upward {
        method: Method::DELETE,
        text: &Bytes::new(),
        session: Some(session),
        cursor: None,
        rewritten: &[],
    };
    let answer = send(replica, client, upward, bounds, Patience::of(PATIENCE)).await?;
    Ok(answer.head)
}

/// The response in an answer, JSON or SSE alike; messages before it are passed over.
async fn response(answer: UpstreamAnswer) -> Result<(Bytes, Skim), ProbeError> {
    if !answer.head.status.is_success() {
        return Err(ProbeError::Unusable);
    }
    let read = async {
        match answer.head.kind {
            crate::content::Kind::Json => json_response(answer.body).await,
            crate::content::Kind::Events => sse_response(answer.body).await,
            crate::content::Kind::None | crate::content::Kind::Foreign => None,
        }
    };
    tokio::time::timeout(PATIENCE, read).await.ok().flatten().ok_or(ProbeError::Unusable)
}

async fn json_response(body: UpstreamBody) -> Option<(Bytes, Skim)> {
    let text = collect(body, HANDSHAKE_MAX).await.ok()?;
    let skim = skim(&text).ok()?;
    matches!(skim.kind, SkimKind::Response { .. }).then_some((text, skim))
}

pub(crate) async fn sse_response(mut body: UpstreamBody) -> Option<(Bytes, Skim)> {
    let mut framer = Framer::new(HANDSHAKE_MAX);
    while let Some(chunk) = next_chunk(&mut body).await? {
        framer.push(chunk);
        while let Some(event) = framer.next().ok()? {
            let Some(data) = event.data.filter(|data| !data.is_empty()) else { continue };
            let skim = skim(&data).ok()?;
            if matches!(skim.kind, SkimKind::Response { .. }) {
                return Some((data, skim));
            }
        }
    }
    None
}

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// The connection broke.
    Broken,
    /// It is larger than was allowed.
    TooLarge,
}

/// All of a body, if it is no larger than `max`.
pub(crate) async fn collect(mut body: UpstreamBody, max: usize) -> Result<Bytes, Unread> {
    let mut first = Bytes::new();
    let mut rest: Option<BytesMut> = None;
    while let Some(chunk) = next_chunk(&mut body).await.ok_or(Unread::Broken)? {
        match &mut rest {
            None if first.is_empty() => first = chunk,
            None => {
                let mut whole = BytesMut::from(&first[..]);
                whole.extend_from_slice(&chunk);
                rest = Some(whole);
            }
            Some(whole) => whole.extend_from_slice(&chunk),
        }
        if rest.as_ref().map_or(first.len(), BytesMut::len) > max {
            return Err(Unread::TooLarge);
        }
    }
    Ok(rest.map_or(first, BytesMut::freeze))
}

/// The next data of a body: `Some(None)` at its end, `None` if it broke.
async fn next_chunk(body: &mut UpstreamBody) -> Option<Option<Bytes>> {
    std::future::poll_fn(|cx| body.poll_chunk(cx)).await.transpose().ok()
}
