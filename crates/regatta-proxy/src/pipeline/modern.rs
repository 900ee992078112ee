//! A modern request on its way: any replica, or the maker of its handles; gone with its connection.
//!
//! Everything hangs on the handler and then on the body: when the client disconnects, both are dropped, and the
//! server sees the disconnect that cancels (2026-07-28 basic/patterns/cancellation).

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Method as Verb, Response, StatusCode};
use http_body::Body;
use regatta_mcp::era::Era;
use regatta_mcp::{Kind as MessageKind, Method};
use regatta_seal::Fingerprint;

use super::cached::{self, First};
use super::exchange::{Answered, Errand, Where, exchange};
use super::legacy::repeatability;
use super::{journal, tool_list};
use crate::content::Kind;
use crate::encode;
use crate::encode::answer::{Marks, Role, mark};
use crate::encode::relay::{Relay, Relaying};
use crate::fault::{Asker, Fault, Refusal};
use crate::forward::probe::{HANDSHAKE_MAX, collect};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::headers::Outbound;
use crate::peers;
use crate::reply::ReplyBody;
use crate::route::handles::directions;
use crate::route::tools::among;
use crate::upstream::UpstreamBody;
use crate::within::within;

/// Serves one modern POST.
pub(crate) async fn post(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
) -> Result<Response<ReplyBody>, Refusal> {
    let message = call.one();
    let method = message.and_then(|message| message.method).map(|name| name.method);
    if message.is_some_and(|message| message.kind == MessageKind::Notification) {
        // No revision from this era on defines one over HTTP, and a cancellation of somebody else's request must
        // not pass (2026-07-28 streamable-http, *Sending Messages*, note; RELIABILITY I55).
        return Ok(encode::fault::plain(StatusCode::ACCEPTED));
    }
    if gateway.is_draining() && method != Some(Method::ServerDiscover) {
        return Err(Fault::Draining.told(&asker));
    }
    if method == Some(Method::SubscriptionsListen) {
        return Box::pin(super::listen::listen(gateway, call, asker)).await;
    }
    if let Some(list) = tool_list::composed(&call, &asker) {
        return Ok(tool_list::answer(list?, call.permit));
    }
    let among = among(&call);
    learn_keys(gateway, &call).await.map_err(|fault| fault.told(&asker))?;
    let (call, upkeep) = match cached::first(gateway, call, None) {
        First::Answer(answer) => return Ok(answer),
        First::GoOn(call, upkeep) => (call, upkeep),
    };
    let mut way = directions(&call, &gateway.ring.load()).map_err(|fault| fault.told(&asker))?;
    let journaled = journal::named(&call, None, &mut way.rewritten);
    let key = way.key;
    let errand = Box::new(Errand {
        gateway: gateway.clone(),
        repeatability: repeatability(&call),
        server: call.server,
        headers: Outbound::of(call.head.headers, &call.caller),
        caller: call.caller,
        method: Verb::POST,
        text: way.text,
        rewritten: way.rewritten,
        asker,
        era: Era::Modern,
        place: Where::Any { maker: way.maker, affinity: way.affinity },
        among,
        cursor: None,
        permit: Some(call.permit),
        upkeep,
        noted: None,
        entry: call.entry,
        journaled,
        alarm: Some(call.alarm),
    });
    match errand.upkeep {
        None => answer(exchange(errand).await?, key).await,
        Some(_) => Box::pin(cached::modern(errand, key)).await,
    }
}

/// Handles may be sealed under a key that another gateway has just begun to use.
async fn learn_keys(gateway: &Gateway, call: &Call) -> Result<(), Fault> {
    let Some(message) = call.one() else { return Ok(()) };
    let params = &message.params;
    for text in [params.request_state, params.task_id, params.cursor].into_iter().flatten() {
        peers::keys::learn_key_of(gateway, &text.get(&call.text)).await?;
    }
    Ok(())
}

/// Answers a request whose answer's head is there.
pub(crate) async fn answer(
    answered: Answered,
    key: Option<Fingerprint>,
) -> Result<Response<ReplyBody>, Refusal> {
    match (answered.answer.head.status, answered.kind) {
        (StatusCode::OK, Kind::Events) => Ok(relay(answered, key)),
        (StatusCode::OK, Kind::Json) => json(answered, key).await,
        (_, _) => Box::pin(pass(answered)).await,
    }
}

/// Answers with the server's events as they come.
pub(crate) fn relay(answered: Answered, key: Option<Fingerprint>) -> Response<ReplyBody> {
    let pace = answered.errand.pace();
    let Answered { errand, answer, replica, .. } = answered;
    let (head, body) = (answer.head, answer.body);
    let Some(to) = relaying(errand, replica, key) else {
        return encode::fault::plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = encode::head::like(head, ReplyBody::relay(Relay::events(to, body, pace)));
    encode::head::stream_headers(response.headers_mut());
    response
}

fn relaying(
    errand: Box<Errand>,
    replica: regatta_policy::ReplicaId,
    handle_key: Option<Fingerprint>,
) -> Option<Relaying> {
    let realm = errand.realm();
    let session = errand.bound().map(|bound| (bound.session.uuid, bound.home.etag));
    Some(Relaying {
        gateway: errand.gateway,
        account: errand.caller.account,
        asker: errand.asker,
        era: errand.era,
        session,
        replica,
        realm,
        cursors: errand.server.server.cursors,
        handle_key,
        permit: errand.permit?,
        upkeep: errand.upkeep,
    })
}

/// A JSON answer is held, judged and marked; one too large for that streams through (DESIGN 3).
async fn json(answered: Answered, key: Option<Fingerprint>) -> Result<Response<ReplyBody>, Refusal> {
    let pace = answered.errand.pace();
    let Answered { mut errand, answer, replica, .. } = answered;
    let (head, mut body) = (answer.head, answer.body);
    // Room for the largest result that is kept, and for what stands round it.
    let kept_max = errand.upkeep.as_ref().and_then(|upkeep| upkeep.max_bytes());
    let max = errand.server.limits.answer_hold_max.max(kept_max.map_or(0, |bytes| bytes + 1024));
    let patience = errand.server.server.call.request_timeout;
    let held = within(patience, hold(&mut body, max)).await.unwrap_or(Held::Broken);
    match held {
        Held::Whole(text) => {
            let text = judge(&mut errand, replica, key, &text)?;
            cached::told(&mut errand).await;
            let body = match errand.permit {
                Some(permit) => ReplyBody::held(text, permit),
                None => ReplyBody::whole(text),
            };
            Ok(encode::head::like(head, body))
        }
        Held::Part(text) => {
            let asker = errand.asker.clone();
            let to = relaying(errand, replica, key).ok_or_else(|| Fault::NoReplica.told(&asker))?;
            let relay = Relay::json(to, text, body, pace);
            let relay =
                relay.ok_or_else(|| Fault::BadAnswer { why: "it is no JSON-RPC response" }.told(&asker))?;
            Ok(encode::head::like(head, ReplyBody::relay(relay)))
        }
        Held::Broken if errand.asks_again(replica) => {
            Box::pin(async { self::answer(exchange(errand).await?, key).await }).await
        }
        Held::Broken => {
            errand.gateway.metrics.outcome_unknown.inc();
            Err(errand.refuse(Fault::OutcomeUnknown { why: "the answer broke off" }))
        }
    }
}

/// How much of a body is here.
enum Held {
    Whole(Bytes),
    Part(Bytes),
    Broken,
}

async fn hold(body: &mut UpstreamBody, max: usize) -> Held {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
            None if all.is_empty() => return Held::Whole(first),
            None => return Held::Whole(all.freeze()),
            Some(Err(_)) => return Held::Broken,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if first.is_empty() && all.is_empty() {
                    first = data;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&data);
                }
                if first.len().max(all.len()) > max {
                    return Held::Part(if all.is_empty() { first } else { all.freeze() });
                }
            }
        }
    }
}

fn judge(
    errand: &mut Errand,
    replica: regatta_policy::ReplicaId,
    handle_key: Option<Fingerprint>,
    text: &Bytes,
) -> Result<Bytes, Refusal> {
    let ring = errand.gateway.ring.load();
    let marks = Marks {
        ring: &ring,
        era: Era::Modern,
        id: errand.asker.id.as_ref(),
        replica,
        session: None,
        realm: errand.realm(),
        cursors: errand.server.server.cursors,
        handle_key,
        news: None,
    };
    match mark(&marks, text) {
        Some((Role::Final, outgoing)) => Ok(match &mut errand.upkeep {
            Some(upkeep) => upkeep.answered(&errand.gateway, text, outgoing),
            None => outgoing,
        }),
        Some((
            Role::Prose
            | Role::Said
            | Role::ToolsChanged
            | Role::Question { .. }
            | Role::Withdrawal { .. }
            | Role::Foreign,
            _,
        ))
        | None => {
            errand.gateway.metrics.bad_answers.inc();
            Err(errand.refuse(Fault::BadAnswer { why: "it is not the response to the request" }))
        }
    }
}

/// Passes an answer that is no stream and no judged JSON: 202, 4xx, a server's own 5xx.
pub(crate) async fn pass(answered: Answered) -> Result<Response<ReplyBody>, Refusal> {
    let Answered { mut errand, answer, kind, .. } = answered;
    let status = answer.head.status;
    // What it does not take is ours, not the client's: that has been checked.
    if status == StatusCode::UNAUTHORIZED && errand.server.guard.is_some() {
        return Err(errand.refuse(Fault::CredentialRefused));
    }
    // A refusal is about this request; one of a server that fails lets the next in line try.
    if let Some(upkeep) = errand.upkeep.as_mut().filter(|_| status.is_client_error()) {
        upkeep.pass();
        upkeep.was_idle();
    }
    let is_empty = status == StatusCode::ACCEPTED || status == StatusCode::NO_CONTENT;
    let is_bare = status.is_success() && kind == Kind::None && errand.method == Verb::POST;
    // A notification is taken with 202 (2026-07-28 streamable-http, *Sending Messages* 5; 2025-11-25 alike), and some
    // servers mean it by a bare 200. A request so answered would wait for ever: it falls through and is told so.
    if errand.asker.id.is_none() && (is_empty || is_bare) {
        return Ok(encode::head::like(answer.head, ReplyBody::Empty));
    }
    let may_pass = status.is_client_error() || (status.is_server_error() && kind == Kind::Json);
    if !may_pass {
        errand.gateway.metrics.bad_answers.inc();
        return Err(errand.refuse(Fault::BadAnswer { why: "its status or content type is not one of MCP's" }));
    }
    let text =
        tokio::time::timeout(errand.server.server.call.request_timeout, collect(answer.body, HANDSHAKE_MAX))
            .await;
    let Ok(Ok(text)) = text else {
        return Err(errand.refuse(Fault::BadAnswer { why: "its error broke off or is too large" }));
    };
    Ok(encode::head::like(answer.head, ReplyBody::whole(text)))
}
