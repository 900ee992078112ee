//! The standing stream of a session, handed from one gateway to another (SESSIONS 5).
//!
//! A server gives a session one standing stream, and a gateway holds on to it for a while after its client left. Whoever
//! opens one asks the others to let go of theirs; only a gateway whose client still reads refuses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regatta_store::{GatewayId, Uuid16};
use tokio::sync::watch;

use super::letter::{Context, Hold, Letter};
use super::post;
use crate::gateway::Gateway;

/// How long a holder may take to say whether it lets go.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Requests for release that wait for their answer, by ticket. Bounded by the GETs that wait.
#[derive(Default)]
pub(crate) struct Tickets {
    open: Mutex<HashMap<u64, watch::Sender<Option<Hold>>>>,
}

/// A request for release.
pub(crate) struct Asked {
    gateway: Arc<Gateway>,
    ticket: u64,
    answer: watch::Receiver<Option<Hold>>,
}

/// Asks all others to let go of the standing stream of `session`. Returns at once.
pub(crate) fn ask(gateway: &Arc<Gateway>, session: Uuid16, context: Context) -> Option<Asked> {
    if !gateway.peers.are_many() {
        return None;
    }
    let ticket = regatta_seal::random_u64();
    let (sender, answer) = watch::channel(None);
    gateway.peers.tickets.lock().insert(ticket, sender);
    let asker = gateway.clone();
    tokio::spawn(async move {
        post(&asker, GatewayId::EVERYBODY, &Letter::Release { session, context, ticket }).await;
    });
    Some(Asked { gateway: gateway.clone(), ticket, answer })
}

impl Asked {
    /// What a holder says; `LetGo` if there is none that says anything in time.
    pub async fn answer(mut self) -> Hold {
        let answered = self.answer.wait_for(Option::is_some);
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(hold)) => hold.unwrap_or(Hold::LetGo),
            Ok(Err(_)) | Err(_) => Hold::LetGo,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.gateway.peers.tickets.lock().remove(&self.ticket);
    }
}

impl Tickets {
    /// A holder has answered.
    pub fn settle(&self, ticket: u64, hold: Hold) {
        if let Some(sender) = self.lock().get(&ticket) {
            // Of several holders the one whose client reads decides.
            sender.send_modify(|known| {
                *known = Some(if *known == Some(Hold::Kept) { Hold::Kept } else { hold });
            });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, watch::Sender<Option<Hold>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Another gateway opens the standing stream of `session`.
pub(super) fn demanded(
    gateway: &Arc<Gateway>,
    from: GatewayId,
    session: Uuid16,
    context: Context,
    ticket: u64,
) {
    let Some(stream) = gateway.streams.standing(session) else { return };
    let hold = if stream.is_read() || super::context_of(&stream.caller) != context {
        Hold::Kept
    } else {
        // Its source goes with it, and with that the server's stream.
        let turned = stream.end(None);
        gateway.note_turn(&stream, turned);
        Hold::LetGo
    };
    let gateway = gateway.clone();
    tokio::spawn(async move { post(&gateway, from, &Letter::Released { ticket, hold }).await });
}
