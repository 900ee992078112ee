//! The journal of calls: a tool declared `once` is never run twice for one call, whoever repeats it and wherever.
//!
//! A call is named by who sends it, its tool and arguments, and a key: `_meta["io.regatta/idempotencyKey"]`, or the header
//! `Idempotency-Key`, or the session with the request's id. The first to come runs it, to its end, whatever becomes of its
//! connection, and keeps the result; who comes later gets the result, waits for it, or is told that the outcome is unknown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use regatta_mcp::codes;
use regatta_store::{Begun, CallName, Holds, Run, Store, StoreError};
use rmcp::ServerHandler;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::answers::{Answer, fault, json, unknown};
use crate::caller::Caller;
use crate::places::Place;
use crate::serve::{self, Peek, Shared};

/// How long a run is believed in without a sign of it, and how often it gives one.
const LEASE: Duration = Duration::from_secs(3);
const SIGN_EVERY: Duration = Duration::from_millis(750);
/// How often a call that waits for another's result looks for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Attempts to keep a result, and the pause between two.
const KEEP_ATTEMPTS: usize = 4;
const KEEP_PAUSE: Duration = Duration::from_millis(300);
/// Where a client says which key a call has.
const META_KEY: &str = "io.regatta/idempotencyKey";

/// Which tools may run how often for one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    pub(crate) once: BTreeSet<String>,
}

/// What the journal did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) kept: AtomicU64,
    pub(crate) joined: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// A request that is on its way.
pub(crate) struct Request {
    pub(crate) parts: Parts,
    pub(crate) body: Bytes,
    pub(crate) peek: Peek,
}

/// What of a call's params names it.
#[derive(Deserialize)]
struct Params {
    name: String,
    arguments: Option<Box<RawValue>>,
    #[serde(rename = "_meta")]
    meta: Option<serde_json::Map<String, Value>>,
}

/// The name of a request's call, if it is one of a tool that may run once only.
pub(crate) fn name<H: ServerHandler>(shared: &Shared<H>, parts: &Parts, peek: &Peek) -> Option<CallName> {
    let is_call = parts.method == Method::POST && peek.method == "tools/call" && !peek.id.is_null();
    if !is_call || shared.tools.once.is_empty() {
        return None;
    }
    let params: Params = serde_json::from_str(peek.params.as_ref()?.get()).ok()?;
    if !shared.tools.once.contains(&params.name) {
        return None;
    }
    let caller = Caller::of(shared.settings.session_binding, &parts.headers);
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    // Whatever a client gives for a key is one: to overlook it would run the call twice in silence.
    let told = params.meta.as_ref().and_then(|meta| meta.get(META_KEY)).filter(|key| !key.is_null());
    let told = told.map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned));
    let key = match (told.as_deref().or_else(|| header("idempotency-key")), header(serve::SESSION)) {
        (Some(key), _) => format!("key {key}"),
        // An id is used once in a session (2025-11-25 basic, *Requests*).
        (None, Some(session)) => format!("session {session} {}", peek.id),
        (None, None) => return None,
    };
    // Equal arguments may be spelled in another way by the process that sends them again.
    let arguments = params.arguments.as_ref().map(|arguments| arguments.get().as_bytes());
    let arguments = arguments.map(|raw| regatta_mcp::canonical(raw).unwrap_or_else(|| raw.to_vec()));
    let arguments = arguments.unwrap_or_default();
    let parts = [shared.sessions.server.as_str(), &key, &params.name].map(str::as_bytes);
    let [server, key, tool] = parts;
    Some(CallName(regatta_seal::digest32(&[b"call", &caller.0, server, key, tool, &arguments])))
}

/// Answers a call that may run once only. Whoever drops it stops waiting, no more.
pub(crate) async fn answer<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    call: CallName,
    request: Request,
    place: Arc<Place>,
    deadline: Instant,
) -> Answer {
    let (id, counts) = (request.peek.id.clone(), &shared.journal);
    let run = Run(regatta_seal::random16());
    let life = shared.settings.journal_life();
    let mut waited = false;
    loop {
        match shared.sessions.store.begin_call(&call, run, LEASE, life).await {
            Ok(Begun::Yours) => break,
            Ok(Begun::Running) => {
                if !std::mem::replace(&mut waited, true) {
                    counts.joined.fetch_add(1, Relaxed);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(Begun::Lost) => {
                counts.unknown.fetch_add(1, Relaxed);
                return unknown(&id, "the node that ran this call was lost; it is not run again");
            }
            Ok(Begun::Done(kept)) => {
                counts.kept.fetch_add(1, Relaxed);
                return repeat(&id, &kept);
            }
            Err(why) => return refused(&id, &why),
        }
    }
    let running = tokio::spawn(to_its_end(shared.clone(), call, run, request, place, deadline));
    match running.await {
        Ok(answer) => answer,
        Err(_) => unknown(&id, "the handler broke off"),
    }
}

async fn to_its_end<H: ServerHandler>(
    shared: Arc<Shared<H>>,
    call: CallName,
    run: Run,
    request: Request,
    place: Arc<Place>,
    deadline: Instant,
) -> Answer {
    let Request { parts, body, peek } = request;
    let id = peek.id.clone();
    let store = shared.sessions.store.clone();
    let signs = tokio::spawn(give_signs(store.clone(), call, run));
    let answered = tokio::time::timeout_at(deadline, async {
        let (head, body) = serve::route(&shared, parts, body, peek).await.into_parts();
        let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes);
        (head, body)
    });
    let answered = answered.await;
    signs.abort();
    let Ok((head, body)) = answered else {
        // It was begun and not ended: that is what the journal says from now on.
        return unknown(&id, "the handler took longer than request_timeout");
    };
    let kept = match outcome(&body).filter(|_| head.status == StatusCode::OK) {
        Some(result) => keep(&*store, &call, run, result, shared.settings.journal_life()).await,
        // Refused before the handler was reached.
        None => store.forget_call(&call, run).await.map(|()| Holds::Yes),
    };
    if !matches!(kept, Ok(Holds::Yes)) {
        shared.journal.lost.fetch_add(1, Relaxed);
        tracing::warn!(
            ?kept,
            "the result of a call could not be kept; a repeat will be told that it is unknown"
        );
    }
    drop(place);
    http::Response::from_parts(head, Full::new(body).boxed())
}

async fn give_signs(store: Arc<dyn Store>, call: CallName, run: Run) {
    loop {
        tokio::time::sleep(SIGN_EVERY).await;
        if let Err(why) = store.hold_call(&call, run, LEASE).await {
            tracing::debug!(%why, "a sign of a running call was lost");
        }
    }
}

async fn keep(
    store: &dyn Store,
    call: &CallName,
    run: Run,
    result: Bytes,
    life: Duration,
) -> Result<Holds, StoreError> {
    let mut last = Ok(Holds::No);
    for _ in 0..KEEP_ATTEMPTS {
        last = match store.end_call(call, run, result.clone(), life).await {
            // What it is worth to know: that it was run.
            Err(StoreError::TooLarge(_)) => store.end_call(call, run, Bytes::new(), life).await,
            kept => kept,
        };
        match &last {
            Err(StoreError::Away(_)) => tokio::time::sleep(KEEP_PAUSE).await,
            _ => return last,
        }
    }
    last
}

/// The members of a response beside its id, without the first brace: of a JSON body, or of the last event of a stream.
fn outcome(body: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Response<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(body).ok()?;
    let text = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(text);
    let response: Response<'_> = serde_json::from_str(text).ok()?;
    let told = match (response.result, response.error) {
        (Some(result), _) => format!("\"result\":{}}}", result.get()),
        (None, Some(error)) => format!("\"error\":{}}}", error.get()),
        (None, None) => return None,
    };
    Some(Bytes::from(told))
}

/// A kept result, under the id of who asks now.
fn repeat(id: &Value, kept: &[u8]) -> Answer {
    if kept.is_empty() {
        let why = "this call was run before, and its result was too large to be kept";
        return fault(StatusCode::OK, id, codes::OUTCOME_UNKNOWN, why);
    }
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},");
    json(StatusCode::OK, [head.as_bytes(), kept].concat())
}

fn refused(id: &Value, why: &StoreError) -> Answer {
    let (code, why) = match why {
        StoreError::Away(_) => (codes::STORE_UNAVAILABLE, "the journal cannot be asked now: nothing was run"),
        StoreError::Full(_) | StoreError::TooLarge(_) => {
            (codes::OVERLOADED, "the journal is full: nothing was run")
        }
    };
    fault(StatusCode::OK, id, code, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_found_in_json_and_in_the_last_event() {
        let told = outcome(br#"{"jsonrpc":"2.0","id":1,"result":{"a":1.0}}"#).unwrap();
        assert_eq!(&told[..], br#""result":{"a":1.0}}"#);
        let events =
            b"data: {\"method\":\"notifications/progress\"}\n\ndata: {\"id\":1,\"error\":{\"code\":1}}\n\n";
        assert_eq!(&outcome(events).unwrap()[..], br#""error":{"code":1}}"#);
        assert_eq!(outcome(b"no such session\n"), None);
        assert_eq!(outcome(b"{}"), None);
    }

    #[tokio::test]
    async fn a_kept_result_is_told_under_the_id_of_who_asks() {
        let answer = repeat(&serde_json::json!("x"), br#""result":{"a":1.0}}"#);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], br#"{"jsonrpc":"2.0","id":"x","result":{"a":1.0}}"#);
    }
}
