//! The seventh stage: was this asked before, by somebody who may share the answer?
//!
//! Calls of tools that a rule names (DESIGN 9), and lists and reads as far as their server's word counts. It looks and
//! never waits: who finds nothing is told under which key to ask. A request that carries a person's input is nobody
//! else's (2026-07-28 server/utilities/caching, *Cache Key*), and neither is one whose scope has no value.

mod lists;
mod surroundings;
mod tools;

use std::borrow::Cow;
use std::sync::Arc;

use regatta_cache::{About, Fields, Kept, Key, Looked, OnShelf, Status};
use regatta_mcp::era::Era;
use regatta_mcp::headers::MCP_PROTOCOL_VERSION;
use regatta_mcp::{Kind, Message, Method};

use crate::gateway::Gateway;
use crate::handover::{Call, text_header};
use crate::session::Bound;
use crate::upkeep::{Asking, By, Fill, Touch};

/// What the cache has to do with a call.
pub(crate) struct Consulted {
    pub look: Look,
    /// What the call makes old.
    pub touch: Option<Touch>,
}

/// What the cache has for a call.
pub(crate) enum Look {
    /// Nothing, and it wants nothing.
    Aside,
    /// The answer; and the duty to fetch it anew, if that is due.
    Found { kept: Arc<Kept>, status: Status, refresh: Option<Fill> },
    /// Nothing yet.
    Asks(Asking),
}

/// Asks the cache about a call.
pub(crate) fn consult(gateway: &Gateway, call: &Call, bound: Option<&Bound>) -> Consulted {
    const NOTHING: Consulted = Consulted { look: Look::Aside, touch: None };
    let Some(message) = call.one().filter(|message| message.kind == Kind::Request) else { return NOTHING };
    match message.method() {
        Some(Method::ToolsCall) if call.server.results.rules.is_empty() => NOTHING,
        Some(Method::ToolsCall) => tools::consult(gateway, call, message, bound),
        Some(method) => match call.server.results.read(method) {
            Some(read) => Consulted {
                look: lists::look(gateway, call, (message, method, read), bound),
                touch: lists::touch(call, message, method),
            },
            None => NOTHING,
        },
        None => NOTHING,
    }
}

/// Whether an answer to the call may be kept, by what it asks for.
pub(crate) fn may_keep(call: &Call) -> bool {
    let rules = &call.server.results;
    let Some(message) = call.one().filter(|message| message.kind == Kind::Request) else { return false };
    match (message.method(), message.params.name) {
        (Some(Method::ToolsCall), Some(tool)) => {
            let tool = tool.get(&call.text);
            rules.rules.iter().any(|view| view.rule.tool.matches(&tool))
        }
        (Some(method), _) => rules.read(method).is_some(),
        (None, _) => false,
    }
}

/// A request that carries a person's answer, or goes on with one that did.
fn is_personal(message: &Message) -> bool {
    message.params.request_state.is_some() || message.params.has_input_responses
}

/// The version that the request was negotiated with.
fn version<'a>(call: &'a Call, message: &Message, bound: Option<&Bound>) -> Cow<'a, str> {
    match (call.era, bound) {
        (Era::Modern, _) => {
            message.params.meta.protocol_version.map_or(Cow::Borrowed(""), |version| version.get(&call.text))
        }
        (Era::Legacy, Some(bound)) => Cow::Borrowed(bound.session.content.version.as_str()),
        (Era::Legacy, None) => {
            Cow::Borrowed(text_header(&call.head, &MCP_PROTOCOL_VERSION).unwrap_or_default())
        }
    }
}

/// In what the request was made: what a session holds may change what its server says.
fn place(bound: Option<&Bound>) -> &'static str {
    match bound {
        Some(_) => "session",
        None => "",
    }
}

/// Looks for what has these fields. What a server or other gateways are to be asked for is worked out only if they are:
/// the key that the fleet knows costs as much as all the rest.
fn look_under(
    gateway: &Gateway,
    call: &Call,
    (fields, by): (&Fields<'_>, By),
    about: impl Fn(Option<OnShelf>) -> About,
) -> Look {
    let rules = &call.server.results;
    let about = || {
        let shelf = rules.shelf.clone();
        about(shelf.map(|shelf| OnShelf { shelf, key: Key::of(fields) }))
    };
    let key = gateway.results.cache.name(fields);
    match gateway.results.cache.look(&key, gateway.clock.now(), gateway.dice(), about) {
        Looked::Found { kept, status, refresh } => {
            let refresh = refresh.map(|lead| Fill { rules: rules.clone(), by, lead });
            Look::Found { kept, status, refresh }
        }
        Looked::Nothing { spare } => {
            Look::Asks(Asking { rules: rules.clone(), by, key, about: about(), spare })
        }
    }
}
