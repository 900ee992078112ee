//! May this caller call this tool? Judged after *decode*, on the proven name (RELIABILITY I31).
//!
//! One challenge names all scopes that the call needs, so that its client asks its person once
//! (2026-07-28 basic/authorization, *Runtime Insufficient Scope Errors*).

use regatta_mcp::{Message, Method};

use crate::door::Door;
use crate::fault::{Challenge, Fault, Problem};
use crate::gateway::Gateway;
use crate::handover::{Call, Subject};
use crate::view::ServerView;

/// Refuses a call that its caller has no scope for.
pub(crate) fn check(gateway: &Gateway, call: &Call) -> Result<(), Fault> {
    let Some(guard) = &call.server.guard else { return Ok(()) };
    if guard.rules.tool_scopes.is_empty() {
        return Ok(());
    }
    let messages = match &call.message {
        Subject::One(message) => std::slice::from_ref(message),
        Subject::Batch(messages) => messages,
    };
    messages.iter().try_for_each(|message| judge(gateway, call, message))
}

fn judge(gateway: &Gateway, call: &Call, message: &Message) -> Result<(), Fault> {
    let Some(guard) = &call.server.guard else { return Ok(()) };
    if message.method.map(|name| name.method) != Some(Method::ToolsCall) {
        return Ok(());
    }
    // A call without a readable name is the server's to refuse; it could match no rule anyway.
    let Some(tool) = message.params.name.map(|name| name.get(&call.text)) else { return Ok(()) };
    let tool = Some(&*tool);
    let named =
        guard.rules.tool_scopes.iter().filter(|rule| tool.is_some_and(|tool| rule.tool.matches(tool)));
    let mut needed = named.flat_map(|rule| &rule.scopes).map(String::as_str).peekable();
    let problem = match &call.caller.principal {
        _ if needed.peek().is_none() => return Ok(()),
        Some(principal) if principal.may(needed) => return Ok(()),
        Some(_) => Problem::Scope,
        // Nobody has no scopes, but could become somebody.
        None => Problem::Missing,
    };
    gateway.metrics.unauthorized.inc();
    // Made with every call that a guard lets in; without it there is no word to refuse by, but refused it is.
    let door = call.door.as_ref().ok_or(Fault::KeysAway)?;
    Err(challenge(&call.server, door, problem, tool))
}

/// What a refused client is told: what is wrong, what it needs, and where it learns how to get it.
pub(super) fn challenge(server: &ServerView, door: &Door, problem: Problem, tool: Option<&str>) -> Fault {
    let scopes = server.guard.as_ref().map_or(Vec::new(), |guard| guard.rules.needed_for(tool));
    let scopes = scopes.into_iter().map(str::to_owned).collect();
    Fault::Refused(Box::new(Challenge { problem, scopes, metadata: door.metadata_url(server) }))
}
