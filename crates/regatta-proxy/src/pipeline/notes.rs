//! What a session tells its server that a later home must be told again: log level, live subscriptions.
//!
//! A subscription is written down before it is forwarded and removed if the server refuses it (SESSIONS 3), so a
//! crash in between leaves one too many, never one too few. The level is written down once it was accepted. What waits
//! for the server's word travels with the call, so that it is settled whether or not the client waits for it.

use std::sync::Arc;

use bytes::Bytes;
use regatta_mcp::{Message, Method, SkimKind, documents, skim};
use regatta_policy::deviation::{Change, LogLevel};
use tokio::task::JoinHandle;

use super::{later, record};
use crate::encode::answer::same_id;
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::headers::Outbound;
use crate::session::Bound;
use crate::view::ServerView;

/// What is written down of a call.
pub(crate) enum Note {
    Level(LogLevel),
    Subscribed(String),
    Unsubscribed(String),
}

/// The note of a message that stands in `text`, if it is one of those few.
pub(crate) fn note(message: &Message, text: &Bytes) -> Option<Note> {
    let uri = |make: fn(String) -> Note| message.params.uri.map(|uri| make(uri.get(text).into_owned()));
    match message.method?.method {
        Method::LoggingSetLevel => LogLevel::named(&message.params.level?.get(text)).map(Note::Level),
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

/// Writes down what a batch (2025-03-26 only) asks for. Its answers come mixed or not at all, so a level counts as accepted
/// and an end of a subscription as refused: a later home is told of one too many, never of one too few.
pub(crate) async fn of_batch(
    gateway: &Arc<Gateway>,
    mut bound: Bound,
    messages: &[Message],
    text: &Bytes,
) -> Result<Bound, Fault> {
    for note in messages.iter().filter_map(|message| note(message, text)) {
        bound = match &note {
            Note::Level(level) => record::change(gateway, &bound, Change::SetLogLevel(*level)).await?,
            Note::Subscribed(_) | Note::Unsubscribed(_) => before(gateway, bound, &note).await?,
        };
    }
    Ok(bound)
}

/// A note whose server has not answered yet.
pub(crate) struct Noted {
    pub gateway: Arc<Gateway>,
    pub server: Arc<ServerView>,
    pub client: Outbound,
    pub bound: Bound,
    pub note: Note,
}

/// What the server said to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Yes,
    /// A refusal, or nothing that is a response.
    No,
}

impl Word {
    /// The server's word in `text`, one message or several, to the request `id`.
    pub fn of(text: &Bytes, id: Option<&Bytes>) -> Word {
        let words = documents(text).filter_map(|span| {
            let document = span.of(text);
            let seen = skim(document).ok()?;
            let is_ours = match (id, seen.id) {
                (Some(asked), Some(answered)) => same_id(asked, answered.of(document)),
                (Some(_), None) | (None, _) => true,
            };
            match seen.kind {
                SkimKind::Response { failed: false } if is_ours => Some(Word::Yes),
                SkimKind::Response { failed: true } if is_ours => Some(Word::No),
                SkimKind::Response { .. } | SkimKind::Request | SkimKind::Notification => None,
            }
        });
        words.last().unwrap_or(Word::No)
    }
}

impl Noted {
    /// Settles the note, in a task of its own: who waits for it may go away.
    pub fn settle(self: Box<Self>, word: Word) -> JoinHandle<()> {
        tokio::spawn(async move {
            let Noted { gateway, server, client, bound, note } = *self;
            let told = bound.home.clone();
            let change = match (&note, word) {
                (Note::Subscribed(_), Word::Yes) | (Note::Level(_) | Note::Unsubscribed(_), Word::No) => {
                    return;
                }
                (Note::Level(level), Word::Yes) => Change::SetLogLevel(*level),
                (Note::Unsubscribed(uri), Word::Yes) | (Note::Subscribed(uri), Word::No) => {
                    Change::Unsubscribe(uri)
                }
            };
            let Ok(bound) = record::change(&gateway, &bound, change).await else {
                tracing::warn!("a session's note could not be stored: a later home will not be told of it");
                return;
            };
            if let Change::SetLogLevel(_) = change {
                later::repeat_level(&server, &bound, &client, &told).await;
            }
        })
    }
}
