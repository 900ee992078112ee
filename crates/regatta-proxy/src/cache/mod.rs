//! The seventh stage: was this asked before, by somebody who may share the answer?
//!
//! Only `tools/call` of tools that a rule names (DESIGN 9). It looks and never waits: who finds nothing is told under
//! which key to ask. A request that carries a person's input is nobody else's (2026-07-28
//! server/utilities/caching, *Cache Key*), and neither is one whose scope has no value.

mod surroundings;

use std::borrow::Cow;
use std::sync::Arc;

use regatta_cache::{About, Fields, Kept, Key, Lead, Looked, Purge, ScopeValue, Status, call_digest};
use regatta_mcp::era::Era;
use regatta_mcp::headers::MCP_PROTOCOL_VERSION;
use regatta_mcp::{Kind, Message, Method, canonical, canonical_params};
use regatta_policy::cache::Scope;

use crate::gateway::Gateway;
use crate::handover::{Call, text_header};
use crate::results::{RuleView, ServerRules};
use crate::session::Bound;
use crate::upkeep::{Asking, Fill, Touch};

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
    let rules = &call.server.results;
    if rules.rules.is_empty() {
        return Consulted { look: Look::Aside, touch: None };
    }
    let Some((message, tool)) = tool_call(call) else { return Consulted { look: Look::Aside, touch: None } };
    let touched = rules.rules.iter().filter(|view| view.rule.is_invalidated_by(&tool));
    let touched = touched.map(|view| Purge::of_tools(&view.rule.tool)).collect();
    let look = match asked(call, bound, message, &tool) {
        Some((rule, key)) => look(gateway, call, (rule, key), (message, &tool)),
        None => Look::Aside,
    };
    Consulted { look, touch: Touch::new(&rules.purges, touched) }
}

fn tool_call(call: &Call) -> Option<(&Message, Cow<'_, str>)> {
    let message = call.one().filter(|message| message.kind == Kind::Request)?;
    let method = message.method()?;
    let name = message.params.name.filter(|_| method == Method::ToolsCall)?;
    Some((message, name.get(&call.text)))
}

/// The rule for the call and the key of its result; none if it is not to be looked for.
fn asked(call: &Call, bound: Option<&Bound>, message: &Message, tool: &str) -> Option<(usize, Key)> {
    let ServerRules { rules, .. } = &*call.server.results;
    let rule = rules.iter().position(|view| view.rule.tool.matches(tool))?;
    if message.params.request_state.is_some() || message.params.has_input_responses {
        return None;
    }
    let RuleView { rule: content, version: policy, .. } = &rules[rule];
    let surroundings = surroundings::of(call, &content.scope);
    let scope = match &content.scope {
        Scope::Principal => ScopeValue::Principal(&call.caller.context),
        Scope::Public => ScopeValue::Public,
        Scope::Session => ScopeValue::Session(&bound?.session.uuid.0),
        // Nobody verifies tokens here yet, so that no caller has claims.
        Scope::Claim(_) => return None,
    };
    let params = canonical_params(message.params.span?.of(&call.text))?;
    let key = Key::of(&Fields {
        fleet: &call.server.fleet,
        server: &call.server.server.name,
        method: Method::ToolsCall.as_str(),
        tool,
        schema: 0,
        scope,
        surroundings: &surroundings,
        policy: *policy,
        version: &version(call, message, bound),
        place: if bound.is_some() { "session" } else { "" },
        params: &params,
    });
    Some((rule, key))
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

fn look(
    gateway: &Gateway,
    call: &Call,
    (rule, key): (usize, Key),
    (message, tool): (&Message, &str),
) -> Look {
    let rules = &call.server.results;
    match gateway.results.cache.look(&key, gateway.clock.now(), gateway.dice()) {
        Looked::Found { kept, status, refresh } => {
            let fill = |lead: Lead| Fill { rules: rules.clone(), rule, lead };
            Look::Found { kept, status, refresh: refresh.map(fill) }
        }
        Looked::Nothing { spare } => {
            let view = &rules.rules[rule];
            let principal = match view.rule.scope {
                Scope::Principal | Scope::Session => Some(call.caller.context),
                Scope::Public | Scope::Claim(_) => None,
            };
            let (purges, tally) = (rules.purges.clone(), view.tally.clone());
            let arguments = message.params.arguments.and_then(|span| canonical(span.of(&call.text)));
            let named = call_digest(tool, &arguments.unwrap_or_default());
            let about = About { purges, tally, tool: tool.into(), principal, call: named };
            Look::Asks(Asking { rules: rules.clone(), rule, key, about, spare })
        }
    }
}
