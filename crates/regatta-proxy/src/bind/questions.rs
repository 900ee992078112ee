//! A client's answer to a server's question: which question, and is it still asked? (SESSIONS 6)

use bytes::Bytes;
use regatta_mcp::{Message, Text, splice};

use super::seated;
use crate::gateway::Gateway;
use crate::handles;
use crate::pending;
use crate::session::{Bound, Home};

/// What becomes of an answer.
pub(crate) enum Delivery {
    /// It goes to the bound replica, under the replica's own id.
    Upstream {
        /// The id that the client knew it by.
        sealed: String,
        text: Bytes,
        /// Who asked.
        home: Home,
    },
    /// Nobody asks any more, or it was answered already: taken and dropped (2025-11-25 basic/transports 4).
    Dropped,
}

/// Finds the question that a response answers.
pub(crate) fn deliver(gateway: &Gateway, bound: &Bound, message: &Message, text: &Bytes) -> Delivery {
    let Some(id) = message.id else { return Delivery::Dropped };
    let raw = id.raw.of(text);
    if raw.first() != Some(&b'"') {
        return Delivery::Dropped;
    }
    let inner = regatta_mcp::Span { start: id.raw.start + 1, end: id.raw.end - 1 };
    let sealed = Text { span: inner, escaped: true }.get(text).into_owned();
    let ring = gateway.ring.load();
    let Some(question) = handles::open_question(&ring, bound.session.uuid, &sealed) else {
        return Delivery::Dropped;
    };
    let asks = |home: &Home| question.replica == home.replica && question.etag == home.etag;
    let later = || bound.later().iter().filter_map(seated).find(asks);
    // A stale approval must never answer a new question of another binding.
    let Some(home) = Some(bound.home.clone()).filter(asks).or_else(later) else {
        return Delivery::Dropped;
    };
    match gateway.pending.answer(&sealed) {
        pending::Answer::Repeated => Delivery::Dropped,
        pending::Answer::First => {
            let text = splice(text, &[(id.raw, Bytes::from(question.id))]);
            Delivery::Upstream { sealed, text, home }
        }
    }
}
