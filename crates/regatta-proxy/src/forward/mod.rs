//! The eighth stage: one request to one replica, up to the head of its answer.
//!
//! Builds the upstream request (Host rewritten, Origin and hop-by-hop headers dropped), sends it, and says what
//! became of it. It never chooses a replica and never tries twice: its parent does. That the endpoint stands under
//! another path of the same replica is no second try, because nothing was executed (`moved.rs`).

mod moved;
pub(crate) mod probe;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use regatta_mcp::headers::{LAST_EVENT_ID, MCP_SESSION_ID};
use regatta_policy::snapshot::CallBounds;

use crate::headers::Outbound;
use crate::upstream::codec::{Outgoing, RequestHead};
use crate::upstream::{NotWritten, SendError, UpstreamAnswer};
use crate::view::ReplicaView;
use crate::within::{Arming, Guarded};

/// What goes up, besides the client's own headers.
pub(crate) struct Upward<'a> {
    pub method: Method,
    pub text: &'a Bytes,
    /// The replica's own session id.
    pub session: Option<&'a HeaderValue>,
    /// The replica's own event id.
    pub cursor: Option<&'a HeaderValue>,
    /// Set in place of the client's values.
    pub rewritten: &'a [(http::HeaderName, HeaderValue)],
}

/// How a sending failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nobody listens there.
    Refused,
    /// No connection, for another reason; nothing was written.
    Unreachable,
    /// All connections to the replica are in use; nothing was written.
    Full,
    /// Written, and the connection broke.
    Broken,
    /// Written, and nothing came in time.
    Silent,
    /// Perhaps written, and the node's lease ended before the answer.
    Gone,
    /// Written, and this gateway has to leave before the answer.
    Leaving,
}

/// How long the head of an answer is waited for.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    pub time: Duration,
    pub arming: Arming,
}

impl Patience {
    /// A wait with a timer of its own.
    pub fn of(time: Duration) -> Patience {
        Patience { time, arming: Arming::AtOnce }
    }
}

/// Sends one request and waits for the head of its answer, at most `patience` long.
pub(crate) async fn send(
    replica: &ReplicaView,
    client: &Outbound,
    upward: Upward<'_>,
    bounds: &CallBounds,
    patience: Patience,
) -> Result<UpstreamAnswer, Loss> {
    let request = finish(replica.upstream.request(&upward.method), (replica, client), &upward);
    let lease = replica.upstream.lease();
    let sending = pin!(replica.upstream.send(lease, request, bounds));
    match Guarded::new(sending, patience.time, patience.arming).await {
        Some(Ok(answer)) if !moved::is_moved(answer.head.status) => Ok(answer),
        // Boxed: no ordinary answer should carry what this needs.
        Some(Ok(answer)) => Box::pin(follow(replica, client, upward, bounds, (patience.time, answer))).await,
        Some(Err(error)) => Err(loss(error)),
        None => Err(Loss::Silent),
    }
}

/// Sends the request again to where its endpoint is now, if that is at the same replica.
async fn follow(
    replica: &ReplicaView,
    client: &Outbound,
    upward: Upward<'_>,
    bounds: &CallBounds,
    (time, answer): (Duration, UpstreamAnswer),
) -> Result<UpstreamAnswer, Loss> {
    let Some(path) = moved::path(&replica.upstream.endpoint, &answer.head.headers) else { return Ok(answer) };
    drop(answer);
    let request = replica.upstream.request_to(&upward.method, path.as_str());
    dispatch(replica, finish(request, (replica, client), &upward), bounds, time).await
}

/// Sends a request that is ready, and waits at most `time` for the head of its answer.
pub(crate) async fn dispatch(
    replica: &ReplicaView,
    request: Outgoing,
    bounds: &CallBounds,
    time: Duration,
) -> Result<UpstreamAnswer, Loss> {
    let lease = replica.upstream.lease();
    let sending = replica.upstream.send(lease, request, bounds);
    match tokio::time::timeout(time, sending).await {
        Ok(sent) => sent.map_err(loss),
        Err(_) => Err(Loss::Silent),
    }
}

fn loss(error: SendError) -> Loss {
    match error {
        SendError::NotWritten { why } => match why {
            NotWritten::Refused => Loss::Refused,
            NotWritten::ConnectionsMax => Loss::Full,
            NotWritten::Unreachable
            | NotWritten::ConnectTimedOut
            | NotWritten::Tls
            | NotWritten::StaleConnection => Loss::Unreachable,
        },
        SendError::Written { .. } => Loss::Broken,
    }
}

/// The request with what its client and we say in it.
fn finish(
    mut request: RequestHead,
    (replica, client): (&ReplicaView, &Outbound),
    upward: &Upward<'_>,
) -> Outgoing {
    let Upward { method: _, text, session, cursor, rewritten } = upward;
    let is_replaced = |name: &HeaderName| {
        rewritten.iter().any(|(other, _)| other == name) || replica.outward.replaces(name)
    };
    client.write(&mut request, is_replaced);
    if let Some(session) = session {
        request.header(&MCP_SESSION_ID, session);
    }
    if let Some(cursor) = cursor {
        request.header(&LAST_EVENT_ID, cursor);
    }
    for (name, value) in *rewritten {
        request.header(name, value);
    }
    replica.outward.write(&mut request, client.principal());
    request.finish(Bytes::clone(text))
}
