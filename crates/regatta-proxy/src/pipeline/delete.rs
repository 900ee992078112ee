//! DELETE: the end of a legacy session (SESSIONS 8).
//!
//! The upstream is asked first, because its 405 means that there is no end (and then no tombstone); any other outcome
//! buries the session here, whether or not its replica could be reached. Never refused for being busy.

use std::sync::Arc;

use http::{Response, StatusCode};
use regatta_mcp::era::Era;
use regatta_mcp::headers::MCP_SESSION_ID;

use crate::bind;
use crate::encode;
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::probe;
use crate::gateway::Gateway;
use crate::handover::{Accepted, Identified};
use crate::headers::Outbound;
use crate::peers;
use crate::pipeline::later;
use crate::reply::ReplyBody;
use crate::session::Bound;
use crate::upstream::AnswerHead;
use crate::view::ServerView;

/// Serves one DELETE.
pub(crate) async fn delete(
    gateway: &Arc<Gateway>,
    identified: Identified,
) -> Result<Response<ReplyBody>, Refusal> {
    let Identified { accepted: Accepted { server, arrival }, caller } = identified;
    let head = arrival.head;
    let asker = Asker { era: Some(Era::Legacy), ..Asker::default() };
    if !head.headers.contains_key(MCP_SESSION_ID) {
        return Err(Fault::SessionRequired.told(&asker));
    }
    let bound = bind::bind(gateway, &server, &caller, &head).await.map_err(|fault| fault.told(&asker))?;
    let Some(bound) = bound else { return Err(Fault::SessionRequired.told(&asker)) };
    let (day, digest) = bind::grave(&bound.session);
    // Nothing is done upstream that could not be written down (SESSIONS 8).
    if gateway.peers.are_many() && gateway.store.may_bury(day, digest).await.is_err() {
        return Err(Fault::StoreAway.told(&asker));
    }
    let headers = Outbound::of(head.headers, &caller);
    let head = end_upstream(&server, &bound, &headers).await;
    let status = head.as_ref().map(|head| head.status);
    if status == Some(StatusCode::METHOD_NOT_ALLOWED) {
        // The server does not let clients end sessions (2025-11-25 basic/transports, *Session Management* 5).
        return Err(Fault::BadVerb { allow: "POST, GET" }.told(&asker));
    }
    if status == Some(StatusCode::UNAUTHORIZED) && server.guard.is_some() {
        return Err(Fault::CredentialRefused.told(&asker));
    }
    // With the server's challenge, by which the client finds a better token (SESSIONS 9).
    if let Some(head) = head.filter(|head| is_refusal(head.status)) {
        return Ok(encode::head::bare(head));
    }
    gateway.store.bury(day, digest).await.map_err(|_| Fault::StoreAway.told(&asker))?;
    // The tombstone says it all; a record that stays a while harms nobody.
    let _ = gateway.store.forget(&bound.session.uuid).await;
    gateway.metrics.sessions_ended.inc();
    later::end(&server, &bound, headers);
    peers::end_streams(gateway, bound.session.uuid);
    let status = status.filter(|status| status.is_success()).unwrap_or(StatusCode::OK);
    Ok(encode::fault::plain(status))
}

fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

async fn end_upstream(server: &ServerView, bound: &Bound, headers: &Outbound) -> Option<AnswerHead> {
    let view = server.replica(bound.home.replica)?;
    probe::delete(view, headers, &bound.home.upstream_session, &server.server.call).await.ok()
}
