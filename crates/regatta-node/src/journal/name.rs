//! What names a call in the journal: who sends it, its tool and arguments, a key, and of a modern call the round it is in.

use http::Method;
use http::request::Parts;
use regatta_store::CallName;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Request, Tools};
use crate::serve::{self, Peek};

/// Where a client says which key a call has.
const META_KEY: &str = "io.regatta/idempotencyKey";
/// Where a request says which version it is of, and the first whose `_meta` the transport checks.
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const FIRST_CHECKED: &str = "2026-07-28";
/// What a gateway calls a call, and whom it tells callers apart by.
const GATEWAYS_NAME: &str = "x-regatta-call";
const GATEWAYS_CONTEXT: &str = "x-regatta-context";

/// What of a call's params names it.
#[derive(Deserialize)]
struct Params {
    name: String,
    arguments: Option<Box<RawValue>>,
    #[serde(rename = "_meta")]
    meta: Option<serde_json::Map<String, Value>>,
    #[serde(rename = "requestState")]
    state: Option<Box<RawValue>>,
    #[serde(rename = "inputResponses")]
    responses: Option<Box<RawValue>>,
}

/// The name of a request's call, if it is one of a tool of `server` that may run once only.
pub(crate) fn name(tools: &Tools, server: &str, request: &Request) -> Option<CallName> {
    let Request { caller, parts, peek, .. } = request;
    let is_call = parts.method == Method::POST && peek.method == "tools/call" && !peek.id.is_null();
    if !is_call || tools.once.is_empty() {
        return None;
    }
    let params: Params = serde_json::from_slice(peek.params.as_ref()?).ok()?;
    if !tools.once.contains(&params.name) {
        return None;
    }
    let key = key(&params, parts, peek)?;
    // Whom a gateway tells apart, though all show the gateway's own credential here.
    let context = header(parts, GATEWAYS_CONTEXT).unwrap_or_default();
    let arguments = canonical(params.arguments.as_deref());
    let named = [server, context, &key, &params.name].map(str::as_bytes);
    let mut named = [&[b"call", &caller.0[..]], &named[..], &[&arguments[..]]].concat();
    // Each round is a request of its own (2026-07-28 basic/patterns/mrtr, *Basic Workflow*), and told apart from the one
    // before it, under the same key, by nothing but what it brings.
    let round = [canonical(params.state.as_deref()), canonical(params.responses.as_deref())];
    if round.iter().any(|brought| !brought.is_empty()) {
        named.extend(round.iter().map(Vec::as_slice));
    }
    Some(CallName(regatta_seal::digest32(&named)))
}

fn header<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// What tells a call from others with the same arguments.
fn key(params: &Params, parts: &Parts, peek: &Peek) -> Option<String> {
    // Whatever a client gives for a key is one: to overlook it would run the call twice in silence.
    let told = params.meta.as_ref().and_then(|meta| meta.get(META_KEY)).filter(|key| !key.is_null());
    let told = told.map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
    let told = told.as_deref().or_else(|| header(parts, "idempotency-key"));
    match (told, header(parts, GATEWAYS_NAME), header(parts, serve::SESSION)) {
        (Some(key), _, _) => Some(format!("key {key}")),
        // The same at each attempt of any gateway, also if the session had to be opened anew for it.
        (None, Some(name), _) => Some(format!("call {name}")),
        // An id is used once in a session (2025-11-25 basic, *Requests*).
        (None, None, Some(session)) => Some(format!("session {session} {}", peek.id)),
        (None, None, None) => None,
    }
}

/// Equal values may be spelled in another way by the process that sends them again; nothing of none.
fn canonical(value: Option<&RawValue>) -> Vec<u8> {
    let raw = value.map(|value| value.get().as_bytes());
    raw.map(|raw| regatta_mcp::canonical(raw).unwrap_or_else(|| raw.to_vec())).unwrap_or_default()
}

/// Whether the request's `_meta` is checked before the handler is reached (2026-07-28 basic, *_meta*).
pub(super) fn is_checked(peek: &Peek) -> bool {
    let params = peek.params.as_ref().and_then(|params| serde_json::from_slice::<Params>(params).ok());
    let version = params.and_then(|params| params.meta?.get(META_VERSION)?.as_str().map(str::to_owned));
    version.is_some_and(|version| version.as_str() >= FIRST_CHECKED)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::caller::Caller;

    /// The name of a call of `order` with these params beside its name, under a key.
    fn named(more: &Value) -> CallName {
        let mut params = json!({"name": "order", "_meta": {META_KEY: "a"}});
        for (member, value) in more.as_object().unwrap() {
            params[member] = value.clone();
        }
        let body = json!({"id": 1, "method": "tools/call", "params": params}).to_string();
        of(&body)
    }

    fn of(body: &str) -> CallName {
        let (parts, ()) = http::Request::post("/mcp").body(()).unwrap().into_parts();
        let tools = Tools { once: ["order".to_owned()].into() };
        let body = Bytes::from(body.to_owned());
        let request = Request { caller: Caller([0; 16]), parts, peek: Peek::at(&body), body };
        name(&tools, "shop", &request).unwrap()
    }

    #[test]
    fn each_round_of_a_call_has_a_name_of_its_own_and_a_repeat_of_it_the_same() {
        let asked = json!({"requestState": "s", "inputResponses": {"ok": {"action": "accept"}}});
        let declined = json!({"requestState": "s", "inputResponses": {"ok": {"action": "decline"}}});
        let rounds = [
            json!({}),
            json!({"requestState": "s"}),
            json!({"requestState": "t"}),
            json!({"inputResponses": {}}),
            json!({"inputResponses": {"ok": {"action": "accept"}}}),
            asked.clone(),
            declined,
        ];
        let names: Vec<CallName> = rounds.iter().map(named).collect();
        for (at, one) in names.iter().enumerate() {
            assert_eq!(*one, named(&rounds[at]));
            assert!(names[at + 1..].iter().all(|other| other != one), "{}", rounds[at]);
        }
        let spelled = r#"{"id": 2, "method": "tools/call", "params": {"inputResponses":
            {"ok":{"action" : "\u0061ccept"}}, "_meta": {"io.regatta/idempotencyKey": "a"},
            "requestState": "\u0073", "name": "order"}}"#;
        assert_eq!(of(spelled), named(&asked), "the same values in another spelling");
    }

    #[test]
    fn what_brings_nothing_is_named_as_if_there_were_no_rounds() {
        let none = json!({"requestState": null, "inputResponses": null});
        assert_eq!(named(&none), named(&json!({})));
        // Nodes of one fleet may differ in their version for a while: this name is not to change.
        let parts: [&[u8]; 7] = [b"call", &[0; 16], b"shop", b"", b"key a", b"order", b""];
        assert_eq!(named(&json!({})), CallName(regatta_seal::digest32(&parts)));
    }
}
