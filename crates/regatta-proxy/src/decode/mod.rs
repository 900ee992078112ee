//! The fourth stage: bytes become a `Call`, and headers become facts.
//!
//! Order of checks: RELIABILITY B.1. What a header says is a claim until it has been compared with the body;
//! nothing after this stage reads a mirrored header again. It never forwards and never looks a session up.

mod legacy;

use regatta_mcp::era::{Era, decide};
use regatta_mcp::{Decoded, Kind, Message, Shape, decode as parse};
use regatta_mcp::{headers, modern};

use crate::door::Door;
use crate::fault::{Asker, Fault, Refusal};
use crate::handover::{Admitted, Call, Subject, text_header};
use crate::listener::Arrival;

/// Understands the body and proves the headers against it.
pub(crate) fn decode(admitted: Admitted) -> Result<Box<Call>, Refusal> {
    let Admitted { server, caller, arrival, text, permit } = admitted;
    let message = match parse(&text) {
        Ok(Decoded::One(message)) => Subject::One(message),
        Ok(Decoded::Batch(messages)) => Subject::Batch(messages),
        Err(fault) => {
            let id = fault.id.map(|id| text.slice(id.start as usize..id.end as usize));
            let asker = Asker { id: id.clone(), ..Asker::default() };
            return Err(Fault::Malformed { fault, id }.told(&asker));
        }
    };
    let era = match &message {
        Subject::One(message) => era(message, &arrival.head),
        Subject::Batch(_) => Era::Legacy,
    };
    let Arrival { peer, head, .. } = *arrival;
    let door = server.guard.is_some().then(|| Door::of(&head, &peer));
    let alarm = peer.alarm;
    let call = Box::new(Call { server, caller, door, head, text, message, era, permit, entry: None, alarm });
    let asker = Asker { id: call.id(), era: Some(era), ..Asker::default() };
    match era {
        Era::Modern => check_modern(&call).map_err(|fault| fault.told(&asker))?,
        Era::Legacy => legacy::check(&call).map_err(|fault| fault.told(&asker))?,
    }
    Ok(call)
}

/// The era of one message: by what the body carries first, by the header second (RELIABILITY B.1).
fn era(message: &Message, head: &http::request::Parts) -> Era {
    let is_stated = message.params.meta.protocol_version.is_some();
    let method = message.method.map(|name| name.method);
    decide(is_stated, method, || text_header(head, &headers::MCP_PROTOCOL_VERSION))
}

/// A modern client sends requests and notifications, never answers, never batches
/// (2026-07-28 basic/transports/streamable-http, *Sending Messages* 4).
fn check_modern(call: &Call) -> Result<(), Fault> {
    let Some(message) = call.one() else { return Err(Fault::BatchRefused) };
    match message.kind {
        Kind::Request => modern::check(message, &call.text, &call.head.headers).map_err(Fault::Modern),
        // The revision defines no headers for notifications (*Sending Messages*, note).
        Kind::Notification => Ok(()),
        Kind::Response { .. } => Err(Fault::Malformed {
            fault: regatta_mcp::Malformed {
                fault: Shape::NotRequest,
                id: None,
                why: "a modern client sends no responses",
            },
            id: None,
        }),
    }
}
