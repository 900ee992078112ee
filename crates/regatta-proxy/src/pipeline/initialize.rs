//! `initialize`: an unbound request whose answer becomes a session token (SESSIONS 1).
//!
//! The server's answer is read whole before our head goes out, because the token is in the head. A server that
//! gives no session id gets none from us either; its clients' requests stay unbound.

use std::sync::Arc;

use http::{Response, StatusCode};
use regatta_mcp::headers::MCP_SESSION_ID;
use regatta_mcp::{SkimKind, events, skim};
use regatta_policy::retry::Repeatability;
use regatta_policy::token::LegacyVersion;

use super::exchange::{Answered, Errand, Where, exchange};
use super::modern;
use crate::bind::{self, mint};
use crate::content::Kind;
use crate::encode;
use crate::encode::answer::same_id;
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::probe::{HANDSHAKE_MAX, collect, sse_response};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::headers::Outbound;
use crate::reply::ReplyBody;
use crate::route::handles::Maker;
use crate::route::tools::Among;

/// Opens a session.
pub(crate) async fn initialize(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    // A stale session id is no hindrance (RELIABILITY I102), a live one is (I105).
    if let Ok(Some(_)) = bind::bind(gateway, &call.server, &call.caller, &call.head).await {
        return Err(Fault::SecondInitialize.told(&asker));
    }
    let params = call.one().and_then(|message| message.params.span);
    let params = params.map(|span| call.text.slice(span.start as usize..span.end as usize));
    let packed = mint::pack(&call.server, &params.unwrap_or_default()).map_err(|fault| fault.told(&asker))?;
    let errand = Box::new(Errand {
        gateway: gateway.clone(),
        server: call.server,
        headers: Outbound::of(call.head.headers, &call.caller),
        caller: call.caller,
        method: http::Method::POST,
        text: call.text,
        rewritten: Vec::new(),
        asker: asker.clone(),
        era: call.era,
        // A session that nobody got to know harms nobody: the server forgets it in its own time.
        repeatability: Repeatability::Harmless,
        place: Where::Any { maker: Maker::Nobody, affinity: None },
        cursor: None,
        among: Among::All,
        permit: Some(call.permit),
        upkeep: None,
        noted: None,
        entry: None,
        journaled: None,
        alarm: None,
    });
    let answered = exchange(errand).await?;
    if answered.answer.head.status != StatusCode::OK {
        return modern::pass(answered).await;
    }
    answer(answered, packed).await
}

async fn answer(
    answered: Answered,
    packed: regatta_policy::token::PackedParams,
) -> Result<Response<ReplyBody>, Refusal> {
    let Answered { errand, answer, kind, replica, .. } = answered;
    let head = answer.head;
    let read = async {
        match kind {
            Kind::Json => collect(answer.body, HANDSHAKE_MAX).await.ok(),
            Kind::Events => sse_response(answer.body).await.map(|(text, _)| text),
            Kind::None | Kind::Foreign => None,
        }
    };
    let text = tokio::time::timeout(errand.server.server.call.request_timeout, read).await;
    let unusable = |why| {
        errand.gateway.metrics.bad_answers.inc();
        errand.refuse(Fault::BadAnswer { why })
    };
    let text = text.ok().flatten().ok_or_else(|| unusable("it is no answer to initialize"))?;
    let skim = skim(&text).map_err(|_| unusable("it is no JSON-RPC message"))?;
    let is_ours = match (&errand.asker.id, skim.id) {
        (Some(asked), Some(answered)) => same_id(asked, answered.of(&text)),
        // An error about a request that could not be read has no id.
        (Some(_), None) => skim.kind == SkimKind::Response { failed: true },
        (None, _) => true,
    };
    if !is_ours || !matches!(skim.kind, SkimKind::Response { .. }) {
        return Err(unusable("it is not the response to initialize"));
    }
    let session = head.session.clone();
    let mut response = match kind {
        Kind::Events => encode::head::events(ReplyBody::whole(events::message(&text))),
        Kind::Json | Kind::None | Kind::Foreign => encode::head::like(head, ReplyBody::whole(text.clone())),
    };
    if let (Some(session), SkimKind::Response { failed: false }) = (&session, skim.kind) {
        let negotiated = mint::Negotiated { text: &text, skim: &skim };
        let token = mint::mint(
            &errand.gateway,
            &errand.server,
            errand.realm(),
            replica,
            session,
            &negotiated,
            packed,
        )
        .map_err(|fault| errand.refuse(fault))?;
        response.headers_mut().insert(MCP_SESSION_ID, token);
        errand.gateway.metrics.sessions_opened.inc();
    }
    Ok(response)
}

/// Whether clients of this version know an event without content (2025-11-25 basic/transports, 6.1).
pub(crate) fn is_primed(version: LegacyVersion) -> bool {
    version >= LegacyVersion::V2025_11_25
}
