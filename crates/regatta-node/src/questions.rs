//! Questions to clients (sampling, elicitation, roots) that wait for their answers.
//!
//! Whoever asked waits here; the answer may come to any node. That node puts it into the store and tells the one that
//! asked, whose name is in the question's id. An answer is taken only from the session that was asked, and once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Course, GatewayId, SpilledEvent, StoreError, StreamName, Uuid16};
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId};
use tokio::sync::mpsc;

use crate::clock::Pause;
use crate::post::{Letter, Post};

/// What the id of a question begins with.
const PREFIX: &str = "ask-";
/// How often the store is asked for answers whose letters were lost.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// All questions that this node asked and nobody answered yet.
pub(crate) struct Questions {
    open: Mutex<HashMap<u64, Waiting>>,
    max: usize,
}

struct Waiting {
    session: [u8; 16],
    /// The id as the handler's service knows it.
    raw: RequestId,
    inbox: mpsc::Sender<ClientJsonRpcMessage>,
    /// The call's time stands still.
    _pause: Pause,
}

impl Questions {
    pub(crate) fn new(max: usize) -> Questions {
        Questions { open: Mutex::default(), max }
    }

    /// Notes a question; its number, or `None`: too many wait.
    pub(crate) fn ask(
        &self,
        session: [u8; 16],
        raw: RequestId,
        inbox: mpsc::Sender<ClientJsonRpcMessage>,
        pause: Pause,
    ) -> Option<u64> {
        let mut open = self.open();
        if open.len() >= self.max {
            return None;
        }
        let number = regatta_seal::random_u64();
        open.insert(number, Waiting { session, raw, inbox, _pause: pause });
        Some(number)
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self, number: u64) {
        self.open().remove(&number);
    }

    /// Questions that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.open().len()
    }

    /// Gives an answer to who waits for it in this session.
    fn give(&self, session: [u8; 16], number: u64, mut answer: ClientJsonRpcMessage) {
        let waiting = {
            let mut open = self.open();
            let is_asked = open.get(&number).is_some_and(|waiting| waiting.session == session);
            if is_asked { open.remove(&number) } else { None }
        };
        let Some(waiting) = waiting else { return };
        match &mut answer {
            JsonRpcMessage::Response(response) => response.id = waiting.raw,
            JsonRpcMessage::Error(error) => error.id = Some(waiting.raw),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => return,
        }
        // A call has few questions, and its inbox more room.
        let _ = waiting.inbox.try_send(answer);
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        // Nothing is left half done while it is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of a question on the wire.
pub(crate) fn wire_id(own: GatewayId, number: u64) -> RequestId {
    RequestId::String(format!("{PREFIX}{own}-{number:016x}").into())
}

fn parse(id: &RequestId) -> Option<(GatewayId, u64)> {
    let RequestId::String(id) = id else { return None };
    let (owner, number) = id.strip_prefix(PREFIX)?.split_once('-')?;
    let owner = u64::from_str_radix(owner, 16).ok()?;
    Some((GatewayId(owner.to_be_bytes()), u64::from_str_radix(number, 16).ok()?))
}

fn place(session: [u8; 16], number: u64) -> StreamName {
    StreamName { session: Uuid16(session), number }
}

/// Takes a client's answer, whoever asked.
///
/// # Errors
/// The store could not take it: the client may send it again.
pub(crate) async fn take(
    questions: &Questions,
    post: &Post,
    session: [u8; 16],
    answer: ClientJsonRpcMessage,
) -> Result<(), StoreError> {
    let id = match &answer {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
    };
    // What nobody asked is passed over: the client cannot do anything about it.
    let Some((owner, number)) = id.and_then(parse) else { return Ok(()) };
    if owner == post.own {
        questions.give(session, number, answer);
        return Ok(());
    }
    let bytes = Bytes::from(serde_json::to_vec(&answer).unwrap_or_default());
    let event = SpilledEvent { sequence: 0, bytes };
    post.store.spill(place(session, number), vec![event], Course::Ended).await?;
    post.send(owner, Letter::Answered { session, question: number }).await;
    Ok(())
}

/// Looks into the store for the answer to one question.
pub(crate) async fn look(questions: &Questions, post: &Post, session: [u8; 16], number: u64) {
    let name = place(session, number);
    let Ok(Some(recalled)) = post.store.recall(name, 0, 1).await else { return };
    let Some(event) = recalled.events.first() else { return };
    if let Ok(answer) = serde_json::from_slice(&event.bytes) {
        questions.give(session, number, answer);
    }
    let _ = post.store.discard(name).await;
}

/// Looks now and then for answers whose letters were lost.
pub(crate) async fn look_for_all(questions: Arc<Questions>, post: Arc<Post>) {
    if !post.is_shared {
        return;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let open: Vec<_> =
            questions.open().iter().map(|(number, waiting)| (waiting.session, *number)).collect();
        for (session, number) in open {
            look(&questions, &post, session, number).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_question_names_who_asked() {
        let own = GatewayId([0xab; 8]);
        assert_eq!(parse(&wire_id(own, 7)), Some((own, 7)));
        for foreign in ["ask-", "ask-1", "7", "ask-xyz-1"] {
            assert_eq!(parse(&RequestId::String(foreign.into())), None, "{foreign}");
        }
        assert_eq!(parse(&RequestId::Number(7)), None);
    }
}
