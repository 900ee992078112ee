//! Handles in a modern request: who made them, and what the maker called them (SESSIONS 7).
//!
//! `requestState`, task ids and (with `cursors = "replica"`) cursors are unwrapped in body and `Mcp-Name` alike.
//! A `requestState` that does not open is nothing that this fleet gave out: −32602, and nothing is forwarded. A task
//! id that does not open goes up as an id that no server ever made: the server knows whether it has tasks at all
//! (−32601), and whether this client may ask (−32021), before the id matters (−32602).

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use regatta_mcp::headers::{MCP_NAME, encode_name};
use regatta_mcp::{Method, NameSource, Text, splice, write};
use regatta_policy::ReplicaId;
use regatta_policy::ids::stable_hash;
use regatta_policy::snapshot::{Affinity, Cursors};
use regatta_seal::{Fingerprint, KeyRing, Purpose, random_u64};

use crate::fault::Fault;
use crate::handles::open;
use crate::handover::Call;
use crate::realm::Realm;

/// Where a modern request should go, and what it says there.
pub(crate) struct Directions {
    pub maker: Maker,
    pub affinity: Option<u64>,
    /// The body with its handles unwrapped.
    pub text: Bytes,
    /// Headers that mirror what was unwrapped.
    pub rewritten: Vec<(HeaderName, HeaderValue)>,
    /// The key of a task id, so that the answer names the task by the same text.
    pub key: Option<Fingerprint>,
}

/// Who has to serve the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Anybody.
    Nobody,
    /// This replica; another one may try if it is gone.
    Preferred(ReplicaId),
    /// This replica and no other.
    Only(ReplicaId),
}

/// Reads the handles of a call.
pub(crate) fn directions(call: &Call, ring: &KeyRing) -> Result<Directions, Fault> {
    let affinity = affinity(call);
    let mut directions = Directions {
        maker: Maker::Nobody,
        affinity,
        text: call.text.clone(),
        rewritten: Vec::new(),
        key: None,
    };
    let Some(message) = call.one() else { return Ok(directions) };
    let realm = Realm::of(&call.server, &call.caller);
    let mut cuts = Vec::new();
    if let Some(state) = message.params.request_state {
        let handle =
            open(ring, Purpose::RequestState, realm, &state.get(&call.text)).ok_or(Fault::BadHandle)?;
        directions.maker = Maker::Preferred(handle.maker);
        cuts.push(cut(state, &handle.text));
    }
    let names_task = message.method.is_some_and(|name| name.method.name_source() == NameSource::TaskId);
    if let (true, Some(task)) = (names_task, message.params.task_id) {
        let inner = match open(ring, Purpose::Task, realm, &task.get(&call.text)) {
            Some(handle) => {
                directions.maker = Maker::Only(handle.maker);
                directions.key = Some(handle.key);
                handle.text
            }
            // Never the client's own text: it could be guessed to be somebody else's task.
            None => format!("unknown-{:016x}{:016x}", random_u64(), random_u64()),
        };
        cuts.push(cut(task, &inner));
        directions.rewritten.push((MCP_NAME, encode_name(&inner)));
    }
    if let (Cursors::Replica, Some(cursor)) = (call.server.server.cursors, message.params.cursor) {
        let handle = open(ring, Purpose::Cursor, realm, &cursor.get(&call.text)).ok_or(Fault::BadHandle)?;
        directions.maker = Maker::Only(handle.maker);
        cuts.push(cut(cursor, &handle.text));
    }
    if !cuts.is_empty() {
        cuts.sort_unstable_by_key(|(span, _)| span.start);
        directions.text = splice(&call.text, &cuts);
    }
    Ok(directions)
}

fn cut(text: Text, with: &str) -> (regatta_mcp::Span, Bytes) {
    (text.outer(), Bytes::from(write::json_string(with)))
}

/// A soft preference, where the operator asked for one.
fn affinity(call: &Call) -> Option<u64> {
    match &call.server.server.affinity {
        Affinity::None => None,
        Affinity::Principal => Some(stable_hash(&[&call.caller.account.0])),
        Affinity::Header(name) => {
            call.head.headers.get(name.as_str()).map(|value| stable_hash(&[value.as_bytes()]))
        }
        Affinity::Argument(name) => argument(call, name),
    }
}

fn argument(call: &Call, name: &str) -> Option<u64> {
    let message = call.one()?;
    if message.method?.method != Method::ToolsCall {
        return None;
    }
    let arguments: std::collections::HashMap<String, &serde_json::value::RawValue> =
        serde_json::from_slice(message.params.arguments?.of(&call.text)).ok()?;
    arguments.get(name).map(|value| stable_hash(&[value.get().as_bytes()]))
}
