//! A client's answer to a server's question: which question, and is it still asked? (SESSIONS 6)

use std::time::Duration;

use bytes::Bytes;
use regatta_mcp::{Message, Text, splice};
use regatta_store::Claim;

use super::seated;
use crate::fault::Fault;
use crate::gateway::Gateway;
use crate::handles;
use crate::peers;
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
        asked: Asked,
    },
    /// Nobody asks any more, or it was answered already: taken and dropped (2025-11-25 basic/transports 4).
    Dropped,
}

/// Where the call that asked runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// In this gateway.
    Here,
    /// In another one, or in none any more.
    Elsewhere,
}

/// How long a question's answer is remembered by all gateways.
const ANSWERED_FOR: Duration = Duration::from_secs(3600);

/// Finds the question that a response answers.
pub(crate) async fn deliver(
    gateway: &Gateway,
    bound: &Bound,
    message: &Message,
    text: &Bytes,
) -> Result<Delivery, Fault> {
    let Some(id) = message.id else { return Ok(Delivery::Dropped) };
    let raw = id.raw.of(text);
    if raw.first() != Some(&b'"') {
        return Ok(Delivery::Dropped);
    }
    let inner = regatta_mcp::Span { start: id.raw.start + 1, end: id.raw.end - 1 };
    let sealed = Text { span: inner, escaped: true }.get(text).into_owned();
    peers::keys::learn_key_of(gateway, &sealed).await?;
    let question = handles::open_question(&gateway.ring.load(), bound.session.uuid, &sealed);
    let Some(question) = question else {
        return Ok(Delivery::Dropped);
    };
    let asks = |home: &Home| question.replica == home.replica && question.etag == home.etag;
    let later = || bound.later().iter().filter_map(seated).find(asks);
    // A stale approval must never answer a new question of another binding.
    let Some(home) = Some(bound.home.clone()).filter(asks).or_else(later) else {
        return Ok(Delivery::Dropped);
    };
    let asked = if gateway.pending.is_asked_here(&sealed) { Asked::Here } else { Asked::Elsewhere };
    match gateway.pending.answer(&sealed) {
        pending::Answer::First if Taking::of(gateway, &sealed).settle_first().await => {
            let text = splice(text, &[(id.raw, Bytes::from(question.id))]);
            Ok(Delivery::Upstream { sealed, text, home, asked })
        }
        pending::Answer::First | pending::Answer::Repeated => Ok(Delivery::Dropped),
    }
}

/// An answer that was taken here and is being claimed from all. Dropped in between, because its client left, it gives
/// back what it took: the client will send the answer again.
struct Taking<'a> {
    gateway: &'a Gateway,
    sealed: &'a str,
    ended: bool,
}

impl<'a> Taking<'a> {
    fn of(gateway: &'a Gateway, sealed: &'a str) -> Taking<'a> {
        Taking { gateway, sealed, ended: false }
    }

    /// Whether no other gateway took an answer to this question. With the store away nobody can tell, and an answer that
    /// came once to each of two gateways reaches its server twice: better than a person's answer that is lost.
    async fn settle_first(mut self) -> bool {
        let gateway = self.gateway;
        let is_first = !gateway.peers.are_many()
            || gateway.store.claim(claim_of(self.sealed), ANSWERED_FOR).await != Ok(Claim::Repeated);
        self.ended = true;
        is_first
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.gateway.pending.unanswer(self.sealed);
        let (store, claim) = (self.gateway.store.clone(), claim_of(self.sealed));
        tokio::spawn(async move { _ = store.release(claim).await });
    }
}

/// The answer could not be delivered: another one counts again, here and everywhere.
pub(crate) async fn undelivered(gateway: &Gateway, sealed: &str) {
    gateway.pending.unanswer(sealed);
    if gateway.peers.are_many() {
        // An answer that is then dropped elsewhere was refused here: its client was told to try again.
        let _ = gateway.store.release(claim_of(sealed)).await;
    }
}

fn claim_of(sealed: &str) -> [u8; 16] {
    regatta_seal::digest16(&[b"answer", sealed.as_bytes()])
}
