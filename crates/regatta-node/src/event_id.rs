//! Ids of events: what a client gives back in `Last-Event-ID`, sealed, for its session and caller only.

use regatta_store::{GatewayId, StreamName, Uuid16};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::caller::Caller;
use crate::sealing::Closed;
use crate::session::Sessions;

/// Characters of an id that are looked at.
const ID_MAX: usize = 1024;

/// Which stream an event is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Of {
    /// The session's standing stream.
    Standing,
    /// The stream of the request with this id, at this node; and the name of its call, if that is in the journal.
    Call {
        owner: [u8; 8],
        number: u64,
        id: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<[u8; 32]>,
    },
}

/// What an id says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventId {
    session: [u8; 16],
    pub(crate) of: Of,
    /// Its place in the stream; 0 is before the first message.
    pub(crate) sequence: u64,
}

/// Makes the ids of one stream.
#[derive(Clone)]
pub(crate) struct Ids {
    pub(crate) sessions: std::sync::Arc<Sessions>,
    pub(crate) caller: Caller,
    pub(crate) session: [u8; 16],
    pub(crate) of: Of,
}

impl Ids {
    pub(crate) fn of(&self, sequence: u64) -> String {
        let says = EventId { session: self.session, of: self.of.clone(), sequence };
        let plain = serde_json::to_vec(&says).unwrap_or_default();
        self.sessions.sealing.seal(&associated(&self.sessions, &self.caller), &plain)
    }
}

/// What an id of this session says.
pub(crate) async fn open(
    sessions: &Sessions,
    caller: Caller,
    session: [u8; 16],
    id: &str,
) -> Result<EventId, Closed> {
    if id.len() > ID_MAX {
        return Err(Closed::Foreign);
    }
    let plain = sessions.sealing.open(&*sessions.store, &associated(sessions, &caller), id).await?;
    let says: EventId = serde_json::from_slice(&plain).map_err(|_| Closed::Foreign)?;
    if says.session == session { Ok(says) } else { Err(Closed::Foreign) }
}

fn associated<'a>(sessions: &'a Sessions, caller: &'a Caller) -> [&'a [u8]; 3] {
    [b"regatta-node event", sessions.server.as_bytes(), &caller.0]
}

/// The name of a call's stream.
pub(crate) fn stream(session: [u8; 16], number: u64) -> StreamName {
    StreamName { session: Uuid16(session), number }
}

impl EventId {
    /// Whose stream it is, and which.
    pub(crate) fn call(&self) -> Option<(GatewayId, StreamName, &Value)> {
        match &self.of {
            Of::Standing => None,
            Of::Call { owner, number, id, .. } => {
                Some((GatewayId(*owner), stream(self.session, *number), id))
            }
        }
    }
}
