//! What a legacy message must satisfy before its session is looked at.
//!
//! Source: 2025-11-25 basic/transports (*Protocol Version Header*, *Sending Messages*) and basic/lifecycle.

use regatta_mcp::Kind;
use regatta_mcp::Method;
use regatta_mcp::{era, headers};

use crate::fault::Fault;
use crate::handover::{Call, Subject};

/// Checks version header and `initialize`; batches wait for the session's version.
pub(super) fn check(call: &Call) -> Result<(), Fault> {
    version(call)?;
    match &call.message {
        Subject::One(message) if message.kind == Kind::Request => {
            let is_initialize = message.method.is_some_and(|name| name.method == Method::Initialize);
            if is_initialize && message.params.protocol_version.is_none() {
                return Err(Fault::BadInitialize { why: "protocolVersion is missing" });
            }
            Ok(())
        }
        Subject::One(_) => Ok(()),
        // Batches went with 2025-06-18; without a session nobody can say that this is an older client.
        Subject::Batch(messages) if call.head.headers.contains_key(headers::MCP_SESSION_ID) => {
            // 2025-03-26 basic/lifecycle: `initialize` MUST NOT be part of a batch.
            let initializes = |name: regatta_mcp::MethodName| name.method == Method::Initialize;
            match messages.iter().filter_map(|message| message.method).any(initializes) {
                true => Err(Fault::BatchRefused),
                false => Ok(()),
            }
        }
        Subject::Batch(_) => Err(Fault::BatchRefused),
    }
}

/// The header may be absent (I108), but what it says must be a version of ours (I107). `initialize` negotiates
/// in its body, so clients may say there what they like.
fn version(call: &Call) -> Result<(), Fault> {
    let Some(value) = call.head.headers.get(headers::MCP_PROTOCOL_VERSION) else { return Ok(()) };
    let is_initialize =
        call.one().and_then(|message| message.method).is_some_and(|name| name.method == Method::Initialize);
    match value.to_str() {
        Ok(text) if era::LEGACY.contains(&text.trim()) || is_initialize => Ok(()),
        Ok(_) | Err(_) => Err(Fault::BadVersion),
    }
}
