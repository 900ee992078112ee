//! A client's answers to its servers' questions, alone or in a batch, on their way to who asked.
//!
//! Each goes by itself, under the id that its server knows, and to that server's home alone: at another one the raw id may
//! name another question (SESSIONS 6). `bind/questions.rs` says whether it is still asked for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method as Verb, Response, StatusCode};
use regatta_mcp::era::Era;
use regatta_mcp::headers::MCP_SESSION_ID;
use regatta_mcp::{Decoded, Kind, Message, decode};
use regatta_policy::retry::Repeatability;

use super::detached::Detachable;
use super::exchange::{Errand, Where};
use super::modern;
use crate::bind::questions::{Asked, Delivery, deliver, undelivered};
use crate::encode;
use crate::fault::{Asker, Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::{Call, Caller, Subject};
use crate::headers::Outbound;
use crate::peers;
use crate::peers::letter::Letter;
use crate::reply::ReplyBody;
use crate::route::handles::Maker;
use crate::route::tools::Among;
use crate::session::{Bound, Home};
use crate::slots::Permit;
use crate::view::ServerView;

/// What is left of a batch without its answers.
pub(crate) enum Rest {
    /// Messages that go on as a batch.
    Call(Box<Call>),
    /// Nothing, or an answer was refused: this is told to the client.
    Answer(Response<ReplyBody>),
}

/// Who answers.
struct Answerer {
    server: Arc<ServerView>,
    caller: Caller,
    headers: Outbound,
    asker: Asker,
}

/// Whether a message answers a question.
pub(crate) fn is_answer(message: &Message) -> bool {
    matches!(message.kind, Kind::Response { .. })
}

/// Carries the one answer that `call` is.
pub(crate) async fn answer(
    gateway: &Arc<Gateway>,
    call: Box<Call>,
    asker: Asker,
    bound: Bound,
) -> Result<Response<ReplyBody>, Refusal> {
    let Call { server, caller, head, text, message, permit, .. } = *call;
    let headers = Outbound::of(head.headers, &caller);
    let from = Answerer { server, caller, headers, asker: Asker { id: None, batch: None, ..asker } };
    match message {
        Subject::One(message) => carry(gateway, &from, &bound, (&message, &text), Some(permit)).await,
        Subject::Batch(_) => Err(Fault::BatchRefused.told(&from.asker)),
    }
}

/// Carries the answers of a batch to who asked, before anything else of it: what is refused has then changed nothing.
pub(crate) async fn apart(
    gateway: &Arc<Gateway>,
    mut call: Box<Call>,
    asker: &Asker,
    bound: &Bound,
) -> Result<Rest, Refusal> {
    let Subject::Batch(messages) = std::mem::replace(&mut call.message, Subject::Batch(Vec::new())) else {
        return Ok(Rest::Call(call));
    };
    let headers = Outbound::of(call.head.headers.clone(), &call.caller);
    let (server, caller) = (call.server.clone(), call.caller.clone());
    let from = Answerer { server, caller, headers, asker: asker.clone() };
    let mut rest = BytesMut::with_capacity(call.text.len());
    for message in &messages {
        let text = call.text.slice(message.whole.start as usize..message.whole.end as usize);
        if !is_answer(message) {
            rest.put_u8(if rest.is_empty() { b'[' } else { b',' });
            rest.extend_from_slice(&text);
            continue;
        }
        // Its notes are about the whole batch; an answer goes alone.
        let Ok(Decoded::One(alone)) = decode(&text) else { continue };
        let answer = carry(gateway, &from, bound, (&alone, &text), None).await?;
        if !answer.status().is_success() {
            return Ok(Rest::Answer(answer));
        }
    }
    rest.put_u8(b']');
    let rest = rest.freeze();
    match decode(&rest) {
        Ok(Decoded::Batch(messages)) => {
            (call.text, call.message) = (rest, Subject::Batch(messages));
            Ok(Rest::Call(call))
        }
        // Nothing but answers (2025-03-26 basic/transports, *Sending Messages* 4).
        Ok(Decoded::One(_)) | Err(_) => Ok(Rest::Answer(encode::fault::plain(StatusCode::ACCEPTED))),
    }
}

/// Carries one answer to the replica that asked, under the replica's own id.
async fn carry(
    gateway: &Arc<Gateway>,
    from: &Answerer,
    bound: &Bound,
    (message, text): (&Message, &Bytes),
    permit: Option<Permit>,
) -> Result<Response<ReplyBody>, Refusal> {
    let delivery = deliver(gateway, bound, message, text).await;
    let delivery = delivery.map_err(|fault| fault.told(&from.asker))?;
    let Delivery::Upstream { sealed, text, home, asked } = delivery else {
        gateway.metrics.dropped_messages.inc();
        return Ok(encode::fault::plain(StatusCode::ACCEPTED));
    };
    match Detachable::new(errand(gateway, from, (text, home), permit)).await {
        Ok(answered) if answered.answer.head.status != StatusCode::NOT_FOUND => {
            if asked == Asked::Elsewhere {
                peers::tell_all(gateway, Letter::Answered { question: sealed });
            }
            modern::pass(answered).await
        }
        // Who asked has forgotten the session, has left or is gone, and its call with it: nobody asks any more (SESSIONS 6).
        Ok(_)
        | Err(Refusal {
            fault: Fault::BadHandle | Fault::MakerGone | Fault::OutcomeUnknown { .. }, ..
        }) => {
            gateway.metrics.dropped_messages.inc();
            Ok(encode::fault::plain(StatusCode::ACCEPTED))
        }
        Err(refusal) => {
            undelivered(gateway, &sealed).await;
            Err(refusal)
        }
    }
}

fn errand(
    gateway: &Arc<Gateway>,
    from: &Answerer,
    (text, home): (Bytes, Home),
    permit: Option<Permit>,
) -> Box<Errand> {
    let Home { replica, upstream_session, .. } = home;
    Box::new(Errand {
        gateway: gateway.clone(),
        server: from.server.clone(),
        caller: from.caller.clone(),
        headers: from.headers.clone(),
        method: Verb::POST,
        text,
        rewritten: vec![(MCP_SESSION_ID, upstream_session)],
        asker: from.asker.clone(),
        era: Era::Legacy,
        repeatability: Repeatability::Harmful,
        // To who asked and nowhere else.
        place: Where::Any { maker: Maker::Only(replica), affinity: None },
        among: Among::All,
        cursor: None,
        permit,
        upkeep: None,
        noted: None,
        entry: None,
        journaled: None,
        alarm: None,
    })
}
