//! Batches, which only 2025-03-26 has: an array of messages in, an array of responses out.
//!
//! Answered whole as JSON when the last is done. A tool that must talk to the client on the way says that it cannot.

use super::State;
use super::endpoint::{Body, accepted, failed, json};
use super::legacy::{self, Answered};
use super::slow::{self, Slow};
use super::tools::{error_members, text_members};
use super::wire::{self, Fault, INVALID_REQUEST, Message, PARSE};
use hyper::header::HeaderMap;
use hyper::{Response, StatusCode};
use serde_json::value::RawValue;
use std::sync::Arc;

const BATCH_MAX: usize = 64;

/// One POST whose body is an array.
pub async fn post(state: Arc<State>, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let refuse = |code, why| failed(StatusCode::BAD_REQUEST, None, &Fault::new(code, why));
    let session = match legacy::session(&state, headers) {
        Ok(session) => session,
        Err(refusal) => return refusal.into(),
    };
    if session.agreed.version != "2025-03-26" {
        return refuse(INVALID_REQUEST, "this version has no batches");
    }
    let Ok(messages) = serde_json::from_slice::<Vec<&RawValue>>(body) else {
        return refuse(PARSE, "the body is no JSON");
    };
    if messages.is_empty() || messages.len() > BATCH_MAX {
        return refuse(INVALID_REQUEST, "a batch has 1 to 64 messages");
    }
    let mut responses = Vec::new();
    for raw in messages {
        match wire::read(raw.get().as_bytes()) {
            Err((id, fault)) => responses.push(wire::error(id.as_deref(), &fault)),
            Ok(Message::Request { id, method, params }) => {
                let answered = match legacy::answer(&state, &session, method.as_str(), &params) {
                    Ok(Answered::Done(members)) => Ok(members),
                    Ok(Answered::Slow(slow)) => Ok(alone(slow).await),
                    Err(fault) => Err(fault),
                };
                responses.push(match answered {
                    Ok(members) => wire::result(id, &members),
                    Err(fault) => wire::error(Some(id), &fault),
                });
            }
            Ok(Message::Notification { method, params }) => {
                legacy::notified(&session, method.as_str(), &params)
            }
            Ok(Message::Response { id, result }) => session.answer(id, result.map(RawValue::get)),
        }
    }
    if responses.is_empty() {
        return accepted();
    }
    json(StatusCode::OK, format!("[{}]", responses.join(",")))
}

async fn alone(slow: Slow) -> String {
    match slow {
        Slow::Sleep { ms } => slow::sleep(ms, None).await,
        Slow::Log { .. } => text_members("logged nowhere: a batch has no stream"),
        Slow::Ask { .. } | Slow::Sample { .. } => error_members("a batch has no stream to ask on"),
    }
}
