//! What a session tells its server that a later home must be told again: log level, live subscriptions.
//!
//! A subscription is written down before it is forwarded and removed if the server refuses it (SESSIONS 3), so a
//! crash in between leaves one too many, never one too few. The level is written down once it was accepted.

use std::sync::Arc;

use http::{Response, StatusCode};
use regatta_mcp::Method;
use regatta_policy::deviation::{Change, LogLevel};

use super::record;
use crate::fault::{Fault, Refusal};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::reply::ReplyBody;
use crate::session::Bound;

/// A bound call whose note was taken.
pub(crate) struct Noted {
    pub bound: Bound,
    note: Note,
}

enum Note {
    Nothing,
    Level(LogLevel),
    Subscribed(String),
    Unsubscribed(String),
}

/// Takes the note of a call, before it is forwarded.
pub(crate) async fn before(gateway: &Arc<Gateway>, call: &Call, bound: &Bound) -> Result<Noted, Fault> {
    let Some(message) = call.one() else { return Ok(Noted { bound: bound.clone(), note: Note::Nothing }) };
    let text = |text: regatta_mcp::Text| text.get(&call.text).into_owned();
    let level = message.params.level.and_then(|level| LogLevel::named(&level.get(&call.text)));
    let uri = message.params.uri.map(text);
    let note = match (message.method.map(|name| name.method), level, uri) {
        (Some(Method::LoggingSetLevel), Some(level), _) => Note::Level(level),
        (Some(Method::ResourcesSubscribe), _, Some(uri)) => Note::Subscribed(uri),
        (Some(Method::ResourcesUnsubscribe), _, Some(uri)) => Note::Unsubscribed(uri),
        (_, _, _) => Note::Nothing,
    };
    let bound = match &note {
        Note::Subscribed(uri) => record::change(gateway, bound, Change::Subscribe(uri)).await?,
        Note::Nothing | Note::Level(_) | Note::Unsubscribed(_) => bound.clone(),
    };
    Ok(Noted { bound, note })
}

/// Settles the note, once the server has answered.
pub(crate) async fn after(
    gateway: &Arc<Gateway>,
    noted: Noted,
    result: &Result<Response<ReplyBody>, Refusal>,
) {
    let accepted = result.as_ref().is_ok_and(|response| response.status() == StatusCode::OK);
    let settled = match (&noted.note, accepted) {
        (Note::Nothing, _)
        | (Note::Subscribed(_), true)
        | (Note::Level(_) | Note::Unsubscribed(_), false) => return,
        (Note::Level(level), true) => {
            record::change(gateway, &noted.bound, Change::SetLogLevel(*level)).await
        }
        (Note::Unsubscribed(uri), true) | (Note::Subscribed(uri), false) => {
            record::change(gateway, &noted.bound, Change::Unsubscribe(uri)).await
        }
    };
    if settled.is_err() {
        tracing::warn!("a session's note could not be stored: a later home will not be told of it");
    }
}
