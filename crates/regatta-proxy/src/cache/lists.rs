//! Lists and reads: by their server's own word as far as it counts, or by the operator's time (2026-07-28
//! server/utilities/caching).
//!
//! What a trusted server calls public is found by everybody; all else only by callers with the same credentials.

use std::time::Duration;

use regatta_cache::{About, Fields, OnShelf, ScopeValue, call_digest};
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
        (Era::Modern, Hints::Private | Hints::Trusted) => By::Hint { method, page, public: None, asked },
    };
    let Some(params) = params(call, message) else { return Look::Aside };
    let surroundings = [Scope::Public, Scope::Principal].map(|scope| surroundings::of(call, &scope));
    let version = version(call, message, bound);
    let own = Fields {
        fleet: &call.server.fleet,
        server: &call.server.server.name,
        method: method.as_str(),
        tool: "",
        schema: 0,
        scope: ScopeValue::Principal(&call.caller.context),
        surroundings: &surroundings[1],
        policy: call.server.results.lists_version,
        version: &version,
        place: place(bound),
        params: &params,
    };
    let about = |shared| about(call, (message, method), read, shared);
    match by {
        By::Hint { .. } if lists.shares(page) => {
            let for_all = Fields { scope: ScopeValue::Public, surroundings: &surroundings[0], ..own };
            let public = Some(gateway.results.cache.name(&for_all));
            let by = By::Hint { method, page, public, asked };
            match look_under(gateway, call, (&for_all, by), about) {
                found @ Look::Found { .. } => found,
                Look::Asks(_) | Look::Aside => look_under(gateway, call, (&own, by), about),
            }
        }
        By::Hint { .. } | By::Time { .. } | By::Rule(_) => look_under(gateway, call, (&own, by), about),
    }
}

/// What counts of the request's parameters.
fn params(call: &Call, message: &Message) -> Option<Vec<u8>> {
    message.params.span.map_or(Some(Vec::new()), |span| canonical_params(span.of(&call.text)))
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

fn about(call: &Call, (message, method): (&Message, Method), read: &Read, shared: Option<OnShelf>) -> About {
    let uri = message.params.uri.map(|uri| uri.get(&call.text)).unwrap_or_default();
    About {
        purges: call.server.results.purges.clone(),
        shared: shared.inspect(|at| at.shelf.note_use()),
        tally: read.tally.clone(),
        tool: method.as_str().into(),
        principal: Some(call.caller.context),
        call: call_digest(method.as_str(), uri.as_bytes()),
    }
}
