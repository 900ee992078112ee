//! Results of tools: by the rule that names the tool, and by what the call makes old.

use regatta_cache::{About, Fields, OnShelf, Purge, ScopeValue, call_digest};
use regatta_mcp::{Message, Method, canonical, canonical_params};
use regatta_policy::cache::Scope;

use super::{Consulted, Look, is_personal, look_under, place, surroundings, version};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::session::Bound;
use crate::upkeep::{By, Touch};

/// Asks the cache about a call of a tool.
pub(super) fn consult(gateway: &Gateway, call: &Call, message: &Message, bound: Option<&Bound>) -> Consulted {
    let Some(tool) = message.params.name.map(|name| name.get(&call.text)) else {
        return Consulted { look: Look::Aside, touch: None };
    };
    let rules = &call.server.results;
    let touched = rules.rules.iter().filter(|view| view.rule.is_invalidated_by(&tool));
    let touched = touched.map(|view| Purge::of_tools(&view.rule.tool)).collect();
    let look = match rule(call, message, &tool) {
        Some(rule) => look(gateway, call, (message, &tool), bound, rule).unwrap_or(Look::Aside),
        None => Look::Aside,
    };
    Consulted { look, touch: Touch::new(rules, touched) }
}

/// The rule for the call; none if its result is not to be looked for.
fn rule(call: &Call, message: &Message, tool: &str) -> Option<usize> {
    let rules = &call.server.results.rules;
    let rule = rules.iter().position(|view| view.rule.tool.matches(tool))?;
    // A write at another gateway may have gone unheard.
    let is_unheard = !rules[rule].rule.invalidated_by.is_empty() && !call.server.results.hears_purges();
    (!is_personal(message) && !is_unheard).then_some(rule)
}

/// Looks for the result; none if the rule's scope has no value for this call.
fn look(
    gateway: &Gateway,
    call: &Call,
    (message, tool): (&Message, &str),
    bound: Option<&Bound>,
    rule: usize,
) -> Option<Look> {
    let view = &call.server.results.rules[rule];
    let claimed;
    let scope = match &view.rule.scope {
        Scope::Principal => ScopeValue::Principal(&call.caller.context),
        Scope::Public => ScopeValue::Public,
        Scope::Session => ScopeValue::Session(&bound?.session.uuid.0),
        Scope::Claim(name) => {
            claimed = call.caller.claim(name)?.digest();
            ScopeValue::Claim(name, &claimed)
        }
    };
    let params = canonical_params(message.params.span?.of(&call.text))?;
    let (surroundings, version) = (surroundings::of(call, &view.rule.scope), version(call, message, bound));
    let fields = Fields {
        fleet: &call.server.fleet,
        server: &call.server.server.name,
        method: Method::ToolsCall.as_str(),
        tool,
        schema: call.server.server.definitions.of(tool, bound.map(|bound| bound.home.replica)),
        scope,
        surroundings: &surroundings,
        policy: view.version,
        version: &version,
        place: place(bound),
        params: &params,
    };
    let about = |shared| about(call, rule, (message, tool), shared);
    Some(look_under(gateway, call, (&fields, By::Rule(rule)), about))
}

fn about(call: &Call, rule: usize, (message, tool): (&Message, &str), shared: Option<OnShelf>) -> About {
    let rules = &call.server.results;
    let view = &rules.rules[rule];
    let principal = match view.rule.scope {
        Scope::Principal | Scope::Session => Some(call.caller.context),
        Scope::Public | Scope::Claim(_) => None,
    };
    let arguments = message.params.arguments.and_then(|span| canonical(span.of(&call.text)));
    About {
        purges: rules.purges.clone(),
        shared,
        tally: view.tally.clone(),
        tool: tool.into(),
        principal,
        call: call_digest(tool, &arguments.unwrap_or_default()),
    }
}
