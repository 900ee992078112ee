//! What a session tells its server that a later home must be told again: log level, live subscriptions.
//!
//! A subscription is written down before it is forwarded and removed if the server refuses it (SESSIONS 3), so a
//! crash in between leaves one too many, never one too few. The level is written down once it was accepted.

use std::sync::Arc;

use http::{Response, StatusCode};
use regatta_mcp::{Method, SkimKind, skim};
use regatta_policy::deviation::{Change, LogLevel};

use super::record;
use crate::fault::{Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::reply::ReplyBody;
use crate::session::Bound;

/// What is written down of a call.
pub(crate) enum Note {
    Level(LogLevel),
    Subscribed(String),
    Unsubscribed(String),
}

/// The note of a call, if it is one of those few.
pub(crate) fn note(call: &Call) -> Option<Note> {
    let message = call.one()?;
    let uri = |make: fn(String) -> Note| message.params.uri.map(|uri| make(uri.get(&call.text).into_owned()));
    match message.method?.method {
        Method::LoggingSetLevel => LogLevel::named(&message.params.level?.get(&call.text)).map(Note::Level),
        Method::ResourcesSubscribe => uri(Note::Subscribed),
        Method::ResourcesUnsubscribe => uri(Note::Unsubscribed),
        _unnoted => None,
    }
}

/// Writes down what must be known before the call is forwarded.
pub(crate) async fn before(gateway: &Arc<Gateway>, bound: Bound, note: &Note) -> Result<Bound, Fault> {
    match note {
        Note::Subscribed(uri) => record::change(gateway, &bound, Change::Subscribe(uri)).await,
        Note::Level(_) | Note::Unsubscribed(_) => Ok(bound),
    }
}

/// Settles the note, once the server has answered.
pub(crate) async fn after(
    gateway: &Arc<Gateway>,
    bound: &Bound,
    note: &Note,
    result: &Result<Response<ReplyBody>, Refusal>,
) {
    let accepted = result.as_ref().is_ok_and(is_accepted);
    let change = match (note, accepted) {
        (Note::Subscribed(_), true) | (Note::Level(_) | Note::Unsubscribed(_), false) => return,
        (Note::Level(level), true) => Change::SetLogLevel(*level),
        (Note::Unsubscribed(uri), true) | (Note::Subscribed(uri), false) => Change::Unsubscribe(uri),
    };
    if record::change(gateway, bound, change).await.is_err() {
        tracing::warn!("a session's note could not be stored: a later home will not be told of it");
    }
}

/// An answer in events is taken for a yes: its response is still to come, and one too many does no harm.
fn is_accepted(response: &Response<ReplyBody>) -> bool {
    let said_no = |text| matches!(skim(text), Ok(skim) if skim.kind == SkimKind::Response { failed: true });
    response.status() == StatusCode::OK && !response.body().text().is_some_and(|text| said_no(text))
}
