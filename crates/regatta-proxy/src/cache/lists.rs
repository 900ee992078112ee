//! Lists and reads: by their server's own word as far as it counts, or by the operator's time (2026-07-28
//! server/utilities/caching).
//!
//! What a trusted server calls public is found by everybody; all else only by callers with the same credentials.

use std::time::Duration;

use regatta_cache::{About, Fields, Key, ScopeValue, call_digest};
use regatta_mcp::era::Era;
use regatta_mcp::{Message, Method, canonical_params};
use regatta_policy::cache::{Hints, Page, Scope};
use regatta_policy::ids::stable_hash;
use regatta_policy::snapshot::Cursors;

use super::{Look, is_personal, look_under, place, surroundings, version};
use crate::gateway::Gateway;
use crate::handover::Call;
use crate::results::Read;
use crate::session::Bound;
use crate::upkeep::{By, Touch};

/// Looks for a list or a read.
pub(super) fn look(
    gateway: &Gateway,
    call: &Call,
    (message, method, read): (&Message, Method, &Read),
    bound: Option<&Bound>,
) -> Look {
    let lists = &call.server.results.lists;
    let asked = asked(call, message);
    if is_personal(message) || read.is_aside(asked, gateway.clock.now()) {
        return Look::Aside;
    }
    let page = if message.params.cursor.is_some() { Page::Later } else { Page::First };
    let key = |scope: &Scope| key(call, (message, method), bound, scope);
    let by = match (call.era, lists.hints) {
        (Era::Legacy, _) => match ttl(call, method) {
            Some(ttl) => By::Time { ttl },
            None => return Look::Aside,
        },
        (Era::Modern, Hints::Ignored) => return Look::Aside,
        // Which replica made a cursor is sealed into each answer anew.
        (Era::Modern, _) if call.server.server.cursors == Cursors::Replica => return Look::Aside,
        // What a server says of itself may depend on who asks (SESSIONS 7).
        (Era::Modern, Hints::Private) if method == Method::ServerDiscover => return Look::Aside,
        (Era::Modern, Hints::Private | Hints::Trusted) => {
            let public = if lists.shares(page) { key(&Scope::Public) } else { None };
            By::Hint { method, page, public, asked }
        }
    };
    if let By::Hint { public: Some(public), .. } = by
        && let found @ Look::Found { .. } =
            look_under(gateway, call, (public, by), || about(call, message, method, read))
    {
        return found;
    }
    match key(&Scope::Principal) {
        Some(key) => look_under(gateway, call, (key, by), || about(call, message, method, read)),
        None => Look::Aside,
    }
}

/// Which list, page or resource is asked for: each may have a time of its own.
fn asked(call: &Call, message: &Message) -> u64 {
    let [cursor, uri] = [message.params.cursor, message.params.uri]
        .map(|text| text.map(|text| text.get(&call.text)).unwrap_or_default());
    stable_hash(&[cursor.as_bytes(), uri.as_bytes()])
}

/// What a request for a later page makes old if it is refused.
pub(super) fn touch(call: &Call, message: &Message, method: Method) -> Option<Touch> {
    message.params.cursor?;
    let are_kept = match call.era {
        Era::Legacy => ttl(call, method).is_some(),
        Era::Modern => call.server.results.lists.hints != Hints::Ignored,
    };
    are_kept.then(|| Touch::of_pages(&call.server.results, method))
}

/// How long a legacy server's lists are kept, if they are.
fn ttl(call: &Call, method: Method) -> Option<Duration> {
    let lists = &call.server.results.lists;
    let ttl = match method {
        Method::ResourcesRead => lists.read_ttl,
        // A modern method, whoever asks.
        Method::ServerDiscover => Duration::ZERO,
        _list => lists.list_ttl,
    };
    Some(ttl).filter(|ttl| !ttl.is_zero())
}

fn key(
    call: &Call,
    (message, method): (&Message, Method),
    bound: Option<&Bound>,
    scope: &Scope,
) -> Option<Key> {
    let params = match message.params.span {
        Some(span) => canonical_params(span.of(&call.text))?,
        None => Vec::new(),
    };
    let value = match scope {
        Scope::Public => ScopeValue::Public,
        Scope::Principal | Scope::Session | Scope::Claim(_) => ScopeValue::Principal(&call.caller.context),
    };
    Some(Key::of(&Fields {
        fleet: &call.server.fleet,
        server: &call.server.server.name,
        method: method.as_str(),
        tool: "",
        schema: 0,
        scope: value,
        surroundings: &surroundings::of(call, scope),
        policy: call.server.results.lists_version,
        version: &version(call, message, bound),
        place: place(bound),
        params: &params,
    }))
}

fn about(call: &Call, message: &Message, method: Method, read: &Read) -> About {
    let uri = message.params.uri.map(|uri| uri.get(&call.text)).unwrap_or_default();
    About {
        purges: call.server.results.purges.clone(),
        shelf: call.server.results.shelf.clone().inspect(|shelf| shelf.note_use()),
        tally: read.tally.clone(),
        tool: method.as_str().into(),
        principal: Some(call.caller.context),
        call: call_digest(method.as_str(), uri.as_bytes()),
    }
}
